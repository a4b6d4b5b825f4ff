"""docs/iam-policy.json and its siblings: their rights are enough, each right is needed, and the
error names a missing one.

moto enforces the policy on S3, and the stand-in for Cognito enforces it on a pool, where moto
doesn't.
"""

import copy
import json
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from demo.aws import REGION, Aws, aws
from directory_sync.errors import PermanentError
from directory_sync.staging import store
from directory_sync.staging.store_errors import store_errors
from tests.company import Company
from tests.conftest import ROOT
from tests.stand_in import SESSION_NAME, user

DOCS = ROOT / "docs"
BUCKET = "directory-sync-staging"


def read_policy(name: str = "iam-policy.json") -> dict[str, Any]:
    policy: dict[str, Any] = json.loads((DOCS / name).read_text(encoding="utf-8"))
    return policy


def list_actions(policy: dict[str, Any]) -> list[str]:
    found = [statement["Action"] for statement in policy["Statement"]]
    return [action for one in found for action in ([one] if isinstance(one, str) else one)]


def list_actions_of_full_runs() -> list[str]:
    """The actions on the pool that a run for everybody needs."""
    found = [action for action in list_actions(read_policy()) if action.startswith("cognito-idp:")]
    found.remove("cognito-idp:AdminListGroupsForUser")  # only a run after an event needs it
    return found


