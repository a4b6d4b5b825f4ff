"""docs/joget-grants.sql: its rights are enough, each right is needed, and the error names a missing
one.
"""

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from demo.database import ACCOUNT, read_grants
from directory_sync.errors import PermanentError
from directory_sync.joget.ledger import definition
from directory_sync.tasks import detach, review
from tests.company import Company, causes, counts
from tests.conftest import ROOT
from tests.directory_sync.plan.test_matching import rename_user
from tests.directory_sync.tasks.test_history import forget_everything
from tests.stand_in import user

ANA, BOB, EVE, MAX = (f"{name}@example.org" for name in ("ana", "bob", "eve", "max"))
NEW = "ana.lima@example.org"
Right = tuple[str, str]
"""A privilege, and the table that it is granted on."""


def read_rights(*parts: int) -> set[Right]:
    """Read the single rights in parts of the file."""
    found = [
        re.fullmatch(r"GRANT (.+) ON jwdb\.(\S+) TO 'directory_sync'@'%'", text)
        for text in read_grants(*parts)
    ]
    return {(right, grant[2]) for grant in found if grant for right in grant[1].split(", ")}


CREATE = {(right, table) for right, table in read_rights(2) if right == "CREATE"}
ALTER = {
    ("ALTER", "directory_sync_run"),
    ("ALTER", "directory_sync_lock"),
    ("ALTER", "directory_sync_user_link"),
}
ASK = {("SELECT", "directory_sync_review"), ("INSERT", "directory_sync_review")}
ANSWER = {("UPDATE", "directory_sync_review")}
ACT_ON_ANSWER = {("INSERT", "directory_sync_decision"), ("DELETE", "directory_sync_decision")}
DETACH = {
    ("DELETE", "directory_sync_user_link"),
    ("DELETE", "directory_sync_group_link"),
    ("DELETE", "directory_sync_delay"),
    ("UPDATE", "directory_sync_run"),
}
FILL = {("INSERT", "directory_sync_lock")}
TIME = {("INSERT", "directory_sync_delay")}
FORGET_TIMES = {("DELETE", "directory_sync_delay")}
RUN = read_rights(1, 2) - CREATE - FILL - ALTER - ASK - ANSWER - ACT_ON_ANSWER - DETACH - TIME
RUN |= FORGET_TIMES
DELETE_AND_RENAME = read_rights(3)
LINK_INDEX = "SHOW INDEX FROM directory_sync_user_link WHERE Key_name = 'by_user_id'"


