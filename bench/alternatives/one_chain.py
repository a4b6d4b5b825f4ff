"""Extraction as a first script does it: one client, one page after the other, nothing parallel."""

import argparse
from collections.abc import Iterator
from typing import Any

import boto3
from botocore.config import Config

from bench.alternatives.measure import Clock


def main() -> None:
    """List users, groups and each group's users until the end or the time given, and say how far it
    came.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--endpoint", required=True, help="URL that stands in for Cognito's")
    parser.add_argument("--pool", required=True, help="the user pool's id")
    parser.add_argument(
        "--stop-after",
        type=float,
        required=True,
        help="seconds after which no more page is asked for",
    )
    asked = parser.parse_args()
    clock = Clock()
    chain = Chain(asked.endpoint, asked.pool, asked.stop_after, clock)
    finished = chain.extract()
    clock.report(
        calls=chain.calls,
        users=len(chain.users),
        memberships=len(chain.memberships),
        finished=finished,
    )


class OutOfTimeError(Exception):
    """The time given has passed."""


class Chain:
    """Rows and calls so far."""

    def __init__(self, endpoint: str, pool: str, stop_after: float, clock: Clock) -> None:
        self.users: list[dict[str, Any]] = []
        self.memberships: list[tuple[str, str]] = []
        self.calls = 0
        self._pool = pool
        self._stop_after = stop_after
        self._clock = clock
        self._client = boto3.client(
            "cognito-idp",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="dummy",
            aws_secret_access_key="dummy",
            config=Config(retries={"mode": "standard"}),
        )

    def extract(self) -> bool:
        """Whether it came to the end."""
        try:
            for page in self._pages("list_users"):
                self.users.extend(_user(user) for user in page["Users"])
            groups = [
                group["GroupName"]
                for page in self._pages("list_groups")
                for group in page["Groups"]
            ]
            for group in groups:
                for page in self._pages("list_users_in_group", GroupName=group):
                    self.memberships.extend((group, user["Username"]) for user in page["Users"])
        except OutOfTimeError:
            return False
        return True

    def _pages(self, operation: str, **asked: str) -> Iterator[dict[str, Any]]:
        paginator = self._client.get_paginator(operation)
        pages = iter(
            paginator.paginate(UserPoolId=self._pool, PaginationConfig={"PageSize": 60}, **asked)
        )
        while True:
            if self._clock.seconds() > self._stop_after:
                raise OutOfTimeError
            page = next(pages, None)
            if page is None:
                return
            self.calls += 1
            yield page


def _user(user: dict[str, Any]) -> dict[str, Any]:
    attributes = {pair["Name"]: pair["Value"] for pair in user["Attributes"]}
    return {"username": user["Username"], "enabled": user["Enabled"], **attributes}


if __name__ == "__main__":
    main()
