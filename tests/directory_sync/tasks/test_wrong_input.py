"""Wrong settings, missing rights and unreachable servers end in one error, which says what
happened, to which thing, and what to do next.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo.processes import free_port
from directory_sync.cognito import snapshot
from directory_sync.errors import PermanentError, TransientError
from directory_sync.tasks import load
from tests.company import Company, attempt
from tests.stand_in import sub_of, user

READS = "SELECT ON {}.dir_role", "SELECT ON {}.dir_organization"
WRITES = tuple(
    f"SELECT, INSERT, UPDATE, DELETE ON {{}}.{table}"
    for table in ("dir_user", "dir_group", "dir_user_group", "dir_user_role", "dir_employment")
)
TEMPORARY = "CREATE TEMPORARY TABLES ON {}.*"
LEDGER = tuple(
    f"CREATE, SELECT, INSERT, UPDATE, DELETE ON {{}}.directory_sync_{table}"
    for table in (
        "lock",
        "user_link",
        "group_link",
        "local_membership",
        "retired_login",
        "decision",
        "review",
        "run",
        "delay",
    )
)


def refused(company: Company, kind: type[Exception] = PermanentError, **parameters: Any) -> str:
    """Run, expect an error of that family, and check that nothing was written to Joget."""
    before = company.joget.contents()
    with pytest.raises(kind) as caught:
        company.run(**parameters)
    assert company.joget.contents() == before
    return str(caught.value)


@pytest.fixture
def account(company: Company, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the sync use an account that has only these grants."""

    def grant(*grants: str) -> None:
        company.joget.execute("DROP USER IF EXISTS sync@'127.0.0.1'")
        company.joget.execute("CREATE USER sync@'127.0.0.1' IDENTIFIED BY 'pw'")
        for text in grants:
            company.joget.execute(f"GRANT {text.format(company.joget.name)} TO sync@'127.0.0.1'")
        monkeypatch.setenv(
            "AIRFLOW_CONN_JOGET_MYSQL", company.joget.server.uri(company.joget.name, "sync", "pw")
        )

    return grant


def test_an_unknown_organization_lists_those_that_exist(company: Company) -> None:
    company.configure(organization="ORG-9")
    text = refused(company)
    assert "setting or parameter organization" in text
    assert "ORG-001" in text
    assert company.cognito.calls.total() == 0, "the error comes before the pool is read"


def test_an_unknown_pool_names_pool_and_region(company: Company) -> None:
    company.configure(user_pool_id="us-east-1_Nowhere")
    text = refused(company)
    assert "us-east-1_Nowhere" in text
    assert "region us-east-1" in text


