"""One run after the other: order, subsets, backfill, replay, changed settings, and a lost
ledger.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from directory_sync.errors import PermanentError
from tests.company import Company, causes, counts, people
from tests.conftest import JogetDatabase
from tests.stand_in import user

ANA, BOB, EVE = "ana@example.org", "bob@example.org", "eve@example.org"


# Nothing older over newer


def test_an_older_reading_never_changes_what_a_subset_run_set(company: Company) -> None:
    company.pool.users = [user(ANA, given_name="One"), user(BOB, given_name="One")]
    company.run()
    company.pool.users = [user(ANA, given_name="Two"), user(BOB, given_name="Two")]
    older = company.prepare()
    company.pool.users = [user(ANA, given_name="Three"), user(BOB, given_name="Three")]
    company.run(users=[ANA])
    report = company.load(older)
    assert counts(report) == {"read": 2, "updated": 1, "frozen": 1}
    assert (company.user(ANA)["firstName"], company.user(BOB)["firstName"]) == ("Three", "Two")


def test_an_older_subset_run_is_superseded_too(company: Company) -> None:
    company.pool.users, company.pool.members = [user(ANA)], {"Sales": [user(ANA)]}
    old = company.prepare(users=[ANA])
    company.pool.users, company.pool.members = [user(BOB)], {"Sales": []}
    company.run()
    assert company.load(old)["outcome"] == "superseded"
    assert company.usernames() == [BOB]


def test_an_older_reading_never_takes_the_memberships_that_a_subset_run_gave(
    company: Company,
) -> None:
    company.pool.users, company.pool.members = [user(ANA)], {"Sales": []}
    company.run()
    older = company.prepare()
    company.pool.members = {"Sales": [user(ANA)]}
    company.run(users=[ANA])
    company.load(older)
    assert company.memberships() == {(ANA, "Sales")}


def test_a_change_undone_while_a_run_is_listing_stays_undone(company: Company) -> None:
    company.pool.users = [user(ANA, given_name="One")]
    company.run()
    company.pool.users = [user(ANA, given_name="Two")]
    run_id = company.run()["run_id"]
    listing = company.prepare()
    company.undo(run_id)
    company.load(listing)
    for _ in range(2):
        assert causes(company.run()) == {"undone": 1}
    assert company.user(ANA)["firstName"] == "One"


def test_superseded_runs_end_in_success_and_touch_nothing(company: Company) -> None:
    company.pool.users = people(3)
    old = company.prepare()
    company.run()
    before = company.joget.contents(prefix="")
    report = company.load(old)
    assert report["outcome"] == "superseded"
    after = company.joget.contents(prefix="")
    del before["directory_sync_lock"], after["directory_sync_lock"]
    assert after == before


def test_a_newest_snapshot_from_the_future_stops_the_run_with_an_error(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.let_hours_pass(-30)
    with pytest.raises(PermanentError, match="lies in the future"):
        company.run()


# Backfill


def backfill(
    company: Company, dates: list[int], began: datetime, run_type: str = "backfill"
) -> list[dict[str, Any]]:
    return [
        company.load(company.prepare_backfill(f"{run_type}__2026-11-{day:02}", began))
        for day in dates
    ]


def test_a_backfill_of_any_range_reads_the_pool_once_and_a_second_one_changes_nothing(
    company: Company,
) -> None:
    company.pool.users = people(130)
    company.pool.members = {"All": company.pool.users}
    reports = backfill(company, [1, 2, 3, 4], datetime.now(UTC))
    calls = dict(company.cognito.calls)
    assert calls == {"DescribeUserPool": 1, "ListUsers": 3, "ListGroups": 1, "ListUsersInGroup": 3}
    assert [report["outcome"] for report in reports] == ["applied", *["nothing_to_do"] * 3]
    before = company.joget.contents()
    reports = backfill(company, [1, 2, 3, 4], datetime.now(UTC))
    assert dict(company.cognito.calls) == calls, "each date has its own snapshot by now"
    assert [report["outcome"] for report in reports] == ["applied", *["nothing_to_do"] * 3], (
        "each one reports the same again"
    )
    assert company.joget.contents() == before


def test_a_new_backfill_over_other_dates_reads_the_pool_anew(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    from directory_sync.tasks import extract

    monkeypatch.setattr(extract, "CLOCK_SLACK", extract.CLOCK_SLACK * 0)
    company.pool.users = [user(ANA)]
    backfill(company, [1, 2], datetime.now(UTC))
    company.pool.users = [user(ANA), user(BOB)]
    reports = backfill(company, [3, 4], datetime.now(UTC))
    assert counts(reports[0]) == {"read": 2, "created": 1, "unchanged": 1}
    assert company.cognito.calls["ListUsers"] == 2
    assert [report["outcome"] for report in backfill(company, [2], datetime.now(UTC))] == [
        "nothing_to_do"
    ]
    assert company.usernames() == [ANA, BOB], (
        "an older date's own snapshot isn't applied over a newer one"
    )


def test_a_backfill_uses_a_scheduled_runs_listing_taken_since_it_began(company: Company) -> None:
    company.pool.users = [user(ANA)]
    began = datetime.now(UTC)
    company.run()
    assert backfill(company, [1], began)[0]["outcome"] == "nothing_to_do"
    assert company.cognito.calls["ListUsers"] == 1


def test_a_backfill_uses_no_other_runs_listing_from_just_before_it_began(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user(ANA), user(BOB)]
    assert counts(backfill(company, [1], datetime.now(UTC))[0]) == {
        "read": 2,
        "created": 1,
        "unchanged": 1,
    }


def test_a_backfill_trusts_no_incomplete_listing(company: Company) -> None:
    company.pool.users = people(100)
    company.faults.cut_users_after = 50
    began = datetime.now(UTC)
    assert not backfill(company, [1], began)[0]["complete"]
    company.faults.cut_users_after = 0
    assert backfill(company, [2], began)[0]["complete"]
    assert len(company.usernames()) == 100


def test_a_miss_counts_once_for_a_whole_backfill(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    company.pool.users = [user(BOB)]
    began = datetime.now(UTC)
    company.run()
    backfill(company, [1, 2, 3], began)
    assert company.active() == [ANA, BOB]


def test_the_dates_of_a_backfill_that_run_at_once_wait_for_one_listing(company: Company) -> None:
    company.pool.users = people(60)
    company.pool.members = {"All": company.pool.users}
    began = datetime.now(UTC)
    failures: list[BaseException] = []

    def one(day: int) -> None:
        try:
            company.prepare_backfill(f"backfill__2026-11-{day:02}", began)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=one, args=(day,)) for day in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert company.cognito.calls["ListUsers"] == 1
    assert company.cognito.calls["ListGroups"] == 1


# Replay


def test_a_replay_compares_an_old_snapshot_with_joget_now_and_writes_nothing(
    company: Company,
) -> None:
    company.pool.users = [user(ANA, given_name="Old"), user(BOB)]
    first = company.run()
    company.pool.users = [user(ANA, given_name="New"), user(BOB), user(EVE)]
    company.run()
    before, calls = company.joget.contents(prefix=""), company.cognito.calls.total()
    report = company.run(replay_run_id=first["run_id"])
    assert (report["outcome"], report["dry_run"], report["snapshot_at"]) == (
        "dry_run",
        True,
        first["snapshot_at"],
    )
    assert counts(report) == {"read": 2, "updated": 1, "unchanged": 1, "missing": 1}
    change = company.staged("plan.parquet").iloc[0]
    assert (change["before_firstName"], change["after_firstName"]) == ("New", "Old")
    assert company.joget.contents(prefix="") == before
    assert company.cognito.calls.total() == calls, "the pool isn't asked"


def test_a_replay_of_an_unknown_run_or_with_another_mapping_is_one_clear_error(
    company: Company,
) -> None:
    company.pool.users = [user(ANA)]
    run_id = company.run()["run_id"]
    with pytest.raises(PermanentError, match="no snapshot of the run in parameter replay_run_id"):
        company.run(replay_run_id="nothing")
    company.configure(mapping={"last_name": "custom:surname"})
    with pytest.raises(PermanentError, match="doesn't hold custom:surname"):
        company.run(replay_run_id=run_id)


# Changed settings


def test_the_first_run_after_a_change_of_settings_says_what_the_change_alone_does(
    company: Company,
) -> None:
    company.pool.users = [user(ANA, nickname="Nana"), user(BOB, nickname="Bobby")]
    assert company.run()["settings_change"] is None
    company.configure(mapping={"first_name": "nickname"}, scope={"exclude_users": [BOB]})
    company.pool.users.append(user(EVE, nickname="Evi"))
    for report in (company.run(dry_run=True), company.run()):
        assert report["settings_change"] == {
            "settings": ["mapping.first_name", "scope.exclude_users"],
            "adds": {"user create": 1, "user update": 1},
            "spares": {"user create": 1},
        }
    assert company.run()["settings_change"] is None


def test_a_change_of_settings_adds_the_users_that_are_no_longer_excluded(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.configure(scope={"exclude_users": [ANA.upper()]})
    company.run()
    company.pool.users = [user(ANA, given_name="Ana")]
    company.run()
    company.configure(scope={"exclude_users": []})
    assert company.run()["settings_change"] == {
        "settings": ["scope.exclude_users"],
        "adds": {"user update": 1},
        "spares": {},
    }


def test_a_change_of_a_policy_alone_is_reported_too(company: Company) -> None:
    company.pool.users = people(3)
    company.run()
    company.pool.users = company.pool.users[1:]
    company.run()
    company.configure(policies={"missing_user": "keep"})
    report = company.run()
    assert report["settings_change"] == {
        "settings": ["policies.missing_user"],
        "adds": {"user miss": 1},
        "spares": {"user deactivate": 1},
    }


# A ledger that was lost, or restored


def forget_everything(joget: JogetDatabase) -> None:
    for table in joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'"):
        joget.execute(f"DROP TABLE {table}")


def restore(joget: JogetDatabase, backup: dict[str, list[tuple[Any, ...]]]) -> None:
    for table, rows in backup.items():
        joget.execute(f"DELETE FROM {table}")
        for row in rows:
            joget.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)


def back_up(joget: JogetDatabase) -> dict[str, list[tuple[Any, ...]]]:
    tables = joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'")
    return {table: joget.execute(f"SELECT * FROM {table}") for table in tables}


@pytest.mark.parametrize("policy", ["adopt_sso", "quarantine"])
def test_a_lost_ledger_is_noticed_and_links_are_rebuilt_and_nobody_is_removed(
    company: Company, policy: str
) -> None:
    company.configure(
        policies={"existing_user": policy, "new_password": "random", "missing_runs": 1}
    )
    company.pool.users = people(10)
    company.pool.members = {"All": company.pool.users, "A/B": company.pool.users[:5]}
    company.run()
    company.pool.users[9]["Enabled"] = False
    company.run()
    before = company.joget.contents()
    forget_everything(company.joget)
    company.pool.users = company.pool.users[1:]
    company.pool.members = {"All": company.pool.users[:3], "A/B": []}
    report = company.run()
    assert not report["complete"]
    assert "the ledger doesn't know the newest run" in report["incomplete_reasons"][0]
    assert counts(report) == {"read": 9, "adopted": 9}
    assert counts(report, "groups") == {"read": 2, "adopted": 2}
    assert company.joget.contents() == before
    assert company.run()["complete"]
    company.pool.users[8]["Enabled"] = True
    assert counts(company.run())["reactivated"] == 1, (
        "it knows again which user was deactivated, and that the sync did it"
    )


def test_a_ledger_from_an_older_backup_is_noticed(company: Company) -> None:
    company.configure(policies={"existing_user": "quarantine"})
    company.pool.users = people(5)
    company.run()
    backup = back_up(company.joget)
    company.pool.users = [*company.pool.users, user(ANA)]
    company.run()
    restore(company.joget, backup)
    company.pool.users = company.pool.users[1:]
    report = company.run()
    assert "the ledger doesn't know the newest run" in report["incomplete_reasons"][0]
    assert counts(report) == {"read": 5, "adopted": 1, "unchanged": 4}
    assert counts(company.run()) == {"read": 5, "unchanged": 5, "missing": 1}


@pytest.mark.parametrize("kind", ["subset", "review", "undo"])
def test_every_kind_of_run_notices_that_the_ledger_was_lost(company: Company, kind: str) -> None:
    company.configure(
        policies={"existing_user": "quarantine", "missing_runs": 1}, limits={"floor": 0}
    )
    company.pool.users = people(5)
    first = company.run()["run_id"]
    backup = back_up(company.joget)
    company.pool.users = [*company.pool.users, user(ANA)]
    company.run()
    restore(company.joget, backup)
    before = company.joget.contents()
    if kind == "subset":
        report = company.run(users=[ANA])
        assert counts(report) == {"read": 1, "adopted": 1}
        assert "was lost" in report["incomplete_reasons"][0]
    elif kind == "review":
        company.pool.users = company.pool.users[2:]
        assert "was lost" in company.run()["incomplete_reasons"][0]
        assert company.run()["complete"]
        review_id = company.ask()
        assert review_id
        restore(company.joget, backup)
        company.joget.execute("UPDATE directory_sync_lock SET revision = revision + 9")
        with pytest.raises(PermanentError, match="has no review"):
            company.answer(review_id, "approve")
    else:
        with pytest.raises(PermanentError, match="lost or restored from an older backup"):
            company.undo(first)
    assert company.joget.contents() == before


def test_a_lost_ledger_is_remembered_from_the_newest_run_for_everybody(company: Company) -> None:
    company.configure(policies={"existing_user": "quarantine"})
    company.pool.users = people(5)
    company.run()
    company.pool.users[0] = user("person000@example.org", given_name="New")
    company.run(users=["person000@example.org"])
    forget_everything(company.joget)
    assert counts(company.run(users=["person000@example.org"])) == {"read": 1, "adopted": 1}
    report = company.run()
    assert "was lost" in report["incomplete_reasons"][0], (
        "a run for some users didn't make up for the loss"
    )
    assert counts(report) == {"read": 5, "adopted": 4, "unchanged": 1}
    assert company.run()["complete"]


def test_a_local_account_made_under_a_deleted_users_name_is_never_taken_over(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    for table, column in (
        ("dir_user_role", "userId"), ("dir_user_group", "userId"), ("dir_employment", "userId"),
        ("dir_user", "id"),
    ):  # fmt: skip
        company.joget.execute(f"DELETE FROM {table} WHERE {column} = %s", (ANA,))
    company.joget.add_user(ANA, password="another Ana's")
    before = company.joget.contents()
    ana["Attributes"][2]["Value"] = "Changed"
    report = company.run()
    assert counts(report) == {"read": 1, "quarantined": 1}
    ana["Enabled"] = False
    company.run()
    assert company.joget.contents() == before


def test_a_rebuilt_link_takes_no_row_that_somebody_else_has_now(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    forget_everything(company.joget)
    for table, column in (
        ("dir_user_role", "userId"),
        ("dir_employment", "userId"),
        ("dir_user", "id"),
    ):
        company.joget.execute(f"DELETE FROM {table} WHERE {column} = %s", (ANA,))
    assert counts(company.run()) == {"read": 2, "created": 1, "adopted": 1}


def test_the_link_of_an_account_that_became_an_administrators_is_not_rebuilt(
    company: Company,
) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    forget_everything(company.joget)
    company.joget.execute(
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)", (ANA,)
    )
    assert counts(company.run()) == {"read": 2, "adopted": 1, "quarantined": 1}


def test_another_database_is_no_lost_ledger(
    company: Company, new_joget: Callable[[str], JogetDatabase], monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    other = new_joget("utf8mb4")
    other.add_user(ANA, password="another Ana's")
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", other.server.uri(other.name))
    report = company.run()
    assert report["complete"]
    assert counts(report) == {"read": 1, "quarantined": 1}


# Two at once


def test_two_runs_at_once_have_the_same_result_as_one_after_the_other(company: Company) -> None:
    company.pool.users = people(50)
    company.pool.members = {"All": company.pool.users}
    company.run()
    company.pool.users = [*company.pool.users[2:], *people(20, "new")]
    company.pool.members = {"All": company.pool.users}
    first, second = company.prepare(), company.prepare()
    reports: list[dict[str, Any]] = []
    loads: list[Callable[[], None]] = [
        lambda: reports.append(company.load(first)),
        lambda: reports.append(company.load(second)),
    ]
    threads = [threading.Thread(target=load) for load in loads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    assert sum(report["users"]["created"] for report in reports) == 20
    assert len(company.usernames()) == 70
    assert {report["outcome"] for report in reports} <= {"applied", "nothing_to_do", "superseded"}
    assert causes(company.run()) == {}
    assert company.run()["outcome"] == "nothing_to_do"
