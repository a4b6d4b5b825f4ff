"""Detaching a sync: what it managed becomes local, and Joget's rows stay byte for byte."""

import threading
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from directory_sync.__main__ import app
from directory_sync.errors import PermanentError
from directory_sync.joget.database import open_session
from directory_sync.joget.ledger import locks
from directory_sync.run import Run
from directory_sync.settings import find_sync
from directory_sync.tasks import detach
from tests.company import Company, causes, counts, people
from tests.conftest import JogetDatabase
from tests.directory_sync.tasks.test_history import forget_everything
from tests.stand_in import OTHER_POOL_ID

LEFT_OF_A_SYNC = (
    "directory_sync_user_link",
    "directory_sync_group_link",
    "directory_sync_local_membership",
    "directory_sync_decision",
)


def run_command(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["detach", *arguments])


def fill(company: Company) -> None:
    """Synchronise five users in a group, one of them disabled in the pool and one deactivated in
    Joget, with a local member and an open review.
    """
    company.configure(policies={"renamed_user": "hold"})
    company.joget.add_user("local@example.org", password="x" * 32)
    company.pool.users = people(5)
    company.pool.members = {"Sales": company.pool.users[:]}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', 'local@example.org')"
    )
    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = 'person001@example.org'")
    company.pool.users[0]["Enabled"] = False
    company.pool.users[2]["Attributes"][1]["Value"] = "renamed@example.org"
    company.run()
    assert company.ask()


def read_links(joget: JogetDatabase, sync: str = "default") -> list[Any]:
    return [
        row
        for table in LEFT_OF_A_SYNC
        for row in joget.execute(f"SELECT * FROM {table} WHERE sync = %s", (sync,))
    ]


def test_detaching_makes_everything_local_and_changes_no_row_of_jogets(company: Company) -> None:
    fill(company)
    joget, ledger_before = company.joget.contents(), company.joget.contents("directory_sync_")
    shown = run_command()
    assert (shown.exit_code, company.joget.contents()) == (0, joget)
    assert company.joget.contents("directory_sync_") == ledger_before, (
        "without --apply it only counts"
    )
    done = run_command("--apply")
    assert (done.exit_code, company.joget.contents()) == (0, joget)
    assert read_links(company.joget) == []
    assert company.joget.column(
        "SELECT COUNT(*) FROM directory_sync_review WHERE closed_at IS NULL"
    ) == [0]
    figures = [
        [line.split("│")[2].strip() for line in result.output.splitlines() if line.startswith("│")]
        for result in (shown, done)
    ]
    assert figures[0] == figures[1] == ["5", "5", "2", "1", "1", "3"], figures
    assert "0 remembered answer(s) and 1 open review(s)" in done.output
    assert "@" not in shown.output + done.output, "no login is printed"
    again = run_command("--apply")
    assert again.exit_code == 0
    assert company.joget.contents() == joget, "a second time changes nothing"


def test_a_detached_sync_is_no_lost_ledger_even_if_its_tables_were_dropped(
    company: Company,
) -> None:
    company.pool.users = people(5)
    company.run()
    detach.detach_sync("default", is_applied=True)
    company.joget.execute(
        "UPDATE dir_user SET password = REPEAT('a', 32) WHERE id = 'person003@example.org'"
    )
    for drops_tables in (False, True):
        if drops_tables:
            forget_everything(company.joget)
        report = company.run()
        assert report["complete"], report["incomplete_reasons"]
        (reason,) = company.reasons(report).values()
        assert reason.endswith("it has a password"), (
            "an account that became local isn't linked again"
        )
        detach.detach_sync("default", is_applied=True)
    forget_everything(company.joget)
    company.run()
    forget_everything(company.joget)
    assert not company.run()["complete"], "a ledger that is lost after that is noticed"


def test_a_detached_sync_may_begin_anew_elsewhere_and_each_login_stays_reserved_for_its_sub(
    company: Company,
) -> None:
    company.pool.users = people(2)
    run_id = company.run()["run_id"]
    detach.detach_sync("default", is_applied=True)
    with pytest.raises(PermanentError, match="knows no applied run"):
        company.undo(run_id)
    company.joget.execute("INSERT INTO dir_organization (id, name) VALUES ('ORG-2', 'Two')")
    company.configure(organization="ORG-2")
    company.pool.users[0]["Attributes"][0]["Value"] = "another-sub"
    report = company.run()
    assert counts(report) == {"read": 2, "adopted": 1, "held": 1}
    assert set(causes(report)) == {"retired_login"}


def test_detaching_touches_only_its_own_sync_and_leaves_signposts_in_each_of_its_pools(
    company: Company,
) -> None:
    company.pool.users = people(2)
    company.run()
    company.joget.execute(
        "INSERT INTO directory_sync_user_link SELECT 'emea', user_pool_id, CONCAT('other-', sub), "
        "'cat', SHA2('cat', 256), origin, state, misses, linked_at, changed_at, changed_by FROM "
        "directory_sync_user_link LIMIT 1"
    )
    company.joget.execute(
        "UPDATE directory_sync_run SET user_pool_id = %s WHERE sync = 'default'", (OTHER_POOL_ID,)
    )
    found = detach.detach_sync("default", is_applied=True)
    assert found.managed.other_syncs == 1
    assert len(read_links(company.joget, "emea")) == 1
    home = company.settings_path.parent / "staging" / "default"
    signposts = {path.parent.parent.name for path in home.glob("*/applied/*.detached.*")}
    assert signposts == {company.settings["user_pool_id"], OTHER_POOL_ID}


def test_detaching_waits_for_a_run_that_holds_the_lock(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LOCK_POLL_SECONDS", 0)
    company.pool.users = people(1)
    company.run()
    sync = find_sync("default")
    detached = threading.Thread(target=lambda: detach.detach_sync("default", is_applied=True))
    with open_session(sync.joget_conn_id) as database:
        with locks.hold_ledger_lock(database, Run(run_id="running", sync=sync, dry_run=False)):
            detached.start()
            detached.join(timeout=0.5)
            assert len(read_links(company.joget)) == 1
        detached.join()
    assert read_links(company.joget) == []


def test_detaching_says_if_there_was_no_run_or_no_such_sync(company: Company) -> None:
    assert detach.detach_sync("default", is_applied=False).managed.users == 0
    assert detach.detach_sync("default", is_applied=True).managed.users == 0
    assert company.joget.column("SHOW TABLES LIKE 'directory\\_sync\\_%'") == [], (
        "it makes no tables"
    )
    unknown = run_command("--sync", "nobody")
    assert unknown.exit_code == 1
    assert "holds no sync named 'nobody'. It has: default." in unknown.output.replace("\n", " ")
