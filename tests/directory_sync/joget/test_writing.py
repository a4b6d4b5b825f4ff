"""One transaction, one lock, retried at any moment."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import MySQLdb
import pandas as pd
import pytest

from directory_sync.errors import PermanentError, TransientError
from directory_sync.frames import TEXT_TYPE, make_empty_frame, make_frame_of_rows
from directory_sync.joget import database, database_errors, new_users, writing
from directory_sync.joget.database import open_session
from directory_sync.joget.ledger import locks
from directory_sync.plan import Plan, make_plan
from directory_sync.plan.changes import CHANGES_SCHEMA, DIRECTORY_SCHEMA, split_by_entity
from directory_sync.staging import store
from directory_sync.tasks import load, proposal
from tests.company import Company, counts, people
from tests.conftest import BOTH_CHARSETS
from tests.stand_in import sub_of, user

ANA, BOB = "ana@example.org", "bob@example.org"


class KilledError(BaseException):
    """Stands for the death of the process, so no code of ours catches it."""


def test_a_load_that_died_after_its_commit_applies_nothing_and_finishes_the_report(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    transformed = company.prepare()

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(load, "make_report", die)
        with pytest.raises(KilledError):
            company.load(transformed)
    before = company.joget.contents(prefix="")
    assert company.usernames() == [ANA]
    report = company.load(transformed)
    assert report["outcome"] == "applied"
    assert counts(report) == {"read": 1, "created": 1}
    assert counts(report, "memberships") == {"read": 1, "added": 1}
    assert len(company.staged("plan.parquet")) == 5
    assert {**company.joget.contents(prefix=""), "directory_sync_lock": []} == {
        **before,
        "directory_sync_lock": [],
    }


@pytest.mark.parametrize(
    "moment",
    [
        "_take_turn",
        "_write_groups",
        "_write_users",
        "_write_memberships",
        "_write_ledger",
        "_verify",
    ],
)
def test_a_load_that_dies_before_its_commit_leaves_nothing_and_a_retry_does_all(
    company: Company, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    transformed = company.prepare()
    before = company.joget.contents()

    def die(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(writing.PlanApplication, moment, die)
        with pytest.raises(KilledError):
            company.load(transformed)
    assert company.joget.contents() == before
    assert company.joget.contents("directory_sync_user_link") == {"directory_sync_user_link": []}
    assert counts(company.load(transformed)) == {"read": 1, "created": 1}


def test_the_plan_is_published_before_the_commit(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    transformed = company.prepare()

    def refuse(*_: Any) -> None:
        raise TransientError("the store is full")

    with monkeypatch.context() as patch:
        patch.setattr(store.Folder, "frame", refuse)
        with pytest.raises(TransientError, match="full"):
            company.load(transformed)
    assert company.usernames() == []


def interfere(monkeypatch: pytest.MonkeyPatch, changes: Iterator[Callable[[], object]]) -> None:
    """Between each planning and its writing, make the next of these changes in Joget."""
    send = writing.PlanApplication._send

    def send_and_interfere(self: writing.PlanApplication) -> None:
        send(self)
        next(changes, lambda: None)()

    monkeypatch.setattr(writing.PlanApplication, "_send", send_and_interfere)


def test_rows_changed_in_joget_between_reading_and_writing_are_planned_again(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA, given_name="One")]
    company.run()
    company.pool.users = [user(ANA, given_name="Two"), user(BOB)]
    edits = [
        lambda: company.joget.execute(
            "UPDATE dir_user SET lastName = 'local' WHERE id = %s", (ANA,)
        )
    ]
    with monkeypatch.context() as patch:
        interfere(patch, iter(edits))
        assert counts(company.run()) == {"read": 2, "updated": 1, "created": 1}
    assert company.user(ANA)["lastName"] == "Family"
    company.joget.execute("DELETE FROM dir_user_role WHERE userId = %s", (BOB,))
    eve = "eve@example.org"
    company.pool.users.append(user(eve))
    interfere(monkeypatch, iter([lambda: company.joget.add_user(eve)]))
    assert counts(company.run())["adopted"] == 1, "single sign-on made the account in between"


def test_with_an_edit_in_joget_at_every_planning_only_the_edited_users_wait(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.configure(limits={"changed_users_percent": 100})
    company.pool.users = people(10)
    company.run()
    company.pool.users = [user(f"person{at:03}@example.org", given_name="New") for at in range(10)]
    numbers = itertools.count()

    def edit() -> None:
        login = f"person{next(numbers) % 10:03}@example.org"
        company.joget.execute(
            "UPDATE dir_user SET lastName = CONCAT(lastName, '!') WHERE id = %s", (login,)
        )

    with monkeypatch.context() as patch:
        interfere(patch, itertools.repeat(edit))
        report = company.run()
    assert counts(report) == {"read": 10, "updated": 9, "deferred": 1}
    assert company.user("person001@example.org")["lastName"] == "Family!", "the edit stands"
    plan = company.staged("plan.parquet")
    assert plan.loc[plan["hold"] == "deferred", "sub"].tolist() == [sub_of(company.pool.users[1])]
    assert counts(company.run()) == {"read": 10, "updated": 1, "unchanged": 9}
    assert company.user("person001@example.org")["lastName"] == "Family"


def test_a_user_locked_in_joget_for_long_waits_and_the_others_do_not(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 1)
    company.pool.users = people(5)
    company.run()
    company.pool.users = [user(f"person{at:03}@example.org", given_name="New") for at in range(5)]
    console = company.joget.server.connect(company.joget.name)
    console.autocommit(False)
    console.cursor().execute(
        "UPDATE dir_user SET email = 'console' WHERE id = 'person000@example.org'"
    )
    assert counts(company.run()) == {"read": 5, "updated": 4, "deferred": 1}
    console.rollback()
    assert counts(company.run()) == {"read": 5, "updated": 1, "unchanged": 4}


def test_a_load_that_died_after_leaving_rows_out_reports_them_as_left_out(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = people(3)
    company.run()
    company.pool.users = [user(f"person{at:03}@example.org", given_name="New") for at in range(3)]
    transformed = company.prepare()
    edit = "UPDATE dir_user SET lastName = CONCAT(lastName, '!') WHERE id = 'person000@example.org'"

    def die(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        interfere(patch, itertools.repeat(lambda: company.joget.execute(edit)))
        patch.setattr(proposal.LoadAttempt, "_leave_signpost", die)
        with pytest.raises(KilledError):
            company.load(transformed)
    assert counts(company.load(transformed)) == {"read": 3, "updated": 2, "deferred": 1}


def test_the_load_waits_for_a_row_locked_in_joget_and_then_plans_again(company: Company) -> None:
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


def test_a_second_writer_waits_for_the_lock_and_names_the_run_that_holds_it(
    company: Company, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    monkeypatch.setattr(locks, "LOCK_POLL_SECONDS", 0)
    monkeypatch.setattr(locks, "LOCK_WAIT_SECONDS", -1)
    transformed = company.prepare()
    run = store.read_run(transformed)
    mine = run.model_copy(update={"run_id": "the other"})
    with (
        open_session("joget_mysql") as other,
        locks.hold_ledger_lock(other, mine),
        pytest.raises(TransientError, match="default/the other"),
    ):
        company.load(transformed)
    assert company.load(transformed)["outcome"] == "nothing_to_do"


def test_an_older_snapshot_is_never_applied_over_a_newer_one(company: Company) -> None:
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
    company.joget.execute(
        "CREATE TABLE writes (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(40))"
    )
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
    assert sorted(company.joget.column("SELECT what FROM writes")) == [
        "DELETE dir_user_group",
        "UPDATE dir_user",
    ]


@BOTH_CHARSETS
def test_the_ledger_means_the_same_after_joget_converted_its_schema(company: Company) -> None:
    [charset] = company.joget.column("SELECT @@character_set_database")
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "部": [ana]}
    company.joget.add_user(ANA)
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('local', 'local', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (userId, groupId) VALUES (%s, 'local')", (ANA,)
    )
    company.pool.members["local"] = []
    company.run()
    assert company.joget.column("SELECT COUNT(*) FROM directory_sync_local_membership") == [1]
    for table in company.joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'"):
        company.joget.execute(
            f"ALTER TABLE {table} CONVERT TO CHARACTER SET {charset} COLLATE {charset}_general_ci"
        )
    assert company.run()["outcome"] == "nothing_to_do"
    company.pool.users.append(bob := user(BOB))
    company.pool.members["Sales"] = [ana, bob]
    report = company.run()
    assert counts(report)["created"] == 1
    assert counts(report, "memberships")["added"] == 1


def test_the_sync_never_makes_joget_wait_while_it_plans(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    console = company.joget.server.connect(company.joget.name)
    console.cursor().execute("SET SESSION innodb_lock_wait_timeout = 1")
    plan = make_plan

    def plan_while_joget_edits(*arguments: Any, **options: Any) -> Any:
        console.cursor().execute("UPDATE dir_user SET email = email WHERE id = %s", (ANA,))
        console.cursor().execute(
            "INSERT INTO dir_user (id, username, active) VALUES ('new', 'new', 1)"
        )
        return plan(*arguments, **options)

    monkeypatch.setattr(load, "make_plan", plan_while_joget_edits)
    company.run()
    with pytest.raises(MySQLdb.IntegrityError):
        console.cursor().execute("INSERT INTO dir_user (id) VALUES ('new')")


def test_edits_in_joget_do_not_wait_for_the_object_store(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user(ANA, given_name="Two")]
    console = company.joget.server.connect(company.joget.name)
    console.cursor().execute("SET SESSION innodb_lock_wait_timeout = 1")
    frames = store.Folder.frames

    def publish_while_joget_edits(*arguments: Any, **options: Any) -> None:
        frames(*arguments, **options)
        console.cursor().execute("UPDATE dir_user SET timeZone = timeZone WHERE id = %s", (ANA,))

    monkeypatch.setattr(store.Folder, "frames", publish_while_joget_edits)
    assert counts(company.run())["updated"] == 1


def test_a_worker_that_vanishes_in_its_transaction_keeps_its_locks_for_a_short_time(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "SHORT_IDLE_SECONDS", 1)
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user(ANA, given_name="Two")]

    def vanish(_: writing.PlanApplication) -> None:
        time.sleep(3)

    with monkeypatch.context() as patch:
        patch.setattr(writing.PlanApplication, "_verify", vanish)
        with pytest.raises(TransientError):
            company.run()
    assert company.user(ANA)["firstName"] == "Given", "the server ended the session and rolled back"
    assert counts(company.run())["updated"] == 1


def test_the_lock_of_a_worker_that_vanished_is_free_after_a_short_time(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    run = store.read_run(company.prepare())
    monkeypatch.setattr(locks, "SHORT_IDLE_SECONDS", 1)
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(locks, "LOCK_POLL_SECONDS", 0)
    monkeypatch.setattr(locks, "LOCK_WAIT_SECONDS", -1)
    with (
        open_session("joget_mysql") as one,
        open_session("joget_mysql") as other,
        locks.hold_ledger_lock(one, run),
    ):
        time.sleep(3)
        with (
            pytest.raises(TransientError, match="Waited too long"),
            locks.hold_ledger_lock(other, run),
        ):
            pass  # its worker lives and says so
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 3600)
    with (
        open_session("joget_mysql") as one,
        open_session("joget_mysql") as other,
        locks.hold_ledger_lock(one, run),
    ):
        time.sleep(3)
        with locks.hold_ledger_lock(other, run):
            pass


@pytest.mark.parametrize("code", [1412, 1317, 1969, 3024, 3101, 1047, 1205, 1213, 2013])
def test_a_statement_that_was_stopped_is_tried_again(code: int) -> None:
    error = database_errors.translate_error(
        MySQLdb.OperationalError(code, "a value"), "dir_user", "joget_mysql"
    )
    assert isinstance(error, TransientError)
    assert "a value" not in str(error)


def test_a_column_that_is_shorter_in_this_installation_quarantines_one_user(
    company: Company,
) -> None:
    company.joget.execute("ALTER TABLE dir_user MODIFY firstName VARCHAR(100)")
    company.pool.users = [user(ANA), user(BOB, given_name="x" * 101)]
    report = company.run()
    assert counts(report) == {"read": 2, "created": 1, "quarantined": 1}
    assert list(company.reasons(report).values()) == ["firstName is longer than 100 characters"]


def test_a_rename_that_the_database_refuses_stops_nobody_else(company: Company) -> None:
    company.configure(policies={"renamed_user": "rename"})
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    new = "ana.lima@example.org"
    for login in (ANA, new):
        statement = (
            "INSERT INTO dir_user_meta (username, meta_key, meta_value) VALUES (%s, 'theme', "
            "'dark')"
        )
        company.joget.execute(statement, (login,))
    company.pool.users = [user(new, sub=sub_of(ana)), user(BOB)]
    assert counts(company.run()) == {"read": 2, "created": 1, "deferred": 1}
    assert company.usernames() == [ANA, BOB]
    company.joget.execute("DELETE FROM dir_user_meta WHERE username = %s", (new,))
    assert counts(company.run()) == {"read": 2, "renamed": 1, "unchanged": 1}


@pytest.mark.parametrize("most", [0, new_users.USERS_ASKED_FOR])
@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("dir_user", "SET NEW.lastName = UPPER(NEW.lastName)"),
        ("dir_user", "SET NEW.username = UPPER(NEW.username)"),
        ("dir_user", "SET NEW.locale = COALESCE(NEW.locale, '')"),
        ("dir_user_group", "SET NEW.groupId = 'local'"),
        ("dir_user_role", "SET NEW.roleId = 'ROLE_ADMIN'"),
        ("dir_employment", "SET NEW.id = UUID()"),
        ("directory_sync_user_link", "SET NEW.misses = 1"),
        ("directory_sync_user_link", "SET NEW.user_id = UPPER(NEW.user_id)"),
    ],
)
def test_a_new_users_row_that_a_trigger_changes_is_noticed_before_the_commit(
    company: Company, monkeypatch: pytest.MonkeyPatch, table: str, change: str, most: int
) -> None:
    monkeypatch.setattr(new_users, "USERS_ASKED_FOR", most)
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('local', 'local', 'ORG-001')"
    )
    company.pool.users += [bob := user(BOB)]
    company.pool.members = {"Sales": [bob]}
    before = company.joget.contents()
    company.joget.execute(f"CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW {change}")
    with pytest.raises(PermanentError, match=f"{table} doesn't hold what was written to it"):
        company.run()
    assert company.joget.contents() == before
    company.joget.execute("DROP TRIGGER t")
    assert counts(company.run())["created"] == 1


def test_a_new_users_rows_that_a_trigger_adds_are_the_triggers_own(company: Company) -> None:
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('local', 'local', 'ORG-001')"
    )
    company.joget.execute(
        "CREATE TRIGGER t AFTER INSERT ON dir_user FOR EACH ROW INSERT INTO dir_user_group "
        "(userId, groupId) VALUES (NEW.id, 'local')"
    )
    company.pool.users = [user(ANA)]
    assert counts(company.run())["created"] == 1
    assert company.joget.column("SELECT groupId FROM dir_user_group WHERE userId = %s", (ANA,)) == [
        "local"
    ]


def test_a_user_who_comes_back_is_new_in_joget_and_keeps_one_link(company: Company) -> None:
    company.configure(policies={"missing_user": "delete", "missing_runs": 1})
    company.pool.users = [ana, bob] = [user(ANA), user(BOB)]
    company.run()
    company.pool.users = [bob]
    assert counts(company.run())["deleted"] == 1
    company.pool.users = [ana, bob]
    assert counts(company.run())["created"] == 1
    assert company.usernames() == sorted([ANA, BOB])
    assert company.joget.column(
        "SELECT COUNT(*) FROM directory_sync_user_link WHERE sub = %s", (sub_of(ana),)
    ) == [1]


def test_a_run_that_is_ended_while_it_reads_back_rolls_back(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise KilledError

    company.pool.users = people(3)
    transformed = company.prepare()
    with monkeypatch.context() as patch:
        patch.setattr(database, "ROWS_IN_A_READ", 1)
        patch.setattr(database, "ROWS_IN_A_FRAME", 1)
        patch.setattr(new_users, "USERS_ASKED_FOR", 0)
        patch.setattr(new_users, "_are_equal", die)
        with pytest.raises(KilledError):
            company.load(transformed)
    assert company.joget.column("SELECT id FROM dir_user WHERE id LIKE 'person%'") == []
    assert counts(company.load(transformed))["created"] == 3


@pytest.mark.parametrize(("user_id", "is_found"), [("ana", True), ("Ana", False)])
def test_a_pair_of_a_user_that_the_plan_does_not_create_is_never_found(
    user_id: str, is_found: bool
) -> None:
    planned = pd.DataFrame({"user_id": [user_id], "group_id": ["Sales"]}, dtype=TEXT_TYPE)
    written = pd.DataFrame(
        {"user_id": ["ana", "cat"], "other_id": ["Sales", "Sales"]}, dtype=TEXT_TYPE
    )
    users = pd.Series(["ana"], dtype=TEXT_TYPE)
    assert new_users._has_all_pairs(planned, users, (part for part in [written])) == is_found


def test_users_who_get_back_a_link_to_an_earlier_pool_keep_that_pool() -> None:
    rows = [
        {"entity": "user", "action": "create", "sub": sub, "after_id": sub, "after_link": link}
        for sub, link in (("one", "old/one"), ("two", "new/two"))
    ]
    plan = Plan(
        split_by_entity(make_frame_of_rows(rows, CHANGES_SCHEMA)),
        make_empty_frame(DIRECTORY_SCHEMA),
        {},
    )
    created, rest = new_users.split_new_users(plan, "new", pd.Series([], dtype=TEXT_TYPE))
    assert created.users["sub"].tolist() == ["two"]
    assert rest.part("user")["sub"].tolist() == ["one"]
