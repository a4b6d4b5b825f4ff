"""`directory-sync doctor`: each thing that a sync needs is tried, and named where it is missing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow import plugins_manager, settings
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy import delete, update
from typer.testing import CliRunner, Result

from demo.database import ACCOUNT
from demo.processes import free_port
from directory_sync.__main__ import app
from directory_sync.cognito.client import open_user_pool
from directory_sync.command_line.doctor import (
    airflow_checks,
    clock_checks,
    joget_checks,
    pool_checks,
    staging_checks,
)
from directory_sync.command_line.doctor.findings import Finding, Status, run_check
from directory_sync.joget.database import open_session
from directory_sync.joget.rights import RIGHTS_BY_NEED, Need, find_missing_rights
from directory_sync.settings import Sync, find_sync
from tests.alert_receiver import alert_receiver
from tests.company import Company, people
from tests.conftest import ROOT
from tests.directory_sync.cognito.test_iam import (
    Account,
    iam,
    list_actions,
    list_actions_of_full_runs,
    read_policy,
    remove_action,
)
from tests.directory_sync.joget.test_grants import account, read_rights
from tests.stand_in import Faults, StandIn, sub_of

__all__ = ["account", "iam"]

DAG_IDS = ("cognito_to_joget", "cognito_to_joget_review", "cognito_to_joget_undo")
PARTS = {Need.DIRECTORY: 1, Need.LEDGER: 2, Need.REMOVAL: 3}
LOGIN, SAMPLE = "login, by the newest snapshot", "login, by a sample of the pool"
Grant = Callable[..., None]


def examine(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["doctor", *arguments])


def find(*arguments: str) -> dict[str, dict[str, str]]:
    """The findings by name."""
    found = json.loads(examine("--json", *arguments).stdout)["findings"]
    return {one["name"]: one for one in found}


def faulty(*arguments: str) -> dict[str, str]:
    """What isn't ok, by name, with what to do."""
    return {
        name: f"{one['what']}. {one['to_do']}"
        for name, one in find(*arguments).items()
        if one["status"] in ("warning", "wrong")
    }


def keep_faulty(findings: Iterable[Finding]) -> dict[str, str]:
    """What of one check's findings isn't ok, by name, with what to do."""
    return {
        one.name: f"{one.what}. {one.to_do}"
        for one in findings
        if one.status in (Status.WARNING, Status.WRONG)
    }


def examine_database() -> dict[str, str]:
    with open_session("joget_mysql") as database:
        return keep_faulty(joget_checks.check_database(find_sync("default"), database))


def examine_pool() -> dict[str, str]:
    sync = find_sync("default")
    return keep_faulty(pool_checks.check_pool(sync, open_user_pool(sync, "a test")))


@pytest.fixture(scope="module")
def airflow() -> Iterator[None]:
    """Airflow's database with the sync's DAGs, and an Airflow that loads the plugin."""
    initdb()
    with create_session(scoped=False) as session:
        session.merge(DagBundleModel(name="dags-folder"))
        session.flush()
        for dag_id in DAG_IDS:
            session.merge(
                DagModel(
                    dag_id=dag_id,
                    bundle_name="dags-folder",
                    is_stale=False,
                    is_paused=False,
                    last_parsed_time=datetime.now(UTC),
                    max_active_tasks=16,
                    has_task_concurrency_limits=False,
                )
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "PLUGINS_FOLDER", str(ROOT / "plugins"))
        plugins_manager._get_plugins.cache_clear()
        yield
    plugins_manager._get_plugins.cache_clear()
    with create_session(scoped=False) as session:
        session.execute(delete(DagModel).where(DagModel.dag_id.in_(DAG_IDS)))


@pytest.fixture
def sound(company: Company, account: Grant, airflow: None) -> Company:
    """A company with just the documented rights, a pool, and accounts that single sign-on made."""
    account()
    company.faults.allowed = frozenset(list_actions(read_policy()))
    company.pool.users = people(9)
    company.pool.members = {"Sales": company.pool.users[:3]}
    for number in range(4):
        company.joget.add_user(f"Person{number:03}@example.org")
    return company