def remove_action(policy: dict[str, Any], action: str) -> dict[str, Any]:
    """The policy without one action."""
    left = copy.deepcopy(policy)
    for statement in left["Statement"]:
        listed = (
            [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        )
        statement["Action"] = [one for one in listed if one != action] or ["s3:ListAllMyBuckets"]
    return left


@dataclass
class Account:
    """An AWS account that enforces IAM, with one user for the sync."""

    server: Aws
    iam: Any
    """A client of an administrator."""
    keys: dict[str, str]
    """The access key of the sync's user."""

    def allow(self, policy: dict[str, Any]) -> None:
        """Give the sync's user only this policy."""
        self.iam.put_user_policy(
            UserName="sync", PolicyName="sync", PolicyDocument=json.dumps(policy)
        )

    @property
    def connection(self) -> str:
        """The sync's user as an Airflow Connection."""
        extra = {"endpoint_url": self.server.endpoint, "region_name": REGION}
        keys = {"login": self.keys["AccessKeyId"], "password": self.keys["SecretAccessKey"]}
        return json.dumps({"conn_type": "aws", **keys, "extra": extra})


@pytest.fixture(scope="module")
def iam(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with aws(tmp_path_factory.mktemp("iam")) as server:
        server.client("s3").create_bucket(Bucket=BUCKET)
        free = server.client("iam")
        keys = {}
        for name in ("administrator", "sync"):
            free.create_user(UserName=name)
            keys[name] = free.create_access_key(UserName=name)["AccessKey"]
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        free.put_user_policy(UserName="administrator", PolicyName="all", PolicyDocument=policy)
        enforce = urllib.request.Request(f"{server.endpoint}/moto-api/reset-auth", data=b"0")
        enforce.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(enforce, timeout=30).close()
        administrator = boto3.client(
            "iam",
            endpoint_url=server.endpoint,
            region_name=REGION,
            aws_access_key_id=keys["administrator"]["AccessKeyId"],
            aws_secret_access_key=keys["administrator"]["SecretAccessKey"],
        )
        yield Account(server, administrator, keys["sync"])


@pytest.fixture
def staged(company: Company, iam: Account, monkeypatch: pytest.MonkeyPatch) -> Company:
    """A company with staging in the account's bucket, through a Connection of its own."""
    # Airflow keeps the store of a Connection for the life of a process, so no other test has this
    # Connection.
    monkeypatch.setenv("AIRFLOW_CONN_GUARDED_STORE", iam.connection)
    company.configure(staging_url=f"s3://guarded_store@{BUCKET}/staging")
    company.pool.users = [user("ana@example.org")]
    company.pool.members = {"Sales": company.pool.users}
    company.faults.allowed = frozenset(list_actions(read_policy()))
    iam.allow(read_policy())
    return company


def test_the_policy_is_enough_for_runs_and_each_action_on_s3_is_needed_and_named(
    staged: Company, iam: Account
) -> None:
    assert staged.run()["outcome"] == "applied"
    assert staged.last is not None
    manifest, url = staged.last, staged.last.url
    before = staged.joget.contents()
    denials: dict[str, Callable[[], Any]] = {
        "s3:PutObject": staged.run,
        "s3:GetObject": lambda: store.read_manifest(url),
        "s3:ListBucket": lambda: store.list_names(url),
        "s3:DeleteObject": lambda: store.delete_files([f"{url}/report.json"]),
    }
    assert {action for action in list_actions(read_policy()) if action.startswith("s3:")} == set(
        denials
    )
    for action, operation in denials.items():
        iam.allow(remove_action(read_policy(), action))
        with pytest.raises(PermanentError, match=action) as caught:
            operation()
        assert f"Staging at s3://guarded_store@{BUCKET}/staging/" in str(caught.value)
        assert "Give the Connection in staging_url" in str(caught.value)
    assert staged.joget.contents() == before
    iam.allow(read_policy())
    store.delete_files([f"{url}/report.json"])
    assert "report.json" not in store.list_names(manifest.url)


def test_the_api_servers_policy_lets_it_read_and_not_write(staged: Company, iam: Account) -> None:
    staged.run()
    assert staged.last is not None
    iam.allow(read_policy("iam-policy-api-server.json"))
    manifest = store.read_manifest(staged.last.url)
    assert store.read_json(manifest, "report.json")["outcome"] == "applied"
    with pytest.raises(PermanentError, match="s3:DeleteObject"):
        store.delete_files([f"{manifest.url}/report.json"])


@pytest.mark.parametrize("action", list_actions_of_full_runs())
def test_each_action_on_the_pool_is_needed_and_named(company: Company, action: str) -> None:
    company.pool.users = [user("ana@example.org")]
    company.pool.members = {"Sales": company.pool.users}
    company.faults.allowed = frozenset(list_actions(remove_action(read_policy(), action)))
    before = company.joget.contents()
    with pytest.raises(PermanentError) as caught:
        company.run()
    text = str(caught.value)
    assert f"{action} on this pool's ARN (docs/iam-policy.json)" in text
    assert f"user pool {company.settings['user_pool_id']}" in text
    assert SESSION_NAME not in text
    assert company.joget.contents() == before


@pytest.mark.parametrize("action", list_actions(read_policy("iam-policy-kms.json")))
def test_a_missing_right_on_the_buckets_key_is_named_and_the_session_is_not(action: str) -> None:
    """AWS's error is imitated, since moto checks no rights on keys."""
    said = (
        f"User: arn:aws:sts::111122223333:assumed-role/sync/{SESSION_NAME} is not authorized to "
        f"perform: {action} on resource: arn:aws:kms:us-east-1:111122223333:key/1 because no "
        f"policy allows the {action} action"
    )
    cause = ClientError({"Error": {"Code": "AccessDenied", "Message": said}}, "PutObject")
    with pytest.raises(PermanentError) as caught, store_errors("s3://store@bucket/staging"):
        raise PermissionError(said) from cause
    assert str(caught.value) == (
        f"Staging at s3://store@bucket/staging refuses us {action}. Give the Connection in "
        "staging_url this right, as docs/iam-policy-kms.json does."
    )


def test_staging_in_a_bucket_that_encrypts_with_a_key_works(
    company: Company, moto: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, bucket = moto.client("s3"), "encrypted-by-default"
    s3.create_bucket(Bucket=bucket)
    key = moto.client("kms").create_key()["KeyMetadata"]["Arn"]
    rule = {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    }
    s3.put_bucket_encryption(Bucket=bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
    extra = {"endpoint_url": moto.endpoint, "region_name": REGION}
    connection = {
        "conn_type": "aws",
        "login": "access-key",
        "password": "secret-key",
        "extra": extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_ENCRYPTED", json.dumps(connection))
    company.configure(staging_url=f"s3://encrypted@{bucket}/staging")
    company.pool.users = [user("ana@example.org")]
    assert company.run()["outcome"] == "applied"
    stored = s3.list_objects_v2(Bucket=bucket)["Contents"]
    kinds = {
        s3.head_object(Bucket=bucket, Key=one["Key"])["ServerSideEncryption"] for one in stored
    }
    assert kinds == {"aws:kms"}
