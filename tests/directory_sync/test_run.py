"""A run's parameters, resolved against the settings."""

from typing import Any

import pytest

from directory_sync.errors import PermanentError
from directory_sync.run import Run, resolve_run
from directory_sync.settings import Sync
from tests.directory_sync.test_settings import sync

SYNC = Sync.model_validate(sync())
FORM: dict[str, Any] = {"dry_run": False, "user_pool_id": None, "organization": None, "users": []}


def resolve(**conf: Any) -> Run:
    return resolve_run("manual__2026-11-23T00:00:00+00:00", SYNC, {**FORM, **conf}, conf)


def test_without_parameters_a_run_is_what_the_settings_say() -> None:
    run = resolve()
    assert (run.dry_run, run.users, run.sync) == (False, (), SYNC)


def test_the_form_may_leave_users_empty_or_null() -> None:
    assert resolve(users=None).users == ()
    assert resolve(users=["a"]).users == ("a",)


def test_a_pool_or_organization_that_differs_makes_a_dry_run_and_the_same_one_does_not() -> None:
    assert resolve(organization="ORG-2").dry_run
    assert resolve(user_pool_id="us-east-1_Other").sync.user_pool_id == "us-east-1_Other"
    assert "user_pool_id" in str(resolve(user_pool_id="us-east-1_Other").dry_run_reason)
    assert not resolve(organization="ORG-001").dry_run


@pytest.mark.parametrize(
    "conf",
    [
        {"dryrun": True},
        {"dry_run": "yes"},
        {"users": "ana"},
        {"users": [""]},
        {"user_pool_id": "x"},
    ],
)
def test_unknown_and_ill_typed_parameters_are_refused_by_name(conf: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match=next(iter(conf))):
        resolve(**conf)


def test_a_runs_folder_encodes_what_a_path_would_not_keep() -> None:
    assert (
        resolve().folder == "default/us-east-1_Example1/manual__2026-11-23T00%3A00%3A00%2B00%3A00"
    )


def test_a_run_survives_its_json() -> None:
    run = resolve(users=["ana@example.org"], dry_run=True)
    assert Run.model_validate_json(run.model_dump_json()) == run