# All is well


def test_with_just_the_documented_rights_all_is_well_before_and_after_the_first_run(
    sound: Company,
) -> None:
    before = sound.joget.contents("")
    answer = examine()
    assert answer.exit_code == 0, answer.output
    assert "Sync default: Nothing is wrong." in answer.stdout
    assert sound.joget.contents("") == before, "nothing was written"
    assert not [path for path in sound.staging_folder.rglob("*") if path.is_file()]
    found = find()
    assert found["ledger"]["what"] == "not there yet: the first run makes it"
    assert found[LOGIN]["status"] == "unknown"
    sound.run()
    answer, found = examine(), find()
    assert answer.exit_code == 0, answer.output
    assert not re.search(r"example\.org|Person|Given|Sales", answer.output + str(found)), (
        "no name, email or attribute is printed"
    )
    assert found["ledger"]["what"].startswith("version 2, written by release")
    assert "4 by email (mapping.username), 0 by sub" in found[LOGIN]["what"]


def test_a_pool_without_a_group_says_what_could_not_be_tried(sound: Company) -> None:
    sound.pool.members = {}
    finding = find()["cognito-idp:ListUsersInGroup"]
    assert (finding["status"], "no group" in finding["what"]) == ("unknown", True)
    assert examine().exit_code == 0, "what couldn't be tried doesn't count"


# Settings and Connections


def test_a_fault_of_another_sync_is_a_warning_and_of_this_one_is_wrong(sound: Company) -> None:
    path = sound.settings_path
    path.write_text(path.read_text(encoding="utf-8") + "- {name: other}\n", encoding="utf-8")
    assert examine().exit_code == 2
    assert "sync 'other'" in faulty()["settings"]
    assert examine("--sync", "other").exit_code == 1
    assert list(find("--sync", "other")) == ["settings", "everything else"]
    assert "holds no sync named" not in faulty("--sync", "other")["settings"]


