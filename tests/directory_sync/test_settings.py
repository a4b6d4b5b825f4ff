"""The settings file: what is valid, and how faults are reported."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from directory_sync import settings
from directory_sync.errors import SettingsError
from directory_sync.settings import Settings
from tests.conftest import ROOT


def sync(**changes: Any) -> dict[str, Any]:
    return {
        "name": "default",
        "user_pool_id": "us-east-1_Example1",
        "region": "us-east-1",
        "organization": "ORG-001",
        "staging_url": "s3://cognito_aws@bucket/prefix",
        **changes,
    }


def parse(*syncs: Any) -> Settings:
    return Settings(Path("syncs.yaml"), *settings.parse_settings({"syncs": list(syncs)}))


def list_faults(*syncs: Any) -> str:
    return "\n".join(parse(*syncs).faults)


def test_the_settings_in_this_repository_are_valid() -> None:
    loaded = settings.load_settings(settings.DEFAULT_PATH)
    assert (loaded.faults, [valid.dag_id for valid in loaded.syncs]) == ((), ["cognito_to_joget"])


def test_the_readme_shows_every_setting_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = next(part for part in readme.split("```")[1::2] if part.startswith("yaml\nsyncs:"))
    shown = yaml.safe_load(block.removeprefix("yaml\n"))["syncs"][0]
    assert set(shown) == set(settings.Sync.model_fields)
    valid = settings.Sync.model_validate(shown)
    for section in ("mapping", "scope", "policies", "limits", "proof", "approval"):
        assert set(shown[section]) == set(type(getattr(valid, section)).model_fields)
        assert getattr(valid, section) == settings.Sync.model_fields[section].default
    assert valid.requests_per_second == settings.Sync.model_fields["requests_per_second"].default
    assert (
        valid.extract_timeout_hours == settings.Sync.model_fields["extract_timeout_hours"].default
    )
    assert (
        valid.staging_retention_days == settings.Sync.model_fields["staging_retention_days"].default
    )


def test_a_sync_gets_defaults_and_the_dag_id_of_its_name() -> None:
    first, second = parse(sync(), sync(name="emea", organization="ORG-2")).syncs
    assert (first.dag_id, second.dag_id) == ("cognito_to_joget", "cognito_to_joget_emea")
    assert (first.schedule, first.requests_per_second, first.policies.missing_runs) == (None, 15, 2)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"colour": "blue"}, "sync 'default': colour: unknown setting"),
        ({"limits": {"flor": 3}}, "sync 'default': limits.flor: unknown setting"),
        (
            {"requests_per_second": "15"},
            "sync 'default': requests_per_second: Input should be a valid number",
        ),
        (
            {"extract_timeout_hours": 0.4},
            "extract_timeout_hours: Input should be greater than or equal to 0.5",
        ),
        (
            {"extract_timeout_hours": 21},
            "extract_timeout_hours: Input should be less than or equal to 20",
        ),
        ({"requests_per_second": 0}, "requests_per_second: Input should be greater than 0"),
        ({"limits": {"floor": 1.5}}, "limits.floor: Input should be a valid integer"),
        ({"limits": {"removed_users_percent": 101}}, "less than or equal to 100"),
        (
            {"policies": {"missing_user": "wipe"}},
            "policies.missing_user: Input should be 'deactivate', 'delete' or 'keep'",
        ),
        ({"schedule": "hourly, please"}, "schedule: is no cron expression"),
        ({"user_pool_id": "no pool"}, "user_pool_id"),
        ({"organization": ""}, "organization"),
        ({"organization": None}, "organization: Input should be a valid string"),
        ({"name": "Default"}, "name"),
        ({"name": "review"}, "'review' is the ending of another DAG's id"),
        ({"staging_url": "s3://bucket/prefix"}, "staging_url: names no Connection"),
        ({"staging_url": "/tmp/staging"}, "staging_url: must be a URL"),
        ({"staging_url": "s3://key:secret@bucket"}, "staging_url: holds credentials"),
        ({"mapping": {"username": None}}, "mapping.username"),
        ({"scope": {"statuses": "CONFIRMED"}}, "scope.statuses"),
        ({"alerts": {"notifier": "mailto://a:b@example.org"}}, "alerts.notifier: is an address"),
    ],
)
def test_an_unknown_or_ill_typed_setting_is_named(changes: dict[str, Any], fault: str) -> None:
    found = list_faults(sync(**changes))
    assert fault in found
    assert "secret" not in found


def test_all_faults_are_reported_at_once_and_the_valid_syncs_stay() -> None:
    loaded = parse(
        sync(colour=1, region=7), sync(name="good", organization="ORG-2"), "text", sync(name="x y")
    )
    assert [valid.name for valid in loaded.syncs] == ["good"]
    assert len(loaded.faults) == 4
    with pytest.raises(SettingsError) as caught:
        loaded.require_valid()
    assert all(fault in str(caught.value) for fault in loaded.faults)


def test_a_missing_setting_is_named() -> None:
    assert list_faults({"name": "default", "region": "us-east-1"}).count("is required") == 3


def test_two_syncs_with_one_joget_organization_or_one_name_are_faults() -> None:
    assert (
        list_faults(sync(), sync(name="other")).count("the same joget_conn_id and organization")
        == 2
    )
    assert parse(sync(), sync(name="other")).syncs == ()
    assert list_faults(sync(), sync(organization="ORG-2")).count("the same name") == 2
    assert list_faults(sync(), sync(name="other", joget_conn_id="another")) == ""


def test_two_syncs_with_one_queue_are_faults() -> None:
    events = {"queue_url": "https://sqs.us-east-1.amazonaws.com/111122223333/events"}
    two = sync(events=events), sync(name="other", organization="ORG-2", events=events)
    assert list_faults(*two).count("the same events.queue_url") == 2


@pytest.mark.parametrize("percent", [0, 100, 2.5])
def test_limits_at_their_edges_are_valid(percent: float) -> None:
    assert parse(sync(limits={"removed_users_percent": percent, "floor": 0})).faults == ()


@pytest.mark.parametrize("content", [None, [], {"syncs": []}, {"syncs": {}}, "text", {}])
def test_a_file_without_syncs_says_what_it_must_hold(content: Any) -> None:
    assert settings.parse_settings(content)[1] == (
        "the file must hold a list `syncs` with at least one sync",
    )


def test_files_that_cannot_be_read_are_faults(tmp_path: Path) -> None:
    path = tmp_path / "syncs.yaml"
    assert "does not exist" in settings.load_settings(path).faults[0]
    path.write_text("syncs:\n  - name: a\n    name: b\n", encoding="utf-8")
    assert "key 'name' is given twice (line 3)" in settings.load_settings(path).faults[0]
    path.write_text("syncs: [", encoding="utf-8")
    assert "no YAML" in settings.load_settings(path).faults[0]
    path.write_bytes(b"\xff\xfe\xff")
    assert "can't be read" in settings.load_settings(path).faults[0]


def test_only_mapped_attributes_are_read_from_the_pool() -> None:
    assert settings.Mapping().attributes == (
        "email",
        "family_name",
        "given_name",
        "locale",
        "zoneinfo",
    )
    few = settings.Mapping(
        username="preferred_username_or_email",
        first_name="sub",
        last_name=None,
        email=None,
        time_zone=None,
        locale=None,
    )
    assert few.attributes == ("email", "preferred_username")
    assert (
        settings.Mapping(username="cognito_username", last_name="custom:last").attributes[0]
        == "custom:last"
    )


def test_a_default_of_a_column_that_is_left_to_joget_is_a_fault() -> None:
    with pytest.raises(ValueError, match="locale_default has no effect without locale"):
        settings.Mapping(locale=None, locale_default="en_US")
