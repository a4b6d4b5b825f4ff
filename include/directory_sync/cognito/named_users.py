"""Reading some users by name: who a sub, login, email or username stands for, and which groups
each of them is in.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from directory_sync.cognito.client import (
    FilterRefusedError,
    GroupGoneError,
    UserGoneError,
    UserPool,
)
from directory_sync.cognito.snapshot import get_sub
from directory_sync.cognito.user_listing import (
    Users,
    find_user,
    restart_on_dead_token,
    run_side_by_side,
)
from directory_sync.errors import PermanentError

FILTERABLE_ATTRIBUTES = frozenset(
    {
        "username",
        "email",
        "phone_number",
        "name",
        "given_name",
        "family_name",
        "preferred_username",
        "sub",
    }
)
"""Attributes that a filter of ListUsers takes (API reference, ListUsers, Filter)."""

ATTRIBUTES_OF_LOGIN_RULES = {
    "cognito_username": ("username",),
    "preferred_username_or_email": ("preferred_username", "email"),
}
"""The attributes behind those values of mapping.username that are no attribute themselves."""

ATTRIBUTES_THAT_NAME = ("email", "username", "preferred_username")
"""Where a name is looked for that a person typed."""

UNFILTERABLE_VALUE = re.compile(r'["\\\x00-\x1f\x7f]')
"""A quote within a filter's value would change the question."""

POSSIBLE_SUB = re.compile(r"[\w-]+", re.ASCII)


def list_login_attributes(login_rule: str) -> list[str]:
    """The attributes by which a pool can be asked for a login: one call each.

    login_rule: the setting mapping.username.
    """
    rule = ATTRIBUTES_OF_LOGIN_RULES.get(login_rule, (login_rule,))
    return [name for name in rule if name in FILTERABLE_ATTRIBUTES]


class NamedUsers:
    """Questions to a pool about users by name."""

    def __init__(self, pool: UserPool, login_rule: str) -> None:
        """login_rule: the setting mapping.username."""
        self._pool = pool
        self._login_attributes = list_login_attributes(login_rule)

    def find_by_sub(self, subs: Iterable[str]) -> Users:
        """The users with these subs that the pool has.

        Raises PermanentError where the pool can't be asked for them.
        """
        subs = list(dict.fromkeys(subs))
        answers = run_side_by_side(self._pool, lambda sub: find_user(self._pool, sub), subs)
        if None in answers:
            raise PermanentError(
                "The pool can't be asked for a user by sub (ListUsers with a filter), so some "
                "users can't be read alone. Run the sync for everybody."
            )
        return [user for found in answers for user in found or ()]

    def find_by_name(self, name: str) -> Users:
        """The users with this name as their sub, login, email, username or preferred username."""
        attributes = [*self._login_attributes, *ATTRIBUTES_THAT_NAME]
        if POSSIBLE_SUB.fullmatch(name):
            attributes.insert(0, "sub")
        return self._find(attributes, name)

    def find_by_usernames(self, cognito_usernames: Iterable[str]) -> Users:
        """The users with these Cognito usernames that the pool has."""
        return self._find(["username"], *cognito_usernames)

    def list_members(self, group_name: str) -> Users | None:
        """The members of a group; None where the pool has no such group."""
        try:
            return restart_on_dead_token(
                lambda: [user for page in self._pool.members(group_name) for user in page]
            )
        except GroupGoneError:
            return None

    def find_by_logins(self, logins: Iterable[str]) -> Users:
        """Users with these logins; none where Cognito has no filter for the login's attribute."""
        return self._find(self._login_attributes, *logins)

    def find_absent_groups(self, names: Iterable[str]) -> list[str]:
        """Which of these groups the pool doesn't have."""

        def is_absent(name: str) -> bool:
            try:
                self._pool.read_first_rows("ListUsersInGroup", 1, GroupName=name)
            except GroupGoneError:
                return True
            return False

        names = sorted(names)
        answers = run_side_by_side(self._pool, is_absent, names)
        return [name for name, absent in zip(names, answers, strict=True) if absent]

    def _find(self, attributes: list[str], *values: str) -> Users:
        """The users with one of these values in one of these attributes."""
        texts = [value for value in values if not UNFILTERABLE_VALUE.search(value)]
        # Nobody knows whether a filter ignores case, so the small letters are asked for as well.
        filters = dict.fromkeys(
            f'{name} = "{text}"'
            for value in texts
            for text in (value, value.lower())
            for name in attributes
        )
        answers = run_side_by_side(self._pool, self._list_filtered, filters)
        found = {get_sub(user) or "": user for users in answers for user in users}
        return [user for sub, user in found.items() if sub]

    def _list_filtered(self, wanted: str) -> Users:
        try:
            return restart_on_dead_token(
                lambda: [user for page in self._pool.users(wanted) for user in page]
            )
        except (
            FilterRefusedError
        ):  # such as preferred_username in a pool that has no such attribute
            return []

    def list_groups(
        self, usernames: Mapping[str, str], known: Mapping[str, set[str]], *, bears_gone: bool
    ) -> dict[str, list[dict[str, Any]]]:
        """Each user's groups, by sub. bears_gone: a user who was deleted meanwhile keeps the known
        groups; else UserGoneError is raised.

        usernames: Cognito usernames by sub. known: the names of the groups that Joget has of a
        user, by sub; where a list lacks one of them it is read a second time, and what either has
        counts (rule 10 of docs/design.md).
        """

        def list_one(sub: str) -> list[dict[str, Any]]:
            try:
                groups = self._list_groups_once(usernames[sub])
            except UserGoneError:
                if not bears_gone:
                    raise
                return [{"GroupName": name} for name in sorted(known.get(sub, set()))]
            if known.get(sub, set()) - groups.keys():
                groups |= self._list_groups_once(usernames[sub])
            return list(groups.values())

        subs = list(usernames)
        return dict(zip(subs, run_side_by_side(self._pool, list_one, subs), strict=True))

    def _list_groups_once(self, cognito_username: str) -> dict[str, dict[str, Any]]:
        found = restart_on_dead_token(
            lambda: [
                group for page in self._pool.groups_of_user(cognito_username) for group in page
            ]
        )
        return {group["GroupName"]: group for group in found}