def test_a_missing_connection_is_said_once_and_the_rest_is_tried(
    sound: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_COGNITO_AWS")
    found = find()
    assert list(faulty()) == ["Connection cognito_aws (aws_conn_id)"]
    assert found["rights on the pool"]["status"] == "unknown"
    assert found["rights on Joget's tables"]["status"] == "ok"
    monkeypatch.delenv("AIRFLOW_CONN_JOGET_MYSQL")
    assert find()["Joget's tables, rights and ledger"]["status"] == "unknown"
    assert examine().exit_code == 1


def test_the_connection_of_alerts_is_checked_and_gets_a_message_only_if_asked(
    sound: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "Connection sync_alerts (alerts.notifier)"
    assert name not in find()
    sound.configure(alerts={"notifier": "sync_alerts"})
    assert "doesn't exist" in faulty()[name]
    assert examine().exit_code == 2, "a run works without its alerts"
    with alert_receiver() as receiver:
        monkeypatch.setenv("AIRFLOW_CONN_SYNC_ALERTS", receiver.connection)
        assert find()[name]["what"].startswith("found, with 1 service(s)")
        assert receiver.titles == []
        assert find("--send-alert")[name]["what"] == "1 service(s) took a message"
        assert receiver.titles == ["Directory Sync: a test"]
        receiver.status = 500
        assert "took no message (HTTP 500)" in faulty("--send-alert")[name]


def test_an_error_that_nobody_foresaw_is_a_finding_without_its_message() -> None:
    def fail() -> Finding:
        raise ValueError("ana@example.org")

    finding = run_check("a check", fail)
    assert finding.status is Status.WRONG
    assert "ValueError" in finding.what
    assert "ana" not in finding.what


# AWS


def test_each_missing_right_on_the_pool_is_named(sound: Company) -> None:
    for action in list_actions_of_full_runs():
        sound.faults.allowed = frozenset(list_actions(remove_action(read_policy(), action)))
        found = examine_pool()
        assert len(found) == 1, found
        assert f"{action} on this pool's ARN (docs/iam-policy.json)" in next(iter(found.values()))
    sound.faults.allowed = frozenset(
        list_actions(remove_action(read_policy(), "cognito-idp:ListUsers"))
    )
    assert list(faulty()) == ["cognito-idp:ListUsers"], "what needs the list isn't tried"


def test_a_pool_that_is_not_there_is_said_once(sound: Company) -> None:
    sound.configure(user_pool_id="us-east-1_Nowhere")
    found = faulty()
    assert list(found) == ["user pool (cognito-idp:DescribeUserPool)"]
    assert "User pool us-east-1_Nowhere doesn't exist in region us-east-1" in str(found)


def test_where_cognito_is_not_reached_it_is_said_once_and_soon(
    sound: Company, aws_connection: Callable[[str], None]
) -> None:
    aws_connection(f"http://127.0.0.1:{free_port()}")
    found = find()
    wrong = [name for name, one in found.items() if one["status"] == "wrong"]
    assert wrong == ["user pool (cognito-idp:DescribeUserPool)"]
    assert found[wrong[0]]["what"].startswith("Cognito can't be reached")
    assert found["clock, against AWS"]["what"] == "not tried: it needs the pool"


def test_if_others_use_up_cognitos_quota_nothing_is_wrong(sound: Company) -> None:
    sound.faults.throttled_calls = 1_000
    found = find()["user pool (cognito-idp:DescribeUserPool)"]
    assert found["status"] == "unknown"
    assert "Cognito throttles this account now" in found["what"]


def test_each_region_of_read_regions_is_tried_and_the_one_in_use_is_named(sound: Company) -> None:
    def find_regions() -> dict[str, tuple[Status, str]]:
        sync = find_sync("default")
        found = list(pool_checks.check_pool(sync, open_user_pool(sync, "a test", waits=False)))
        return {one.name: (one.status, one.what) for one in found[-3:]}

    near, far = Faults(), Faults()
    for region, faults in (("eu-west-1", near), ("ap-south-1", far)):
        sound.cognito.replicas[region] = StandIn(sound.pool, faults)
    sound.configure(read_regions=["eu-west-1", "ap-south-1"])
    assert faulty() == {}
    assert find_regions() == {
        "replica in eu-west-1": (Status.OK, "answers, with about 9 users"),
        "replica in ap-south-1": (Status.OK, "answers, with about 9 users"),
        "region that is read": (Status.OK, "runs read the pool in eu-west-1 now"),
    }
    near.down_after = 0
    found = find_regions()
    assert found["replica in eu-west-1"][0] is Status.WARNING
    assert found["region that is read"] == (Status.OK, "runs read the pool in ap-south-1 now")
    far.allowed = frozenset({"cognito-idp:DescribeUserPool", "cognito-idp:ListUsers"})
    found = find_regions()
    assert found["replica in ap-south-1"][0] is Status.WRONG
    assert "cognito-idp:ListGroups on this pool's ARN" in found["replica in ap-south-1"][1]
    assert found["region that is read"][0] is Status.UNKNOWN


def test_each_missing_right_on_the_bucket_is_named(
    sound: Company, iam: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine_staging() -> dict[str, str]:
        return keep_faulty(staging_checks.check_staging(find_sync("default")))

    # Airflow keeps the store of a Connection for the life of a process, so no other test has it.
    monkeypatch.setenv("AIRFLOW_CONN_EXAMINED_STORE", iam.connection)
    sound.configure(staging_url="s3://examined_store@directory-sync-staging/staging")
    iam.allow(read_policy())
    assert faulty() == {}
    for action in [one for one in list_actions(read_policy()) if one.startswith("s3:")]:
        iam.allow(remove_action(read_policy(), action))
        found = examine_staging()
        assert len(found) == 1, (action, found)
        assert action in next(iter(found.values()))
    iam.allow(remove_action(read_policy(), "s3:DeleteObject"))
    sound.configure(staging_retention_days=None)
    assert examine_staging() == {}, "nothing is ever deleted"


# Joget's database


def test_the_rights_that_are_tried_are_those_of_the_file() -> None:
    for need, part in PARTS.items():
        tried = {(right.privilege, right.table) for right in RIGHTS_BY_NEED[need]}
        assert tried == read_rights(part) - {("CREATE TEMPORARY TABLES", "*")}


def expect_each_missing_right_to_be_found(company: Company) -> None:
    before = company.joget.contents("")
    connection = company.joget.server.connect(company.joget.name)
    with open_session("joget_mysql") as database, connection.cursor() as cursor:
        for need, part in PARTS.items():
            for right, table in sorted(read_rights(part) - {("CREATE TEMPORARY TABLES", "*")}):
                cursor.execute(f"REVOKE {right} ON {table} FROM {ACCOUNT}@'%'")
                missing = find_missing_rights(database, need)
                assert [(one.privilege, one.table) for one in missing] == [(right, table)]
                # Without CREATE, servers grant nothing on a table that isn't there.
                create = "CREATE, " if table.startswith("directory_sync_") else ""
                cursor.execute(f"GRANT {create}{right} ON {table} TO {ACCOUNT}@'%'")
    connection.close()
    assert company.joget.contents("") == before


def test_each_missing_right_is_found_and_no_other_before_and_after_the_first_run(
    sound: Company, account: Grant
) -> None:
    expect_each_missing_right_to_be_found(sound)
    sound.run()
    expect_each_missing_right_to_be_found(sound)
    for table in ("directory_sync_run", "directory_sync_lock"):
        sound.joget.execute(
            f"REVOKE CREATE, ALTER ON {sound.joget.name}.{table} FROM {ACCOUNT}@'%'"
        )
    assert examine_database() == {}, "the ledger is there, so nobody has to make or alter it"
    sound.joget.execute("UPDATE directory_sync_lock SET version = 0")
    found = examine_database()
    assert list(found) == ["rights on the ledger"]
    assert "missing: ALTER on directory_sync_lock, ALTER on directory_sync_run" in str(found)


def test_a_missing_right_is_named_with_what_to_do(sound: Company) -> None:
    named = {
        ("UPDATE", "dir_user"): "rights on Joget's tables",
        ("CREATE TEMPORARY TABLES", "*"): "right to make temporary tables",
        ("CREATE", "directory_sync_run"): "rights on the ledger",
        ("DELETE", "directory_sync_decision"): "rights on the ledger",
        ("DELETE", "dir_user_meta"): "rights to delete, rename and undo",
    }
    for (privilege, table), name in named.items():
        where = f"{sound.joget.name}.{table}"
        sound.joget.execute(f"REVOKE {privilege} ON {where} FROM {ACCOUNT}@'%'")
        found = examine_database()
        create = "CREATE, " if table.startswith("directory_sync_") else ""
        sound.joget.execute(f"GRANT {create}{privilege} ON {where} TO {ACCOUNT}@'%'")
        assert list(found) == [name]
        assert privilege in found[name]
        assert ("its schema" if table == "*" else table) in found[name]
        assert "docs/joget-grants.sql" in found[name]


def test_rights_to_delete_are_needed_where_the_settings_ask_for_deletions(
    sound: Company, account: Grant
) -> None:
    account(1, 2)
    finding = find()["rights to delete, rename and undo"]
    assert (finding["status"], "Undoing" in finding["what"]) == ("ok", True)
    sound.configure(policies={"missing_user": "delete"})
    found = examine_database()["rights to delete, rename and undo"]
    assert "The settings need them: missing_user: delete" in found
    assert "DELETE on dir_user," in found


def test_a_large_directory_without_an_index_on_the_username_is_a_warning(sound: Company) -> None:
    numbers = "SELECT seq FROM seq_1_to_5000" if "mariadb" in server_of(sound) else NUMBERS
    sound.joget.execute(
        "INSERT INTO dir_user (id, username, password, active) SELECT CONCAT('u', n.seq), "
        f"CONCAT('u', n.seq), 'x', 1 FROM ({numbers}) n"
    )
    assert "CREATE INDEX" in faulty()["index on dir_user.username"]
    assert examine().exit_code == 2, "there are only warnings"
    sound.joget.execute("CREATE INDEX directory_sync_username ON dir_user (username)")
    assert examine_database() == {}


NUMBERS = (
    "WITH RECURSIVE n AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM n WHERE seq < 1000) "
    "SELECT a.seq + 1000 * b.seq AS seq FROM n a JOIN (SELECT seq FROM n WHERE seq <= 5) b"
)


def server_of(company: Company) -> str:
    return str(company.joget.column("SELECT VERSION()")[0]).lower()


def test_a_wrong_schema_or_organization_is_said(sound: Company) -> None:
    sound.configure(organization="ORG-999")
    assert "Joget has no organization" in examine_database()["Joget's tables"]


# Logins


def test_a_mapping_that_misses_what_single_sign_on_makes_is_wrong(sound: Company) -> None:
    """Single sign-on logs in with sub, and the mapping's login is the email."""
    sound.joget.execute("DELETE FROM dir_user_role WHERE userId LIKE 'Person%%'")
    sound.joget.execute("DELETE FROM dir_user WHERE id LIKE 'Person%%'")
    for one in sound.pool.users[:5]:
        sound.joget.add_user(sub_of(one))
    found = faulty()
    assert list(found) == [SAMPLE], "before the first run, a page of the pool tells"
    assert "0 by email (mapping.username), 5 by sub" in found[SAMPLE]
    assert "set mapping.username to it" in found[SAMPLE]
    sound.run()
    assert "0 by email (mapping.username), 5 by sub" in faulty()[LOGIN], (
        "accounts that the sync made don't count"
    )
    assert examine().exit_code == 1


def test_attributes_that_the_snapshot_lacks_are_compared_by_a_sample(sound: Company) -> None:
    sound.run()
    for number, one in enumerate(sound.pool.users):
        one["Attributes"].append({"Name": "custom:staff", "Value": f"staff{number}"})
    for number in range(8):
        sound.joget.add_user(f"STAFF{number}")
    found = faulty()
    assert list(found) == [SAMPLE]
    assert "4 by email (mapping.username), 8 by custom:staff" in found[SAMPLE]
    assert "a sample of the pool" in found[SAMPLE]
    assert find()[SAMPLE]["status"] == "warning", "a sample proves nothing"


def test_an_attribute_that_two_users_share_is_no_login(sound: Company) -> None:
    sound.run()
    for number, one in enumerate(sound.pool.users):
        one["Attributes"].append({"Name": "custom:manager", "Value": f"manager{number % 8}"})
    for number in range(8):
        sound.joget.add_user(f"manager{number}")
    assert "custom:manager" not in find()[SAMPLE]["what"]


def test_accounts_with_a_password_and_administrators_are_not_single_sign_ons(
    sound: Company,
) -> None:
    sound.joget.add_user("one@example.org", password="x" * 32)
    sound.joget.add_user("two@example.org", role="ROLE_ADMIN")
    assert "made 4 accounts" in find()[SAMPLE]["what"]


def test_without_an_account_of_single_sign_on_nothing_can_be_told(company: Company) -> None:
    company.pool.users = people(3)
    finding = find()[SAMPLE]
    assert (finding["status"], "can't be told" in finding["what"]) == ("unknown", True)


# Clocks


@pytest.mark.parametrize(
    ("ahead", "status"),
    [(2, Status.OK), (-40, Status.WARNING), (40, Status.WARNING), (400, Status.WRONG)],
)
def test_a_clock_that_is_off_is_said_with_the_reason(ahead: int, status: Status) -> None:
    class OffPool:
        def read_clock(self) -> datetime:
            return datetime.now(UTC) + timedelta(seconds=ahead)

    pool: Any = OffPool()
    finding = clock_checks.check_aws_clock(pool)
    assert finding.status is status
    if status is not Status.OK:
        assert f"{abs(ahead)} seconds {'behind' if ahead > 0 else 'ahead'}" in finding.what
        assert "AWS refuses requests" in finding.what


def test_a_database_with_another_time_is_a_warning() -> None:
    class OffDatabase:
        def rows(self, *_: str, **__: str) -> list[tuple[datetime]]:
            return [(datetime.now(UTC).replace(tzinfo=None) - timedelta(hours=1),)]

    database: Any = OffDatabase()
    finding = clock_checks.check_database_clock(database)
    assert finding.status is Status.WARNING
    assert "this machine is 3,600 seconds ahead: snapshots have this machine's time" in finding.what


def test_awss_clock_is_read_from_a_refusal_too(sound: Company) -> None:
    sound.faults.allowed = frozenset()
    assert find()["clock, against AWS"]["status"] == "ok"


# Airflow


def test_what_airflow_does_not_have_of_the_dags_is_said(sound: Company) -> None:
    def change(dag_id: str, **values: Any) -> None:
        with create_session(scoped=False) as session:
            session.execute(update(DagModel).where(DagModel.dag_id == dag_id).values(**values))

    def examine_dags(sync: Sync) -> str:
        return next(one.what for one in airflow_checks.check_airflow(sync) if one.name == "DAGs")

    sync = find_sync("default")
    change(DAG_IDS[0], is_paused=True)
    assert "cognito_to_joget is paused" in examine_dags(sync)
    change(DAG_IDS[0], is_paused=False)
    change(DAG_IDS[1], is_paused=True)
    assert "cognito_to_joget_review paused" in examine_dags(sync)
    change(DAG_IDS[1], is_paused=False, is_stale=True)
    assert "stale, since no file makes it any more: cognito_to_joget_review" in examine_dags(sync)
    change(DAG_IDS[1], is_stale=False, has_import_errors=True)
    assert "with import errors: cognito_to_joget_review" in examine_dags(sync)
    change(DAG_IDS[1], has_import_errors=False)
    other = sync.model_copy(update={"name": "other"})
    assert (
        "not in Airflow's database: cognito_to_joget_other, cognito_to_joget_other_review"
        in examine_dags(other)
    )


def test_a_plugin_that_airflow_does_not_load_or_loads_twice_is_a_warning(
    airflow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for name, copies in {"none": 0, "twice": 2}.items():
        folder = tmp_path / name
        folder.mkdir()
        for number in range(copies):
            plugin = (ROOT / "plugins" / "directory_sync_pages.py").read_bytes()
            (folder / f"copy_{number}.py").write_bytes(plugin)
        monkeypatch.setattr(settings, "PLUGINS_FOLDER", str(folder))
        plugins_manager._get_plugins.cache_clear()
        finding = airflow_checks._check_plugin()
        found[name] = (finding.status, finding.what)
    plugins_manager._get_plugins.cache_clear()
    assert found["none"] == (Status.WARNING, "this Airflow has none")
    assert found["twice"][0] is Status.WARNING
    assert "there twice" in found["twice"][1]


def test_a_machine_without_airflows_database_says_so_and_prints_nothing_but_json(
    sound: Company, tmp_path: Path
) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "directory_sync", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/nothing/airflow.db",
        },
    )
    found = json.loads(answer.stdout)
    assert (answer.returncode, found["worst"]) == (0, "ok"), answer.stdout
    dags = next(one for one in found["findings"] if one["name"] == "DAGs")
    assert (dags["status"], "not known" in dags["what"]) == ("unknown", True)
