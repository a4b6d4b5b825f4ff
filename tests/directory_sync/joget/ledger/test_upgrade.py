"""The ledger's version: upgraded by a newer release, refused by an older one."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from directory_sync import __version__
from directory_sync.errors import PermanentError
from directory_sync.joget.database import open_session
from directory_sync.joget.ledger import definition, locks, upgrade
from directory_sync.joget.schema import inspect_tables
from directory_sync.run import Run
from directory_sync.settings import find_sync
from directory_sync.staging.manifest import STAGED_FORMAT
from directory_sync.tasks import review
from directory_sync.tasks.detach import detach_sync
from tests.company import Company, causes, counts, people
from tests.conftest import BOTH_CHARSETS, ROOT, JogetDatabase
from tests.ledgers import LEDGERS, list_releases, restore
from tests.story import email_of

NEWER = "UPDATE directory_sync_lock SET version = version + 1, written_by = '9.9.0'"

FORGET_VERSION = "ALTER TABLE directory_sync_lock DROP COLUMN version, DROP COLUMN written_by"
COUNTED_AS_TEXT = "ALTER TABLE directory_sync_run MODIFY COLUMN counted TEXT NOT NULL"
DROP_INDEX = "ALTER TABLE directory_sync_user_link DROP INDEX by_user_id"
DROP_RUN_INDEX = "ALTER TABLE directory_sync_run DROP INDEX by_commit"
DROP_DELAYS = "DROP TABLE directory_sync_delay"
TO_VERSION_0 = (FORGET_VERSION, COUNTED_AS_TEXT, DROP_INDEX, DROP_RUN_INDEX, DROP_DELAYS)
"""These statements make the ledger that commits before release 0.1.0 left."""

MEMORY = {
    "directory_sync_user_link": "sub, user_id, user_id_sha256, origin, state, misses",
    "directory_sync_group_link": "group_name, group_id, group_id_sha256, origin, misses",
    "directory_sync_local_membership": "*",
    "directory_sync_retired_login": "*",
    "directory_sync_decision": "*",
    "directory_sync_review": "review_id, held_sha256, answer, answered_by, closed_at",
}
"""By table: the columns that a run leaves as they are if it changes nothing."""


def read_remembered(joget: JogetDatabase) -> dict[str, list[Any]]:
    return {
        table: sorted(joget.execute(f"SELECT {columns} FROM {table}"), key=repr)
        for table, columns in MEMORY.items()
    }


def read_version(joget: JogetDatabase) -> tuple[Any, ...]:
    return joget.execute("SELECT version, written_by FROM directory_sync_lock")[0]


def describe_columns(joget: JogetDatabase) -> list[tuple[Any, ...]]:
    """Read how the server describes every column of the ledger."""
    return joget.execute(
        "SELECT table_name, column_name, column_type, is_nullable, character_set_name, "
        "collation_name "
        "FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE "
        "'directory\\_sync\\_%' "
        "ORDER BY table_name, column_name"
    )


def describe_indexes(joget: JogetDatabase) -> list[tuple[Any, ...]]:
    """Read every index of the ledger, with its columns."""
    return joget.execute(
        "SELECT table_name, index_name, seq_in_index, column_name, non_unique "
        "FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name LIKE "
        "'directory\\_sync\\_%' ORDER BY table_name, index_name, seq_in_index"
    )


def make_older(joget: JogetDatabase) -> None:
    """Make the ledger one of version 0."""
    for statement in TO_VERSION_0:
        joget.execute(statement)


def test_the_release_stands_in_one_place_and_its_ledger_is_kept_for_later_releases() -> None:
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert __version__ in list_releases(), "make ledger writes it"
    assert f"'{__version__}'" in (LEDGERS / f"{__version__}.sql").read_text(encoding="utf-8")


@pytest.mark.parametrize("release", list_releases())
@BOTH_CHARSETS
def test_a_ledger_that_a_release_left_is_upgraded_and_nothing_is_lost(
    company: Company, release: str, request: pytest.FixtureRequest
) -> None:
    restore(release, company, request.node.callspec.params["joget"])
    before, rows = read_remembered(company.joget), company.joget.contents()
    old_run = "manual__1+00:00"
    shown = company.run(dry_run=True)
    assert (read_remembered(company.joget), company.joget.contents()) == (before, rows)

    report = company.run()
    assert report["complete"], report["incomplete_reasons"]
    assert read_version(company.joget)[0] == definition.LEDGER_VERSION
    assert report["plan_sha256"] == shown["plan_sha256"]
    assert causes(report) == {"renamed_user": 1, "rejected": 1, "undone": 3}
    assert counts(report)["deactivated"] == 1, "the second miss of one user"
    after = read_remembered(company.joget)
    for table in MEMORY:
        assert [row for row in before[table] if email_of("finn") not in row] == [
            row for row in after[table] if email_of("finn") not in row
        ]

    assert company.undo(old_run, dry_run=True)["users"]["reactivated"] == 1
    [review_id] = company.joget.column(
        "SELECT review_id FROM directory_sync_review WHERE closed_at IS NULL"
    )
    answered = counts(company.answer(review_id, "approve"))
    assert (answered["created"], answered["renamed"]) == (1, 2), (
        "it asks about rejected and undone changes too"
    )
    assert email_of("dora.open") in company.usernames()


@pytest.mark.parametrize("done", range(6))
@BOTH_CHARSETS
def test_an_upgrade_that_ended_halfway_is_finished_and_the_ledger_is_like_a_new_one(
    joget: JogetDatabase, done: int
) -> None:
    with open_session("joget_mysql") as database:
        tables = inspect_tables(database, "ORG-001")
        upgrade.create_or_upgrade_ledger(database, tables)
        new = describe_columns(joget), describe_indexes(joget)
        make_older(joget)
        assert describe_columns(joget) != new[0]
        assert describe_indexes(joget) != new[1]
        steps = [step for steps in definition.UPGRADES.values() for step in steps]
        assert len(steps) == 5
        for step in steps[:done]:
            joget.execute(step.statement)
        assert definition.is_ledger_complete(database), (
            "a ledger that isn't upgraded yet can be read"
        )
        upgrade.create_or_upgrade_ledger(database, tables)
    assert (describe_columns(joget), describe_indexes(joget)) == new
    assert read_version(joget) == (definition.LEDGER_VERSION, __version__)


@pytest.mark.parametrize("makes", [lambda _: None, make_older])
def test_one_users_link_is_found_by_jogets_collation_without_reading_all_links(
    company: Company, makes: Callable[[JogetDatabase], None]
) -> None:
    company.pool.users = people(200)
    company.run()
    makes(company.joget)
    company.run()
    company.joget.execute("ANALYZE TABLE directory_sync_user_link")
    # Joget's collation takes both for the same.
    [plan] = company.joget.execute(
        "EXPLAIN FORMAT=TRADITIONAL SELECT sub FROM directory_sync_user_link WHERE user_id = %s",
        (company.usernames()[0].upper(),),
    )
    assert ("ref" in plan, "by_user_id" in plan) == (True, True), plan


@BOTH_CHARSETS
def test_missing_tables_and_a_lost_version_are_made_again(joget: JogetDatabase) -> None:
    with open_session("joget_mysql") as database:
        tables = inspect_tables(database, "ORG-001")
        joget.execute(definition.make_table_statements(tables)["directory_sync_lock"])
        joget.execute(definition.make_table_statements(tables)["directory_sync_review"])
        assert not definition.is_ledger_complete(database)
        upgrade.create_or_upgrade_ledger(database, tables)
        assert definition.is_ledger_complete(database)
        joget.execute("DROP TABLE directory_sync_decision")
        joget.execute(DROP_DELAYS)
        joget.execute("DELETE FROM directory_sync_lock")
        upgrade.create_or_upgrade_ledger(database, tables)
        assert (definition.is_ledger_complete(database), definition.read_revision(database)) == (
            True,
            0,
        )
    assert read_version(joget) == (definition.LEDGER_VERSION, __version__)


def test_every_task_refuses_the_ledger_of_a_newer_release_before_it_reads_anything(
    company: Company,
) -> None:
    company.configure(limits={"created_users": 1, "floor": 0})
    company.pool.users = people(3)
    company.run()
    review_id = company.ask()
    assert review_id
    loaded = company.last
    transformed = company.prepare()
    company.joget.execute(NEWER)
    everything, calls = company.joget.contents(prefix=""), company.cognito.calls.total()
    for task in (
        company.prepare,
        lambda: company.prepare(dry_run=True),
        lambda: company.prepare(replay_run_id="manual__0+00:00"),
        lambda: company.load(transformed),
        lambda: company.undo("manual__0+00:00"),
        lambda: company.undo("manual__0+00:00", dry_run=True),
        lambda: review.request_review(loaded.url if loaded else ""),
        lambda: review.read_question("default", review_id, by_hand=False),
        lambda: review.read_question("default", "by hand", by_hand=True),
        lambda: review.note_answer("default", review_id, "approve", "Olga"),
        lambda: company.load_held(review_id),
        lambda: detach_sync("default", is_applied=False),
        lambda: detach_sync("default", is_applied=True),
    ):
        with pytest.raises(
            PermanentError, match=r"Release 9\.9\.0 .* version 3.*Run release 9\.9\.0 or a newer"
        ):
            task()
    assert company.joget.contents(prefix="") == everything
    assert company.cognito.calls.total() == calls


def test_a_run_that_waited_while_a_newer_release_upgraded_is_refused(
    joget: JogetDatabase, sync: Run
) -> None:
    with open_session("joget_mysql") as database:
        upgrade.create_or_upgrade_ledger(database, inspect_tables(database, "ORG-001"))
        joget.execute(NEWER)
        with pytest.raises(PermanentError, match="newer"), locks.hold_ledger_lock(database, sync):
            raise AssertionError("it holds the lock")


def test_two_runs_that_upgrade_at_once_take_turns(joget: JogetDatabase, sync: Run) -> None:
    def upgrade_ledger() -> None:
        with open_session("joget_mysql") as database:
            upgrade.create_or_upgrade_ledger(database, inspect_tables(database, "ORG-001"))

    upgrade_ledger()
    make_older(joget)
    with ThreadPoolExecutor(4) as threads:
        for one in [threads.submit(upgrade_ledger) for _ in range(4)]:
            one.result()
    assert read_version(joget) == (definition.LEDGER_VERSION, __version__)
    assert joget.column("SELECT revision FROM directory_sync_lock") == [1], "one of them wrote"


def test_an_account_that_may_not_alter_tables_gets_all_that_a_dba_has_to_execute(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = people(2)
    company.run()
    name, server = company.joget.name, company.joget.server
    account = f"{name}_upgrade"
    company.joget.execute(f"CREATE USER {account}@'%' IDENTIFIED BY 'secret'")
    rights = "SELECT, INSERT, UPDATE, DELETE, CREATE, CREATE TEMPORARY TABLES"
    company.joget.execute(f"GRANT {rights} ON {name}.* TO {account}@'%'")
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", server.uri(name, account, "secret"))
    assert company.run()["outcome"] == "nothing_to_do", "a ledger of this version needs no ALTER"
    make_older(company.joget)
    calls = company.cognito.calls.total()
    with pytest.raises(PermanentError, match="ALTER") as refusal:
        company.run()
    assert company.cognito.calls.total() == calls, "the pool wasn't listed in vain"
    for statement in str(refusal.value).partition("once:\n")[2].split(";"):
        if statement.strip():
            company.joget.execute(statement)
    assert read_version(company.joget) == (definition.LEDGER_VERSION, __version__)
    assert company.run()["outcome"] == "nothing_to_do"
    company.joget.execute(f"DROP USER {account}@'%'")


# Staged files


def test_files_that_a_newer_release_staged_are_refused_with_its_name(company: Company) -> None:
    transformed = company.prepare()
    path = Path(transformed.url.removeprefix("file://")) / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    assert (manifest["format"], manifest["release"]) == (STAGED_FORMAT, __version__)
    manifest |= {"format": STAGED_FORMAT + 1, "release": "9.9.0", "something": "new"}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(PermanentError, match=r"Release 9\.9\.0 .* Run release 9\.9\.0 or a newer"):
        company.load(transformed)


def test_a_run_json_with_settings_of_another_release_is_refused_with_its_name(
    company: Company,
) -> None:
    transformed = company.prepare()
    users = Path(transformed.inputs["extract_users"].removeprefix("file://"))
    run = json.loads((users / "run.json").read_text(encoding="utf-8"))
    content = json.dumps(run | {"something": "new"}).encode()
    (users / "run.json").write_bytes(content)
    manifest = json.loads((users / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["run.json"]["sha256"] = hashlib.sha256(content).hexdigest()
    (users / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(PermanentError, match=r"run\.json, with settings that this release"):
        company.load(transformed)


@pytest.fixture
def sync(company: Company) -> Run:
    return Run(run_id="x", sync=find_sync("default"), dry_run=False)
