"""A Joget directory as the Joget plugin (AWS Cognito Users Sync Tool 8.0.0) fills it."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.conftest import JogetDatabase
from tests.stand_in import sub_of

ORGANIZATION = "ORG-001"


@dataclass
class PluginDirectory:
    """The rows that the plugin makes. It deletes the organization's users and groups, and makes
    them anew.
    """

    joget: JogetDatabase
    made: list[str] = field(default_factory=list)
    """Ids of the users that it made last."""

    def sync(self, users: Sequence[Any], members: Mapping[str, Sequence[Any]]) -> None:
        """Write what one run of the plugin leaves: for a user in k groups, k employments and the
        first membership; for all users without an email, one user with an empty id.
        """
        self.empty()
        groups_of: dict[str, list[str]] = {}
        for group, inside in members.items():
            for user in inside:
                groups_of.setdefault(sub_of(user), []).append(group)
        by_id = {_read(user, "email"): user for user in users}
        self.made = list(by_id)
        employments, memberships = [], []
        for user_id, user in by_id.items():
            groups = groups_of.get(sub_of(user), [])
            employments += [
                (str(uuid.uuid4()), user_id, ORGANIZATION) for _ in range(max(len(groups), 1))
            ]
            memberships += [(group, user_id) for group in groups[:1]]
        rows = [
            (
                user_id,
                user_id,
                _read(user, "given_name"),
                _read(user, "family_name"),
                user_id,
                int(user["Enabled"]),
            )
            for user_id, user in by_id.items()
        ]
        self._insert(
            "dir_group (id, name, organizationId)", [(name, name, ORGANIZATION) for name in members]
        )
        names = "dir_user (id, username, firstName, lastName, email, active, timeZone)"
        self._insert(names, [(*row, "0") for row in rows])
        self._insert(
            "dir_user_role (roleId, userId)", [("ROLE_USER", user_id) for user_id in by_id]
        )
        self._insert("dir_employment (id, userId, organizationId)", employments)
        self._insert("dir_user_group (groupId, userId)", memberships)

    def empty(self) -> None:
        """Delete what the plugin deletes first; a throttled call then ends its run."""
        groups = "SELECT id FROM dir_group WHERE organizationId = 'ORG-001'"
        self.joget.execute(f"DELETE FROM dir_user_group WHERE groupId IN ({groups})")
        self.joget.execute("DELETE FROM dir_group WHERE organizationId = 'ORG-001'")
        if self.made:
            marks = f"({', '.join(['%s'] * len(self.made))})"
            of_made = f"SELECT id FROM dir_employment WHERE userId IN {marks}"
            for statement in (
                f"UPDATE dir_department SET hod = NULL WHERE hod IN ({of_made})",
                f"DELETE FROM dir_employment_report_to WHERE employmentId IN ({of_made})",
                f"DELETE FROM dir_employment WHERE userId IN {marks}",
                f"DELETE FROM dir_user_group WHERE userId IN {marks}",
                f"DELETE FROM dir_user_role WHERE userId IN {marks}",
                f"DELETE FROM dir_user WHERE id IN {marks}",
            ):
                self.joget.execute(statement, tuple(self.made))

    def _insert(self, names: str, rows: Iterable[tuple[Any, ...]]) -> None:
        rows = list(rows)
        if not rows:
            return
        connection = self.joget.server.connect(self.joget.name)
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {names} VALUES ({', '.join(['%s'] * len(rows[0]))})", rows
            )
        connection.close()


def _read(user: Any, attribute: str) -> str:
    return next(
        (str(pair["Value"]) for pair in user["Attributes"] if pair["Name"] == attribute), ""
    )
