"""What happens when Cognito's answers are cut, late, or don't come."""

import json
import os

import pytest

from directory_sync.cognito import client
from directory_sync.errors import TransientError
from tests.company import Company, people
from tests.conftest import make_aws_uri
from tests.directory_sync.tasks.test_wrong_input import refused


def test_an_answer_that_is_cut_is_asked_for_again_within_the_call(company: Company) -> None:
    company.pool.users = people(3)
    company.faults.cut_answers = 2
    report = company.run()
    assert (report["users"]["created"], report["complete"]) == (3, True)


def test_answers_that_are_always_cut_are_transient(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS_OF_A_CALL", 2)
    company.pool.users = people(3)
    company.faults.cut_answers = 10**6
    said = refused(company, TransientError)
    # The second call may meet the connection that the first answer's cut has closed.
    assert (
        "has no UserPool, so it can't be Cognito's, or was cut" in said
        or "can't be reached" in said
    )
    assert company.cognito.calls.total() == 2
    company.faults.cut_answers = 0
    assert company.run()["users"]["created"] == 3


def test_answers_that_come_too_late_are_transient(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS_OF_A_CALL", 2)
    patient = os.environ["AIRFLOW_CONN_COGNITO_AWS"]
    connection = json.loads(patient)
    connection["extra"]["config_kwargs"] = {"read_timeout": 0.2}
    company.pool.users = people(3)
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_COGNITO_AWS", json.dumps(connection))
        company.faults.latency = 1
        assert "ReadTimeoutError" in refused(company, TransientError)
    company.faults.latency = 0
    assert company.run()["users"]["created"] == 3


def test_a_name_of_cognitos_that_does_not_resolve_is_transient(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS_OF_A_CALL", 1)
    monkeypatch.setenv("AIRFLOW_CONN_COGNITO_AWS", make_aws_uri("http://cognito.invalid"))
    assert "Does this worker resolve and reach" in refused(company, TransientError)


def test_a_page_that_is_not_cognitos_is_not_the_end_of_the_list(company: Company) -> None:
    company.pool.users = people(3)
    company.faults.foreign_answers = True
    assert "has no UserPool" in refused(company, TransientError)
