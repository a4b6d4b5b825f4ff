"""`directory-sync plan`: what other settings would change in Joget, before anybody changes them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from directory_sync.__main__ import app
from tests.company import Company, people
from tests.stand_in import OTHER_POOL_ID, POOL_ID, user

ANA = "ana@example.org"


def plan(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["plan", *arguments])


def plan_as_json(*arguments: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(plan("--json", *arguments).stdout)
    return answer


def count_user_changes(*arguments: str) -> dict[tuple[str, str], int]:
    """Counts of changed users, by origin and action."""
    return {
        (row["origin"], row["action"]): row["count"]
        for row in plan_as_json(*arguments)["changes"]
        if row["entity"] == "user"
    }


def write_candidate(company: Company, folder: Path, **changes: Any) -> str:
    """Write a copy of the settings with changes, as a pull request would have it."""
    candidate = folder / "candidate.yaml"
    content = {"syncs": [{**company.settings, **changes}]}
    candidate.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(candidate)


@pytest.fixture
def synchronised(company: Company) -> Company:
    company.configure(limits={"changed_users_percent": 100, "floor": 50})
    company.pool.users = [*people(3), user(ANA, nickname="Annie")]
    company.pool.members = {"Sales": company.pool.users}
    company.run()
    return company


def test_if_nothing_would_change_the_command_says_so_and_exits_with_0(
    synchronised: Company,
) -> None:
    answer = plan()
    assert answer.exit_code == 0, answer.output
    assert "Nothing would change." in answer.stdout
    assert plan_as_json()["changes"] == []


def test_a_candidate_of_the_settings_shows_only_what_it_changes_itself(
    synchronised: Company, tmp_path: Path
) -> None:
    mapping = {"last_name": "given_name"}
    candidate = write_candidate(synchronised, tmp_path, mapping=mapping)
    before = synchronised.joget.contents(prefix="")
    answer = plan("--settings", candidate)
    assert answer.exit_code == 2, answer.output
    assert "Settings that differ from the newest run's: mapping.last_name." in answer.stdout
    found = plan_as_json("--settings", candidate)
    assert found["changed_settings"] == ["mapping.last_name"]
    assert found["changes"] == [
        {"origin": "settings", "entity": "user", "action": "update", "count": 4}
    ]
    assert synchronised.joget.contents(prefix="") == before, "nothing was written"


def test_changes_in_joget_are_shown_apart_from_those_of_the_settings(
    synchronised: Company, tmp_path: Path
) -> None:
    synchronised.joget.execute("UPDATE dir_user SET firstName = 'X' WHERE id = %s", (ANA,))
    mapping = {"last_name": "given_name"}
    found = plan_as_json("--settings", write_candidate(synchronised, tmp_path, mapping=mapping))
    counts = {(row["origin"], row["action"]): row["count"] for row in found["changes"]}
    assert counts == {("settings", "update"): 4}, "a row that both change is the settings'"
    assert plan_as_json()["changes"] == [
        {"origin": "joget", "entity": "user", "action": "update", "count": 1}
    ]


def test_an_attribute_that_the_snapshot_lacks_is_named(
    synchronised: Company, tmp_path: Path
) -> None:
    candidate = write_candidate(synchronised, tmp_path, mapping={"first_name": "nickname"})
    answer = plan("--settings", candidate)
    assert answer.exit_code == 1
    assert "doesn't hold nickname" in answer.stderr


def test_faults_of_a_candidate_are_reported_all_at_once(
    synchronised: Company, tmp_path: Path
) -> None:
    candidate = write_candidate(synchronised, tmp_path, user_pool_id="nonsense", limit={})
    answer = plan("--settings", candidate)
    assert answer.exit_code == 1
    assert "user_pool_id" in answer.stderr
    assert "limit" in answer.stderr


def test_what_only_a_newer_snapshot_gives_comes_from_the_pool(
    synchronised: Company, tmp_path: Path
) -> None:
    synchronised.joget.execute("UPDATE dir_user SET firstName = 'X' WHERE id = %s", (ANA,))
    synchronised.pool.users.append(user("new@example.org"))
    synchronised.prepare(dry_run=True)
    assert count_user_changes() == {("joget", "update"): 1, ("pool", "create"): 1}
    candidate = write_candidate(synchronised, tmp_path, mapping={"last_name": "given_name"})
    assert count_user_changes("--settings", candidate) == {
        ("settings", "create"): 1,
        ("settings", "update"): 4,
    }, "a row that both change is the settings'"
    synchronised.run()
    assert plan_as_json()["changes"] == []


def test_leavers_of_a_newer_snapshot_are_shown_as_they_would_be_removed(
    synchronised: Company,
) -> None:
    synchronised.configure(policies={"missing_runs": 1})
    synchronised.run()
    synchronised.pool.users.pop()
    synchronised.prepare(dry_run=True)
    assert count_user_changes() == {("pool", "deactivate"): 1}


def test_a_setting_that_only_releases_a_held_change_is_its_cause(
    synchronised: Company, tmp_path: Path
) -> None:
    synchronised.configure(policies={"renamed_user": "hold"})
    ana = synchronised.pool.users[-1]
    ana["Attributes"] = [
        {"Name": "email", "Value": "renamed@example.org"} if item["Name"] == "email" else item
        for item in ana["Attributes"]
    ]
    synchronised.run()
    assert plan_as_json()["held"] == [{"origin": "joget", "cause": "renamed_user", "count": 1}]
    candidate = write_candidate(synchronised, tmp_path, policies={"renamed_user": "rename"})
    assert count_user_changes("--settings", candidate) == {("settings", "rename"): 1}


@pytest.mark.parametrize("applied", ["nothing", "an old run"])
def test_all_that_another_pool_would_change_is_because_of_the_settings(
    synchronised: Company, tmp_path: Path, applied: str
) -> None:
    before = synchronised.pool.users
    if applied == "an old run":
        synchronised.configure(user_pool_id=OTHER_POOL_ID)
        synchronised.run()
        synchronised.configure(user_pool_id=POOL_ID)
        synchronised.run()
    synchronised.pool.users = [*before, user("new@example.org")]
    synchronised.prepare(dry_run=True, user_pool_id=OTHER_POOL_ID)
    synchronised.pool.users = before
    candidate = write_candidate(synchronised, tmp_path, user_pool_id=OTHER_POOL_ID)
    found = plan_as_json("--settings", candidate)
    assert found["changed_settings"] == ["user_pool_id"]
    assert {row["origin"] for row in found["changes"] + found["held"]} == {"settings"}
    assert plan_as_json()["changed_settings"] == []


@pytest.mark.parametrize("is_applied", [True, False])
def test_a_snapshot_without_attributes_of_the_old_settings_is_planned_with_a_warning(
    synchronised: Company,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    is_applied: bool,
) -> None:
    if not is_applied:
        synchronised.pool.users.append(user("new@example.org"))
        synchronised.prepare(dry_run=True)
    synchronised.joget.execute(
        "UPDATE directory_sync_run SET rules = REPLACE(rules, 'family_name', 'middle_name')"
    )
    mapping = {"last_name": "given_name"}
    candidate = write_candidate(synchronised, tmp_path, mapping=mapping)
    counts = count_user_changes("--settings", candidate)
    assert counts == {("pool", "update"): 4} | ({} if is_applied else {("pool", "create"): 1})
    assert "lacks attributes that the newest run's settings ask for" in caplog.text


def test_if_the_applied_snapshots_files_are_gone_a_newer_one_is_planned_from(
    synchronised: Company,
) -> None:
    for folder in synchronised.staging_folder.rglob("transform.*"):
        shutil.rmtree(folder)
    synchronised.pool.users.append(user("new@example.org"))
    synchronised.prepare(dry_run=True)
    assert count_user_changes() == {("pool", "create"): 1}


def test_before_the_first_run_the_plan_command_needs_a_snapshot(company: Company) -> None:
    answer = plan()
    assert answer.exit_code == 1
    assert "no complete snapshot of pool" in answer.stderr
    assert plan("--sync", "nobody").exit_code == 1


def test_before_the_first_run_a_dry_runs_snapshot_is_planned_from(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run(dry_run=True)
    assert count_user_changes() == {("pool", "create"): 1}


def test_if_a_snapshots_files_were_deleted_the_newest_applied_one_is_planned_from(
    synchronised: Company,
) -> None:
    synchronised.pool.users.append(user("new@example.org"))
    newer = synchronised.prepare(dry_run=True)
    shutil.rmtree(newer.inputs["extract_groups"].removeprefix("file://"))
    assert plan_as_json()["changes"] == []


def test_no_name_email_or_attribute_is_printed(synchronised: Company, tmp_path: Path) -> None:
    candidate = write_candidate(synchronised, tmp_path, mapping={"last_name": "given_name"})
    for arguments in (("--settings", candidate), ("--settings", candidate, "--json")):
        assert "example.org" not in plan(*arguments).output
