"""One transaction, one lock, retried at any moment."""

import threading
from collections.abc import Callable
from typing import Any

import MySQLdb
import pytest

from include.directory_sync import staging, steps
from include.directory_sync.errors import TransientError
from include.directory_sync.joget import ledger, writing
from include.directory_sync.joget.database import session
from include.directory_sync.plan import make_plan
from tests.company import Company, counts
from tests.stand_in import user

ANA, BOB = "ana@example.org", "bob@example.org"


class KilledError(BaseException):
    """Stands for the death of the process: nothing of ours catches it."""


def test_a_load_that_died_after_its_commit_applies_nothing_and_finishes_the_report(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    transformed = company.prepare()

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(steps, "make_report", killed)
        with pytest.raises(KilledError):
            company.load(transformed)
    before = company.joget.contents(prefix="")
    assert company.usernames() == [ANA]
    report = company.load(transformed)
    assert report["outcome"] == "applied"
    assert counts(report) == {"read": 1, "created": 1}
    assert counts(report, "memberships") == {"read": 1, "added": 1}
    assert len(company.staged("plan.parquet")) == 5
    assert {**company.joget.contents(prefix=""), "directory_sync_lock": []} == {**before, "directory_sync_lock": []}


@pytest.mark.parametrize(
    "moment", ["_take_turn", "_write_groups", "_write_users", "_write_memberships", "_write_ledger", "_verify"]
)
def test_a_load_that_dies_before_its_commit_leaves_nothing_and_a_retry_does_all(
    company: Company, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    transformed = company.prepare()
    before = company.joget.contents()

    def killed(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(writing.Apply, moment, killed)
        with pytest.raises(KilledError):
            company.load(transformed)
    assert company.joget.contents() == before
    assert company.joget.contents("directory_sync_user_link") == {"directory_sync_user_link": []}
    assert counts(company.load(transformed)) == {"read": 1, "created": 1}


def test_the_plan_is_published_before_the_commit(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.pool.users = [user(ANA)]
    transformed = company.prepare()

    def full(*_: Any) -> None:
        raise TransientError("the store is full")

    with monkeypatch.context() as patch:
        patch.setattr(staging.Folder, "frame", full)
        with pytest.raises(TransientError, match="full"):
            company.load(transformed)
    assert company.usernames() == []


def test_what_joget_changed_between_reading_and_writing_is_planned_again(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA, given_name="One")]
    company.run()
    company.pool.users = [user(ANA, given_name="Two"), user(BOB)]
    changes: list[Callable[[], object]] = [
        lambda: company.joget.execute("UPDATE dir_user SET lastName = 'local' WHERE id = %s", (ANA,)),
        lambda: company.joget.add_user(BOB),
    ]
    send = writing.Apply._send

    def interfere(self: writing.Apply) -> None:
        send(self)
        if changes:
            changes.pop(0)()

    monkeypatch.setattr(writing.Apply, "_send", interfere)
    report = company.run()
    assert counts(report) == {"read": 2, "updated": 1, "adopted": 1}
    assert company.user(ANA)["lastName"] == "Family"


def test_conflicts_without_end_are_transient_and_nothing_is_written(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user(ANA, given_name="Two")]
    send = writing.Apply._send
    names = iter("abcdefg")

    def interfere(self: writing.Apply) -> None:
        send(self)
        company.joget.execute("UPDATE dir_user SET lastName = %s WHERE id = %s", (next(names), ANA))

    monkeypatch.setattr(writing.Apply, "_send", interfere)
    with pytest.raises(TransientError, match="3 plannings"):
        company.run()
    assert company.user(ANA)["firstName"] == "Given"


def test_a_row_that_joget_has_locked_is_waited_for_and_then_planned_again(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user(ANA, given_name="Two")]
    transformed = company.prepare()
    console = company.joget.server.connect(company.joget.name)
    console.autocommit(False)
    console.cursor().execute("UPDATE dir_user SET email = 'console' WHERE id = %s", (ANA,))
    timer = threading.Timer(1.0, console.commit)
    timer.start()
    report = company.load(transformed)
    timer.join()
    assert counts(report) == {"read": 1, "updated": 1}
    assert company.user(ANA)["email"] == ANA


def test_a_second_writer_waits_for_the_lock_and_says_for_whom(
    company: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    monkeypatch.setattr(ledger, "LOCK_POLL", 0)
    monkeypatch.setattr(ledger, "LOCK_WAIT", -1)
    transformed = company.prepare()
    run = staging.read_run(transformed)
    mine = run.model_copy(update={"run_id": "the other"})
    with (
        session("joget_mysql") as other,
        ledger.lock(other, mine),
        pytest.raises(TransientError, match="default/the%20other"),
    ):
        company.load(transformed)
    assert company.load(transformed)["outcome"] == "nothing_to_do"


def test_nothing_older_goes_over_something_newer(company: Company) -> None:
    company.pool.users = [user(ANA, given_name="Old")]
    old = company.prepare()
    company.pool.users = [user(ANA, given_name="New")]
    company.run()
    report = company.load(old)
    assert report["outcome"] == "superseded"
    assert company.user(ANA)["firstName"] == "New"


def test_a_run_with_nothing_to_do_writes_no_directory_row(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    tables = ("dir_user", "dir_group", "dir_user_group", "dir_user_role", "dir_employment")
    company.joget.execute("CREATE TABLE writes (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40))")
    for table in tables:
        for event in ("INSERT", "UPDATE", "DELETE"):
            company.joget.execute(
                f"CREATE TRIGGER t_{table}_{event} BEFORE {event} ON {table} FOR EACH ROW "
                f"INSERT INTO writes (what) VALUES ('{event} {table}')"
            )
    company.run()
    assert company.joget.column("SELECT what FROM writes") == []
    ana["Enabled"] = False
    company.run()
    assert sorted(company.joget.column("SELECT what FROM writes")) == ["DELETE dir_user_group", "UPDATE dir_user"]


def test_the_ledger_means_the_same_after_joget_converted_its_schema(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "部": [ana]}
    company.joget.add_user(ANA)
    company.joget.execute("INSERT INTO dir_group (id, name, organizationId) VALUES ('local', 'local', 'ORG-001')")
    company.joget.execute("INSERT INTO dir_user_group (userId, groupId) VALUES (%s, 'local')", (ANA,))
    company.pool.members["local"] = []
    company.run()
    assert company.joget.column("SELECT COUNT(*) FROM directory_sync_local_membership") == [1]
    for table in company.joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'"):
        company.joget.execute(f"ALTER TABLE {table} CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    assert company.run()["outcome"] == "nothing_to_do"


def test_the_sync_never_makes_joget_wait_while_it_plans(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    console = company.joget.server.connect(company.joget.name)
    console.cursor().execute("SET SESSION innodb_lock_wait_timeout = 1")
    plan = make_plan

    def planning(*arguments: Any, **options: Any) -> Any:
        console.cursor().execute("UPDATE dir_user SET email = email WHERE id = %s", (ANA,))
        console.cursor().execute("INSERT INTO dir_user (id, username, active) VALUES ('new', 'new', 1)")
        return plan(*arguments, **options)

    monkeypatch.setattr(steps, "make_plan", planning)
    company.run()
    with pytest.raises(MySQLdb.IntegrityError):
        console.cursor().execute("INSERT INTO dir_user (id) VALUES ('new')")
