"""moto's server as AWS, with the pool that the Joget plugin's documentation sets up."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from demo.processes import free_port, listens, server

REGION = "us-east-1"
BUCKET = "directory-sync-staging"
POOL_NAME = "joget-demo"

USERS = {
    "demo.user1@example.com": {"given_name": "Demo", "family_name": "User 1"},
    "demo.user2@example.com": {"given_name": "Demo", "family_name": "User 2"},
}
GROUP = "JogetGroup1"
MEMBERS = ("demo.user1@example.com",)


@dataclass(frozen=True)
class Aws:
    """The endpoint of moto."""

    endpoint: str

    def client(self, service: str) -> Any:
        """A boto3 client of a service of moto's."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="demo-access-key",
            aws_secret_access_key="demo-secret-key",
        )

    def seed(self) -> str:
        """Create the documented pool and the staging bucket, unless they are there; gives the
        pool's id.
        """
        cognito = self.client("cognito-idp")
        self.client("s3").create_bucket(Bucket=BUCKET)
        for pool in cognito.list_user_pools(MaxResults=60)["UserPools"]:
            if pool["Name"] == POOL_NAME:
                return str(pool["Id"])
        pool_id = cognito.create_user_pool(PoolName=POOL_NAME, UsernameAttributes=["email"])[
            "UserPool"
        ]["Id"]
        for email, names in USERS.items():
            attributes = [
                {"Name": name, "Value": value} for name, value in {"email": email, **names}.items()
            ]
            cognito.admin_create_user(UserPoolId=pool_id, Username=email, UserAttributes=attributes)
        cognito.create_group(UserPoolId=pool_id, GroupName=GROUP)
        for email in MEMBERS:
            cognito.admin_add_user_to_group(UserPoolId=pool_id, GroupName=GROUP, Username=email)
        return str(pool_id)

    def rename(self, pool_id: str, email: str, family_name: str) -> None:
        """Give a user another family name."""
        self.client("cognito-idp").admin_update_user_attributes(
            UserPoolId=pool_id,
            Username=email,
            UserAttributes=[{"Name": "family_name", "Value": family_name}],
        )


@contextmanager
def aws(folder: Path) -> Iterator[Aws]:
    """The server of moto for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    # The pool's id then follows from its name, so that settings can be written before the pool is
    # made.
    environment = {**os.environ, "MOTO_COGNITO_IDP_USER_POOL_ID_STRATEGY": "HASH"}
    with server(
        "moto",
        command,
        log=folder / "moto.log",
        ready=lambda: listens(port),
        environment=environment,
    ):
        yield Aws(f"http://127.0.0.1:{port}")
