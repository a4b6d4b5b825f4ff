"""The snapshot of a pool, and the manifest that vouches for every set of staged files."""

import re
from typing import Annotated, Any

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

STAGED_FORMAT = 1
"""The format of what this release writes into staging. Manifests without one are of format 1. A new
field or file that an earlier release would stumble over, or leave out, needs the next number.
"""

TIMESTAMP = pa.timestamp("us", tz="UTC")

GROUPS = pa.schema(
    [("group_name", pa.string()), ("created_at", TIMESTAMP), ("modified_at", TIMESTAMP), ("listed_twice", pa.bool_())]
)
"""groups.parquet; listed_twice: the members were asked for again, since somebody known in Joget was missing."""

MEMBERSHIPS = pa.schema([("group_name", pa.string()), ("sub", pa.string())])

ABSENT = pa.schema([("entity", pa.string()), ("key", pa.string())])
"""absent.parquet: users (by sub) and groups (by name) that Joget knows and no list has, that the
pool was asked for by name, and that it doesn't have.
"""

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def users_schema(attributes: tuple[str, ...]) -> pa.Schema:
    """users.parquet: a row for each listed user, with the attributes that the mapping names and no others.

    `unreadable` names the first value that is no Unicode text (half a surrogate pair, which JSON can carry);
    such values are staged as null.
    """
    own = [
        ("sub", pa.string()),
        ("cognito_username", pa.string()),
        ("status", pa.string()),
        ("enabled", pa.bool_()),
        ("created_at", TIMESTAMP),
        ("modified_at", TIMESTAMP),
        ("unreadable", pa.string()),
    ]
    return pa.schema(own + [(f"attribute.{name}", pa.string()) for name in attributes])


def user_row(user: dict[str, Any], attributes: tuple[str, ...]) -> dict[str, Any]:
    """One user as ListUsers gives it, as a row of users.parquet."""
    values = {pair["Name"]: pair.get("Value") for pair in user.get("Attributes") or ()}
    row = {"sub": values.get("sub"), "cognito_username": user.get("Username")}
    row |= {f"attribute.{name}": values.get(name) for name in attributes}
    unreadable = [name for name, value in row.items() if value and _LONE_SURROGATE.search(value)]
    row |= dict.fromkeys(unreadable)
    return row | {
        "status": user.get("UserStatus") or "UNKNOWN",
        "enabled": user.get("Enabled", True),
        "created_at": user.get("UserCreateDate"),
        "modified_at": user.get("UserLastModifiedDate"),
        "unreadable": unreadable[0].removeprefix("attribute.") if unreadable else None,
    }


def group_row(group: dict[str, Any]) -> dict[str, Any]:
    """One group as ListGroups gives it, as a row of groups.parquet."""
    return {
        "group_name": group["GroupName"],
        "created_at": group.get("CreationDate"),
        "modified_at": group.get("LastModifiedDate"),
        "listed_twice": False,
    }


def member_row(group_name: str, user: dict[str, Any]) -> dict[str, Any]:
    """One user as ListUsersInGroup gives it, as a row of memberships.parquet."""
    return {"group_name": group_name, "sub": sub_of(user)}


def sub_of(user: dict[str, Any]) -> str | None:
    """A listed user's sub."""
    return next((pair.get("Value") for pair in user.get("Attributes") or () if pair["Name"] == "sub"), None)


class StagedFile(BaseModel):
    """What the manifest says of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: Annotated[int, Field(ge=0)]
    sha256: str


class Manifest(BaseModel):
    """manifest.json: comes last into an attempt's folder; what it doesn't name doesn't exist."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    """The folder's own URL, without a slash at its end."""
    task: str
    run_id: str
    sync: str
    user_pool_id: str
    snapshot_at: AwareDatetime
    """When the listing of users began: the time of the whole snapshot."""
    seconds: float
    """How long the task took."""
    files: dict[str, StagedFile]
    counts: dict[str, int]
    complete: bool
    """Whether every listing behind these files ended by itself."""
    incomplete_reasons: tuple[str, ...] = ()
    inputs: dict[str, str] = {}
    """Manifests, by task, that these files were made from."""
    reused: str | None = None
    """The manifest of another run's same task whose files are this one's too, where it was not listed again."""
    needs: tuple[str, ...] = ()
    """Folders of other runs that stay as long as this one: the plans that an undo takes back, or
    that a review asks about.
    """
    format: int = 1
    """STAGED_FORMAT of the release that wrote it."""
    release: str = ""
    """The release that wrote it; empty before 0.1.0."""

    @property
    def reference(self) -> dict[str, Any]:
        """What goes through XCom: where the files are, and counts."""
        return {"manifest": self.url, **self.counts}
