"""A company of any size: its people and groups, as Cognito lists them and as Joget holds them."""

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa

from directory_sync.cognito import snapshot
from directory_sync.settings import Sync

FIRST = (
    "Ana",
    "Bo",
    "Chen",
    "Dilip",
    "Élodie",
    "Fatima",
    "Goran",
    "Hana",
    "Ivo",
    "Jürgen",
    "Kofi",
    "Lúcia",
)
LAST = (
    "Almeida",
    "Bauer",
    "Costa",
    "Dvořák",
    "Eriksson",
    "Fischer",
    "García",
    "Horváth",
    "Ito",
    "Jensen",
    "Kim",
)
MEMBERSHIPS_EACH = 2
GROUPS = {10_000: 200, 100_000: 500, 1_000_000: 1_000}
"""How many groups a company has, by its users."""

ATTRIBUTES = ("email", "family_name", "given_name", "locale", "zoneinfo")
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Company:
    """`people` users, each in two groups; `changed` of every hundred have another family name."""

    people: int
    changed: int = 0

    @property
    def groups(self) -> list[str]:
        """Names of groups, which Joget takes as ids."""
        return [
            f"group-{number:04}"
            for number in range(GROUPS.get(self.people, max(self.people // 100, 1)))
        ]

    def subs(self) -> list[str]:
        """A UUID for each user, the same every time."""
        raw = np.random.default_rng(7).bytes(16 * self.people).hex()
        cuts = (0, 8, 12, 16, 20, 32)
        return [
            "-".join(raw[at + start : at + end] for start, end in itertools.pairwise(cuts))
            for at in range(0, len(raw), 32)
        ]

    def users(self) -> pd.DataFrame:
        """Columns id, firstName, lastName, email, active, timeZone, locale: Joget's rows, in the
        order of `subs`.
        """
        numbers = range(self.people)
        first = [FIRST[number % len(FIRST)] for number in numbers]
        last = [LAST[number % len(LAST)] for number in numbers]
        logins = [f"user{number * 7919 % self.people:07}@example.org" for number in numbers]
        names = [
            name + "-Neu" if number % 100 < self.changed else name
            for number, name in enumerate(last)
        ]
        frame = {"id": logins, "firstName": first, "lastName": names, "email": logins}
        return pd.DataFrame(frame).assign(active=1, timeZone="Europe/Lisbon", locale="pt_PT")

    def member_numbers(self) -> list[tuple[int, int]]:
        """Pairs of a user's number and a group's number; everybody's two groups differ."""
        groups = len(self.groups)
        first = ((number, number % groups) for number in range(self.people))
        second = (
            (number, (number % groups + 1 + number // groups % (groups - 1)) % groups)
            for number in range(self.people)
        )
        return [*first, *second]

    def memberships(self) -> pd.DataFrame:
        """Columns groupId, userId."""
        logins, groups = self.users()["id"].tolist(), self.groups
        pairs = self.member_numbers()
        return pd.DataFrame(
            {
                "groupId": [groups[group] for _, group in pairs],
                "userId": [logins[user] for user, _ in pairs],
            }
        )

    def group_rows(self) -> pd.DataFrame:
        """Columns id, name."""
        return pd.DataFrame({"id": self.groups, "name": self.groups})

    def snapshot(self, sync: Sync) -> dict[str, pa.Table]:
        """The tables that the extract tasks leave, by file name."""
        users, subs = self.users(), self.subs()
        listed = pd.DataFrame(
            {
                "sub": subs,
                "cognito_username": subs,
                "status": "CONFIRMED",
                "enabled": True,
                "created_at": AT,
                "modified_at": AT,
                "unreadable": None,
                "attribute.email": users["email"],
                "attribute.family_name": users["lastName"],
                "attribute.given_name": users["firstName"],
                "attribute.locale": "pt-PT",
                "attribute.zoneinfo": users["timeZone"],
            }
        )
        groups = pd.DataFrame(
            {"group_name": self.groups, "created_at": AT, "modified_at": AT, "listed_twice": False}
        )
        pairs, names = self.member_numbers(), self.groups
        members = pd.DataFrame(
            {
                "group_name": [names[group] for _, group in pairs],
                "sub": [subs[user] for user, _ in pairs],
            }
        )
        schema = snapshot.make_users_schema(sync.mapping.attributes)
        empty = snapshot.MEMBERSHIPS_SCHEMA.empty_table()
        return {
            "users.parquet": pa.Table.from_pandas(listed, schema=schema, preserve_index=False),
            "groups.parquet": pa.Table.from_pandas(
                groups, schema=snapshot.GROUPS_SCHEMA, preserve_index=False
            ),
            "memberships.parquet": pa.Table.from_pandas(
                members, schema=snapshot.MEMBERSHIPS_SCHEMA, preserve_index=False
            ),
            "memberships_again.parquet": empty,
        }