@pytest.mark.parametrize(
    ("variable", "name"),
    [("AIRFLOW_CONN_COGNITO_AWS", "cognito_aws"), ("AIRFLOW_CONN_JOGET_MYSQL", "joget_mysql")],
)
def test_a_connection_that_is_missing_or_of_another_type(
    company: Company, monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setenv(variable, "http://example.org")
    assert "has type 'http'" in refused(company)
    monkeypatch.delenv(variable)
    text = refused(company)
    assert f"Connection '{name}'" in text
    assert "doesn't exist" in text


def test_a_missing_staging_connection_is_reported_before_any_path_is_made(
    company: Company,
) -> None:
    company.configure(staging_url="s3://nowhere@bucket/prefix")
    assert "Connection 'nowhere' (setting staging_url) doesn't exist" in refused(company)


def test_staging_in_a_bucket_that_does_not_exist(
    company: Company, moto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_STORE",
        os.environ["AIRFLOW_CONN_COGNITO_AWS"].replace(company.cognito.endpoint, moto.endpoint),
    )
    company.configure(staging_url="s3://store@no-such-bucket/prefix")
    text = refused(company)
    assert "s3://store@no-such-bucket/prefix" in text
    assert "doesn't exist" in text


def test_an_operation_that_aws_refuses_names_the_right(company: Company) -> None:
    for operation in ("DescribeUserPool", "ListUsers", "ListGroups"):
        company.faults.denied = operation
        text = refused(company)
        assert f"cognito-idp:{operation}" in text
        assert "arn:aws" not in text, "AWS's own text stays out"


def test_throttling_and_server_errors_are_tried_again_within_the_call(company: Company) -> None:
    company.pool.users = [user("ana@example.org")]
    company.faults.throttled_calls = 2
    company.faults.broken_calls = 1
    assert company.run()["users"]["created"] == 1


def test_lasting_throttling_is_transient(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    company.faults.throttled_calls = 10**6
    assert "TooManyRequestsException" in refused(company, TransientError)


def test_a_repeated_token_is_transient(company: Company) -> None:
    company.pool.users = [user(f"u{number}@example.org") for number in range(300)]
    company.faults.repeated_token = True
    assert "repeated a token" in refused(company, TransientError)


def test_a_listing_begins_again_after_its_token_died(company: Company) -> None:
    company.pool.users = [user(f"u{number}@example.org") for number in range(300)]
    company.faults.dying_token = 3
    report = company.run()
    assert (report["users"]["created"], report["complete"]) == (300, True)


def test_tokens_that_always_die_are_transient(company: Company) -> None:
    company.pool.users = [user(f"u{number}@example.org") for number in range(300)]
    company.faults.token_seconds = 0
    assert "tokens died" in refused(company, TransientError)


def test_a_group_deleted_while_it_is_listed_is_not_listed(company: Company) -> None:
    ana = user("ana@example.org")
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": [ana]}
    company.run()
    company.faults.vanishing_group = "Sales"
    report = company.run()
    assert report["groups"]["missing"] == 1
    assert company.memberships() == {("ana@example.org", "Sales"), ("ana@example.org", "Board")}


def test_a_database_that_is_down_is_transient(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_JOGET_MYSQL", f"mysql://root:@127.0.0.1:{free_port()}/jwdb")
    assert "'joget_mysql'" in refused(company, TransientError)


def test_cognito_that_is_down_is_transient(
    company: Company, aws_connection: Callable[[str], None]
) -> None:
    aws_connection(f"http://127.0.0.1:{free_port()}")
    assert "can't be reached" in refused(company, TransientError)


def test_tables_that_are_not_jogets(company: Company) -> None:
    company.joget.execute("ALTER TABLE dir_user RENAME COLUMN timeZone TO zone")
    assert "dir_user.timeZone not found" in refused(company)


def test_a_database_without_role_user(company: Company) -> None:
    company.joget.execute("DELETE FROM dir_user_role")
    company.joget.execute("DELETE FROM dir_role")
    assert "ROLE_USER" in refused(company)


def test_an_account_that_may_not_create_tables_gets_the_ddl_for_the_dba(
    company: Company, account: Callable[..., None]
) -> None:
    company.pool.users = [user("ana@example.org")]
    account(*READS, *WRITES, TEMPORARY)
    text = refused(company)
    script = text.partition("once:\n")[2]
    for statement in script.split(";"):
        if statement.strip():
            company.joget.execute(statement)
    account(*READS, *WRITES, TEMPORARY, *LEDGER)
    assert company.run()["outcome"] == "applied"


def test_a_user_that_the_database_refuses_is_left_out_and_named_only_by_sub(
    company: Company, caplog: pytest.LogCaptureFixture
) -> None:
    people = [user(f"person{number}@example.org") for number in range(11)]
    secret = user("ana@example.org", given_name="Secret Name")
    company.pool.users, company.pool.members = [*people, secret], {"Sales": [secret, *people]}
    company.joget.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON dir_user FOR EACH ROW IF NEW.firstName = 'Secret "
        "Name' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no Secret Name, no "
        "ana@example.org'; END IF"
    )
    for created in (11, 0):
        report = company.run()
        assert (report["users"]["created"], report["users"]["deferred"]) == (created, 1)
        assert (report["memberships"]["added"], report["memberships"]["deferred"]) == (created, 1)
        assert company.ask() is None, "there is nothing to decide"
    assert "MySQL error 1644 on dir_user" in caplog.text
    assert sub_of(secret) in caplog.text
    assert "Secret" not in caplog.text
    assert "ana@" not in caplog.text
    company.joget.execute("DROP TRIGGER refuse")
    assert company.run()["users"]["created"] == 1, "each run tries again"


def test_a_database_that_refuses_every_row_fails_the_run_and_writes_nothing(
    company: Company,
) -> None:
    company.pool.users = [user(f"person{number}@example.org") for number in range(60)]
    company.joget.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON dir_user FOR EACH ROW SIGNAL SQLSTATE '45000' SET "
        "MESSAGE_TEXT = 'no'"
    )
    assert "more than 50 users or groups" in refused(company)
    assert company.usernames() == []


def test_a_change_by_a_trigger_is_noticed_and_rolled_back(company: Company) -> None:
    company.pool.users = [user("ana@example.org", given_name="Ana")]
    company.joget.execute(
        "CREATE TRIGGER shout BEFORE INSERT ON dir_user FOR EACH ROW SET NEW.firstName = 'ANA'"
    )
    assert "trigger" in refused(company)


def test_an_unforeseen_error_names_its_place_and_no_value(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("Secret Name")

    monkeypatch.setattr(snapshot, "make_user_row", broken)
    company.pool.users = [user("ana@example.org")]
    text = refused(company, TransientError)
    assert "ValueError at" in text
    assert "Secret" not in text


def test_unknown_and_ill_typed_parameters(company: Company) -> None:
    assert "Unknown parameter(s) dryrun" in refused(company, dryrun=True)
    assert "dry_run" in refused(company, dry_run="perhaps")
    assert "user_pool_id" in refused(company, user_pool_id="no pool")


def test_no_error_repeats_what_was_typed_into_the_form(company: Company) -> None:
    typed = "ana@example.org"
    wrong: list[dict[str, Any]] = [
        {"replay_run_id": typed},
        {"organization": typed},
        {"user_pool_id": typed},
        {"users": {"login": typed}},
        {"users": typed},
        {"dry_run": typed},
        {typed: True},
    ]
    for parameters in wrong:
        assert typed not in refused(company, **parameters)
    with pytest.raises(PermanentError) as refusal:
        company.undo(typed)
    assert "parameter run_id" in str(refusal.value)
    assert typed not in str(refusal.value)


def test_users_that_the_pool_does_not_have_are_named_by_their_place(company: Company) -> None:
    company.pool.users = [user("ana@example.org")]
    text = refused(company, users=["ana@example.org", "nobody@example.org"])
    assert "1 of the 2 users" in text
    assert "line 2: nobody in the pool or in Joget" in text
    assert "nobody@" not in text


def test_damaged_staging_is_noticed(company: Company) -> None:
    transformed = company.prepare()
    path = Path(transformed.url.removeprefix("file://")) / "desired_users.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(PermanentError, match=r"desired_users\.parquet"):
        company.load(transformed)


def test_the_error_about_deleted_staging_says_what_to_do(company: Company) -> None:
    with pytest.raises(PermanentError, match="clear the run from extract_users"):
        load.load_snapshot(
            attempt("load", "gone"), f"{company.settings['staging_url']}/default/gone"
        )
