"""Undoing a run."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from directory_sync.errors import PermanentError
from directory_sync.joget.database import Database
from tests.company import Company, causes, counts, people
from tests.directory_sync.plan.test_matching import rename_user
from tests.stand_in import user

ANA, BOB, EVE = "ana@example.org", "bob@example.org", "eve@example.org"


@pytest.fixture
def before(company: Company) -> dict[str, list[str]]:
    """Do a first run; returns what Joget holds after it."""
    company.configure(
        policies={
            "renamed_user": "rename",
            "missing_user": "delete",
            "missing_group": "delete",
            "missing_runs": 1,
        }
    )
    company.joget.add_user("sso@example.org")
    company.pool.users = [user(ANA), user(BOB), user(EVE)]
    company.pool.members = {"Sales": [user(ANA), user(BOB), user(EVE)], "Board": [user(ANA)]}
    company.run()
    return company.joget.contents()


def changed(company: Company) -> str:
    """Do a run with a change of every kind; returns its run id."""
    ana, bob = rename_user(user(ANA), "ana.lima@example.org"), user(BOB, enabled=False)
    company.pool.users = [
        ana,
        bob,
        user("new@example.org"),
        user("sso@example.org", given_name="Sso"),
    ]
    company.pool.members = {"Sales": [bob, company.pool.users[3]], "Future": [ana]}
    report = company.run()
    assert counts(report) == {
        "read": 4, "created": 1, "adopted": 1, "renamed": 1, "deactivated": 1,
        "deleted": 1, "missing": 1,
    }  # fmt: skip
    assert counts(report, "groups") == {
        "read": 2,
        "created": 1,
        "unchanged": 1,
        "deleted": 1,
        "missing": 1,
    }
    return str(report["run_id"])


def test_an_undo_brings_joget_back_to_the_start(
    company: Company, before: dict[str, list[str]]
) -> None:
    run_id = changed(company)
    shown = company.undo(run_id, dry_run=True)
    assert shown["outcome"] == "dry_run"
    report = company.undo(run_id)
    assert (report["outcome"], report["undoes"]) == ("applied", run_id)
    assert report["plan_sha256"] == shown["plan_sha256"], "it did what it showed"
    assert causes(report) == {}
    assert company.joget.contents() == before


def test_an_undone_change_stays_undone_until_the_pools_value_changes(
    company: Company, before: dict[str, list[str]]
) -> None:
    company.undo(changed(company))
    for _ in range(2):
        report = company.run()
        assert set(causes(report)) == {"undone"}
        assert company.ask() is None
        assert company.joget.contents() == before
    company.pool.users[3] = user("sso@example.org", given_name="Other")
    assert counts(company.run())["adopted"] == 1
    company.pool.users[1] = user(BOB)
    company.run()
    company.pool.users[1] = user(BOB, enabled=False)
    assert counts(company.run())["deactivated"] == 1


def test_a_dry_run_is_the_default_and_writes_nothing(
    company: Company, before: dict[str, list[str]]
) -> None:
    from directory_sync.tasks import undo
    from tests.company import attempt

    run_id = changed(company)
    everything = company.joget.contents(prefix="")
    undo.undo_run(attempt("undo", "manual"), "default", {"dry_run": True}, {"run_id": run_id})
    assert company.joget.contents(prefix="") == everything


def test_rows_that_changed_since_are_skipped_and_listed(company: Company) -> None:
    company.pool.users = people(4)
    company.pool.members = {"Sales": company.pool.users}
    company.run()
    company.pool.users = [
        user(f"person{number:03}@example.org", given_name="New") for number in range(4)
    ]
    run_id = company.run()["run_id"]
    company.joget.execute("UPDATE dir_user SET email = 'local' WHERE id = 'person001@example.org'")
    report = company.undo(run_id)
    assert causes(report) == {"changed_since": 1}
    assert counts(report) == {"read": 4, "updated": 3, "held": 1}
    names = company.joget.column(
        "SELECT firstName FROM dir_user WHERE id LIKE 'person%' ORDER BY id"
    )
    assert names == ["Given", "New", "Given", "Given"]


def test_a_created_account_that_was_used_since_is_not_deleted(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB), user(EVE)]
    company.pool.members = {"Sales": [user(ANA), user(BOB)]}
    run_id = company.run()["run_id"]
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', %s)", (ANA,)
    )
    company.joget.execute("INSERT INTO dir_user_extra (username) VALUES (%s)", (EVE,))
    report = company.undo(run_id)
    assert counts(report) == {"read": 3, "deleted": 1, "held": 2}
    assert company.usernames() == [ANA, EVE]
    assert company.memberships() == {(ANA, "Sales")}, "the group stays for ana"


def test_an_undo_can_be_undone(company: Company, before: dict[str, list[str]]) -> None:
    run_id = changed(company)
    after = company.joget.contents()
    company.undo(run_id)
    assert company.last
    company.undo(company.last.run_id)
    assert company.joget.contents() == after


def test_an_undone_change_is_applied_when_a_person_approves_it(
    company: Company, before: dict[str, list[str]]
) -> None:
    from directory_sync.tasks import review

    run_id = changed(company)
    after = company.joget.contents()
    company.undo(run_id)
    company.run()
    mine = review.get_review_id("manual__1", {})
    assert review.read_question("default", mine, by_hand=True)
    company.answer(mine, "approve")
    assert company.joget.contents() == after


def test_a_retried_undo_undoes_once(company: Company, before: dict[str, list[str]]) -> None:
    from directory_sync.tasks import undo
    from tests.company import attempt

    run_id = changed(company)
    for _ in range(2):
        undo.undo_run(
            attempt("undo", "manual__1"), "default", {}, {"run_id": run_id, "dry_run": False}
        )
    assert company.joget.contents() == before
    assert company.joget.column("SELECT COUNT(*) FROM directory_sync_run WHERE kind = 'undo'") == [
        1
    ]


@pytest.mark.parametrize(
    ("conf", "text"),
    [
        ({"run_id": "nothing"}, "knows no applied run with the id in parameter run_id"),
        ({}, "run_id"),
        ({"run_id": "x", "dryrun": 1}, "Unknown parameter"),
    ],
)
def test_wrong_input_is_one_error_and_writes_nothing(
    company: Company, conf: dict[str, Any], text: str
) -> None:
    from directory_sync.tasks import undo
    from tests.company import attempt

    company.pool.users = [user(ANA)]
    company.run()
    before = company.joget.contents()
    with pytest.raises(PermanentError, match=text):
        undo.undo_run(attempt("undo", "manual"), "default", {"dry_run": False}, conf)
    assert company.joget.contents() == before


@pytest.mark.parametrize("name", ["plan.parquet", "directory.parquet"])
def test_a_run_with_a_damaged_plan_cannot_be_undone(company: Company, name: str) -> None:
    company.pool.users = people(2)
    run_id = company.run()["run_id"]
    before = company.joget.contents()
    assert company.last
    path = Path(company.last.url.removeprefix("file://")) / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(PermanentError, match="isn't the one that its run applied"):
        company.undo(run_id)
    assert company.joget.contents() == before


def test_a_run_without_its_staged_files_cannot_be_undone(company: Company, tmp_path: Any) -> None:
    company.pool.users = [user(ANA)]
    run_id = company.run()["run_id"]
    company.joget.execute("UPDATE directory_sync_run SET plan_url = CONCAT(plan_url, '.gone')")
    with pytest.raises(PermanentError, match="gone from staging"):
        company.undo(run_id)
    assert company.usernames() == [ANA]


@pytest.mark.parametrize(
    "use",
    [
        "UPDATE dir_employment SET departmentId = 'D-1' WHERE userId = %s",
        "UPDATE dir_employment SET gradeId = 'G-1' WHERE userId = %s",
        "UPDATE dir_employment SET employeeCode = '7' WHERE userId = %s",
        "UPDATE dir_employment SET role = 'Lead' WHERE userId = %s",
        "UPDATE dir_employment SET startDate = '2026-01-01' WHERE userId = %s",
        "UPDATE dir_department SET hod = (SELECT id FROM dir_employment WHERE userId = %s)",
        "INSERT INTO dir_employment_report_to (employmentId, reportToId) "
        "SELECT e.id, b.id FROM dir_employment e JOIN dir_employment b WHERE e.userId = %s AND "
        "b.userId = 'local'",
        "INSERT INTO dir_employment_report_to (employmentId, reportToId) "
        "SELECT b.id, e.id FROM dir_employment e JOIN dir_employment b WHERE e.userId = %s AND "
        "b.userId = 'local'",
    ],
    ids=["department", "grade", "code", "role", "date", "head", "reports", "reported to"],
)
@pytest.mark.parametrize("adopted", [False, True], ids=["made", "adopted"])
def test_an_employment_that_somebody_used_since_is_not_taken_back(
    company: Company, use: str, adopted: bool
) -> None:
    company.joget.add_user("local", password="local")
    company.joget.execute(
        "INSERT INTO dir_department (id, organizationId) VALUES ('D-1', 'ORG-001')"
    )
    company.joget.execute("INSERT INTO dir_grade (id, organizationId) VALUES ('G-1', 'ORG-001')")
    company.joget.execute(
        "INSERT INTO dir_employment (id, userId, organizationId) VALUES ('e', 'local', 'ORG-001')"
    )
    if adopted:
        company.joget.add_user(ANA)
    company.pool.users = [user(ANA), user(BOB)]
    run_id = company.run()["run_id"]
    company.joget.execute(use, (ANA,))
    report = company.undo(run_id)
    assert set(causes(report)) == {"changed_since"}
    assert company.joget.column(
        "SELECT COUNT(*) FROM dir_employment WHERE userId = %s", (ANA,)
    ) == [1]
    assert company.usernames() == [ANA, "local"]


def test_a_run_id_that_was_applied_twice_is_undone_whole(
    company: Company, before: dict[str, list[str]]
) -> None:
    first = changed(company)
    company.pool.users[0] = rename_user(user(ANA), "ana.silva@example.org", given_name="Ana Maria")
    company.pool.users[1] = user(BOB)
    company.pool.members["Sales"] = [user(BOB), company.pool.users[2]]
    company.run()
    assert company.last
    second = company.last.run_id
    company.joget.execute(
        "UPDATE directory_sync_run SET run_id = %s WHERE run_id = %s", (quote(first), quote(second))
    )
    shown = company.undo(first, dry_run=True)
    report = company.undo(first)
    assert causes(report) == {}
    assert report["plan_sha256"] == shown["plan_sha256"]
    assert company.joget.contents() == before


def test_an_undo_reads_each_table_once_however_many_users_it_takes_back(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = people(30)
    run_id = company.run()["run_id"]
    statements: list[str] = []
    frame = Database.frame

    def count_statements(self: Database, statement: str, *arguments: Any, **options: Any) -> Any:
        statements.append(statement)
        return frame(self, statement, *arguments, **options)

    monkeypatch.setattr(Database, "frame", count_statements)
    company.undo(run_id)
    for table in ("dir_user_password_history", "dir_user_meta", "dir_employment c"):
        assert len([one for one in statements if f"{table} " in one]) == 1
    assert not [
        one
        for one in statements
        if "COUNT(*) FROM dir_user_password_history" in one and "(SELECT" in one
    ]
