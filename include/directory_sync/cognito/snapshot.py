"""The files of a pool's snapshot: their columns, and rows made from Cognito's answers."""

import re
from typing import Any

import pyarrow as pa

TIMESTAMP_TYPE = pa.timestamp("us", tz="UTC")

GROUPS_SCHEMA = pa.schema(
    [
        ("group_name", pa.string()),
        ("created_at", TIMESTAMP_TYPE),
        ("modified_at", TIMESTAMP_TYPE),
        ("listed_twice", pa.bool_()),
    ]
)
"""groups.parquet; listed_twice: the members were listed again, since the first list lacked a member
that Joget has.
"""

MEMBERSHIPS_SCHEMA = pa.schema([("group_name", pa.string()), ("sub", pa.string())])

ABSENT_SCHEMA = pa.schema([("entity", pa.string()), ("key", pa.string())])
"""absent.parquet: users (by sub) and groups (by name) that Joget knows and no list has. The pool
was asked for each by name, and has none of them.
"""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def make_users_schema(attributes: tuple[str, ...]) -> pa.Schema:
    """users.parquet: a row for each listed user, with the attributes that the mapping names and no
    others.

    `unreadable` names the first value that is no Unicode text; such values are staged as null.
    """
    own = [
        ("sub", pa.string()),
        ("cognito_username", pa.string()),
        ("status", pa.string()),
        ("enabled", pa.bool_()),
        ("created_at", TIMESTAMP_TYPE),
        ("modified_at", TIMESTAMP_TYPE),
        ("unreadable", pa.string()),
    ]
    return pa.schema(own + [(f"attribute.{name}", pa.string()) for name in attributes])


def make_user_row(user: dict[str, Any], attributes: tuple[str, ...]) -> dict[str, Any]:
    """One user as ListUsers gives it, as a row of users.parquet."""
    values = {pair["Name"]: pair.get("Value") for pair in user.get("Attributes") or ()}
    row = {"sub": values.get("sub"), "cognito_username": user.get("Username")}
    row |= {f"attribute.{name}": values.get(name) for name in attributes}
    unreadable = [name for name, value in row.items() if value and _LONE_SURROGATE.search(value)]
    # JSON can carry half a surrogate pair, which Parquet's UTF-8 can't.
    row |= dict.fromkeys(unreadable)
    return row | {
        "status": user.get("UserStatus") or "UNKNOWN",
        "enabled": user.get("Enabled", True),
        "created_at": user.get("UserCreateDate"),
        "modified_at": user.get("UserLastModifiedDate"),
        "unreadable": unreadable[0].removeprefix("attribute.") if unreadable else None,
    }


def make_group_row(group: dict[str, Any]) -> dict[str, Any]:
    """One group as ListGroups gives it, as a row of groups.parquet."""
    return {
        "group_name": group["GroupName"],
        "created_at": group.get("CreationDate"),
        "modified_at": group.get("LastModifiedDate"),
        "listed_twice": False,
    }


def make_membership_row(group_name: str, user: dict[str, Any]) -> dict[str, Any]:
    """One user as ListUsersInGroup gives it, as a row of memberships.parquet."""
    return {"group_name": group_name, "sub": get_sub(user)}


def get_sub(user: dict[str, Any]) -> str | None:
    """A listed user's sub."""
    return next(
        (pair.get("Value") for pair in user.get("Attributes") or () if pair["Name"] == "sub"), None
    )
