"""`directory-sync explain`: the tab's answer in the terminal, over real runs and a real database of
Airflow's.
"""

import json
from typing import Any

import pytest
from airflow.utils.db import initdb
from typer.testing import CliRunner, Result

from directory_sync.__main__ import app
from directory_sync.pages import published_files
from tests.company import Company, people
from tests.directory_sync.pages.test_airflow_runs import SYNC, add_run, forget_runs
from tests.stand_in import sub_of, user

ANA, BOB = "ana@example.org", "bob@example.org"


def explain(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "120"}).invoke(app, ["explain", *arguments])


@pytest.fixture(scope="module", autouse=True)
def tables() -> None:
    initdb()


@pytest.fixture
def known(company: Company, tables: None) -> Company:
    """Ana and bob in a group, and then ana alone with another name; Airflow knows both runs."""
    forget_runs()
    published_files._make_published_run.cache_clear()
    company.pool.users = [user(ANA, given_name="Ana", family_name="Almeida"), user(BOB)]
    company.pool.members = {"Sales": [user(ANA)]}
    run(company, 1)
    company.pool.users[0] = user(ANA, given_name="Ana", family_name="Azevedo")
    run(company, 2)
    return company


def run(company: Company, hour: int) -> None:
    company.run()
    assert company.last
    add_run(SYNC, hour, **company.last.reference)


def test_a_user_is_explained_as_text_and_as_json_and_nobody_in_the_pages_own_words(
    known: Company,
) -> None:
    answer = explain(ANA.upper())
    assert answer.exit_code == 0, answer.output
    text = " ".join(answer.stdout.split())
    assert sub_of(known.pool.users[0]) in text
    assert "Nothing holds this user back: Joget has them as the pool says." in text
    assert "status CONFIRMED, enabled" in text
    assert "In scope: yes." in text
    assert "last name │ family_name │ Azevedo" in text
    assert f"Linked: to Joget user {ANA}, since" in text
    assert "Sales │ Sales │ add on" in text
    assert "user update: changed in the pool last name: Almeida → Azevedo" in text

    answer = explain(str(sub_of(known.pool.users[0])), "--json")
    assert answer.exit_code == 0, answer.output
    found: dict[str, Any] = json.loads(answer.stdout)
    assert found["runs_searched"] == 2
    explained = found["explained"]
    assert (explained["joget_id"], explained["outcome"]) == (ANA, "updated")
    assert [event["changes"][0]["action"] for event in explained["events"]] == ["update", "create"]
    nobody = explain("nobody@example.org")
    assert nobody.exit_code == 1
    assert nobody.stdout.startswith("Nobody with exactly that login, email or sub is in the newest")
    assert json.loads(explain("nobody@example.org", "--json").stdout)["explained"] is None


def test_what_holds_a_user_back_which_users_fit_and_odd_names_are_printed_as_they_are(
    known: Company,
) -> None:
    twins = [user("twin@example.org", sub=f"{number}" * 8) for number in (1, 2)]
    known.pool.users = [
        user(ANA, given_name="[red]Ana[/red]", family_name="Azevedo"),
        user("bob, the second@example.org", sub=sub_of(user(BOB))),
        *twins,
    ]
    run(known, 3)
    assert "first name: Ana → [red]Ana[/red]" in explain(ANA).stdout
    text = explain(BOB).stdout
    assert "What holds this user back now" in text
    assert "in quarantine: the login has a comma or semicolon" in text
    assert "In scope: can't be mapped" in text
    answer = explain("twin@example.org")
    assert answer.exit_code == 1
    assert "Several users fit; ask again with the sub of one:" in answer.stdout
    assert {sub_of(one) for one in twins} <= set(answer.stdout.split())
    assert explain(str(sub_of(twins[1]))).exit_code == 0


def test_before_the_first_run_it_says_what_to_do(company: Company) -> None:
    forget_runs()
    company.pool.users = people(1)
    answer = explain(ANA)
    assert answer.exit_code == 1
    assert "Run it once." in answer.stdout
    assert "holds no sync named 'nobody'" in explain(ANA, "--sync", "nobody").stderr
    assert "longer than 200 characters" in explain("a" * 201).stderr