@pytest.fixture
def account(company: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Let the sync use an account that has the rights of these parts of the file, or of all."""

    def grant(*parts: int) -> None:
        company.joget.execute(f"DROP USER IF EXISTS {ACCOUNT}@'%'")
        company.joget.server.create_account(company.joget.name, *parts)
        monkeypatch.setenv(
            "AIRFLOW_CONN_JOGET_MYSQL", company.joget.server.account_uri(company.joget.name)
        )

    yield grant
    # The server is shared with other tests' files, which make an account of this name.
    company.joget.execute(f"DROP USER IF EXISTS {ACCOUNT}@'%'")


def expect_denials(company: Company, wanted: set[Right], operation: Callable[[], Any]) -> None:
    """Take each right away, check that the operation fails and changes nothing in Joget, and give
    the right back.
    """
    before = company.joget.contents()
    for right, table in sorted(wanted):
        named = f"{company.joget.name}.{table}"
        company.joget.execute(f"REVOKE {right} ON {named} FROM {ACCOUNT}@'%'")
        with pytest.raises(PermanentError) as caught:
            operation()
        sentence = str(caught.value).partition("\n")[0]
        assert f"the right {right} on {'its schema' if table == '*' else table} " in sentence
        assert "docs/joget-grants.sql" in sentence, "what to do"
        company.joget.execute(f"GRANT {right} ON {named} TO {ACCOUNT}@'%'")
    assert company.joget.contents() == before


def prepare_first_run(company: Company) -> Any:
    """Do a first run up to `load`: it creates and adopts users and groups. Eve has a local
    membership in an adopted group.
    """
    company.joget.add_user(EVE)
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (EVE,)
    )
    company.pool.users = [user(ANA), user(BOB), user(EVE)]
    company.pool.members = {"Sales": [user(ANA)], "Board": [user(BOB)]}
    return company.prepare()


def rename_ana(company: Company) -> None:
    company.pool.users = [rename_user(user(ANA), NEW), *company.pool.users[1:]]


def test_parts_one_and_two_are_enough_for_runs_and_reviews(
    company: Company, account: Callable[..., None]
) -> None:
    account(1, 2)
    report = company.load(prepare_first_run(company))
    assert (counts(report)["created"], counts(report)["adopted"]) == (2, 1)
    company.pool.users = [
        user(ANA, given_name="Other"),
        user(BOB, enabled=False),
        user(EVE),
        user(MAX),
    ]
    company.pool.members = {"Sales": [user(EVE)], "Board": [user(BOB)]}
    report = company.run()
    assert counts(report).items() >= {"created": 1, "updated": 1, "deactivated": 1}.items()
    assert counts(report, "memberships")["removed"] == 2
    company.pool.users = [user(ANA), user(BOB), user(EVE)]
    company.run()
    assert company.run()["users"]["deactivated"] == 1
    rename_ana(company)
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "reject")


def test_part_three_is_enough_for_deleting_renaming_and_undoing(
    company: Company, account: Callable[..., None]
) -> None:
    account()
    company.load(prepare_first_run(company))
    before = company.joget.contents()
    report = company.load(prepare_deletions_and_renames(company))
    assert counts(report).items() >= {"deleted": 1, "renamed": 1}.items()
    company.undo(report["run_id"])
    assert company.joget.contents() == before


def prepare_deletions_and_renames(company: Company) -> Any:
    company.configure(
        policies={
            "missing_user": "delete",
            "missing_group": "delete",
            "missing_runs": 1,
            "renamed_user": "rename",
        }
    )
    rename_ana(company)
    del company.pool.users[1]
    company.pool.members = {"Sales": [company.pool.users[0]]}
    return company.prepare()


def test_each_right_of_parts_one_and_two_is_needed_and_named_if_it_is_missing(
    company: Company, account: Callable[..., None]
) -> None:
    account(1, 2)
    prepared = prepare_first_run(company)

    def load_without_ledger() -> None:
        forget_everything(company.joget)
        company.load(prepared)

    expect_denials(company, CREATE, load_without_ledger)
    expect_denials(company, FILL, lambda: company.load(prepared))
    expect_denials(company, RUN, lambda: company.load(prepared))
    company.load(prepared)
    company.joget.execute(
        "ALTER TABLE directory_sync_lock DROP COLUMN version, DROP COLUMN written_by"
    )

    def load_over_old_ledger() -> None:
        company.joget.execute("ALTER TABLE directory_sync_run MODIFY counted TEXT NOT NULL")
        if company.joget.execute(LINK_INDEX):
            company.joget.execute("ALTER TABLE directory_sync_user_link DROP INDEX by_user_id")
        company.load(prepared)

    expect_denials(company, ALTER, load_over_old_ledger)
    company.load(prepared)


def test_the_right_to_time_changes_is_named_if_it_is_missing(
    company: Company, account: Callable[..., None]
) -> None:
    account(1, 2)
    company.load(prepare_first_run(company))
    company.pool.users[0] = user(ANA, enabled=False) | {"UserLastModifiedDate": time.time()}
    prepared = company.prepare()
    expect_denials(company, TIME, lambda: company.load(prepared))
    assert company.load(prepared)["users"]["deactivated"] == 1


def test_each_right_that_a_review_needs_is_named_if_it_is_missing(
    company: Company, account: Callable[..., None]
) -> None:
    account(1, 2)
    company.load(prepare_first_run(company))
    rename_ana(company)
    company.run()
    expect_denials(company, ASK, company.ask)
    review_id = company.ask()
    assert review_id
    expect_denials(
        company, ANSWER, lambda: review.note_answer("default", review_id, "reject", "Olga")
    )
    review.note_answer("default", review_id, "reject", "Olga")
    expect_denials(company, ACT_ON_ANSWER, lambda: company.load_held(review_id))


def test_each_right_that_detaching_needs_is_named_if_it_is_missing(
    company: Company, account: Callable[..., None]
) -> None:
    account(1, 2)
    company.load(prepare_first_run(company))
    expect_denials(company, DETACH, lambda: detach.detach_sync("default", is_applied=True))
    detach.detach_sync("default", is_applied=True)


def test_each_right_of_part_three_is_needed_and_named_if_it_is_missing(
    company: Company, account: Callable[..., None]
) -> None:
    account()
    company.load(prepare_first_run(company))
    prepared = prepare_deletions_and_renames(company)
    expect_denials(company, DELETE_AND_RENAME, lambda: company.load(prepared))
    assert company.load(prepared)["outcome"] == "applied"


def test_an_account_in_the_way_of_a_login_is_asked_about_with_three_rights_to_read(
    company: Company, account: Callable[..., None]
) -> None:
    account(1, 2)
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.add_user(NEW)
    rename_ana(company)
    assert causes(company.run()) == {"occupied_login": 1}
    for table in ("dir_user_meta", "dir_user_password_history", "dir_user_replacement"):
        company.joget.execute(f"GRANT SELECT ON {company.joget.name}.{table} TO {ACCOUNT}@'%'")
    assert causes(company.run()) == {"occupied_by_sso": 2}


def test_the_file_names_each_table_of_the_ledger() -> None:
    assert {table for _, table in CREATE} == set(definition.LEDGER_TABLES)


def test_the_readme_points_to_the_files_and_repeats_none_of_the_full_runs_rights() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("joget-grants.sql", "iam-policy.json", "iam-policy-api-server.json"):
        assert f"(docs/{name})" in readme
    assert "GRANT " not in readme
    assert "cognito-idp:List" not in readme
