"""Joget as it is now, as planning sees it: the rows that a plan may touch, and what the ledger says of them."""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd
import pyarrow as pa

USERS = pa.schema(
    [
        ("id", pa.string()),
        ("username", pa.string()),
        ("firstName", pa.string()),
        ("lastName", pa.string()),
        ("email", pa.string()),
        ("active", pa.int64()),
        ("timeZone", pa.string()),
        ("locale", pa.string()),
        ("has_password", pa.bool_()),
        ("is_admin", pa.bool_()),
        ("has_role_user", pa.bool_()),
        ("has_employment", pa.bool_()),
        ("id_key", pa.string()),
        ("username_key", pa.string()),
    ]
)
"""Rows of dir_user that are linked, or have the id or username of a desired user."""

USER_LINKS = pa.schema(
    [
        ("sync", pa.string()),
        ("user_pool_id", pa.string()),
        ("sub", pa.string()),
        ("user_id", pa.string()),
        ("state", pa.string()),
        ("user_key", pa.string()),
    ]
)
"""Every live link of the ledger; state is `active`, or `deactivated` where we did that."""

GROUPS = pa.schema(
    [("id", pa.string()), ("name", pa.string()), ("organizationId", pa.string()), ("id_key", pa.string())]
)
"""Rows of dir_group that are linked, or have an id that a desired group may get."""

GROUP_LINKS = pa.schema(
    [
        ("sync", pa.string()),
        ("user_pool_id", pa.string()),
        ("group_name", pa.string()),
        ("group_id", pa.string()),
        ("group_key", pa.string()),
    ]
)

MEMBERSHIPS = pa.schema([("user_id", pa.string()), ("group_id", pa.string())])
"""All members of the groups above, in the bytes of dir_user.id and dir_group.id."""

LOCAL_MEMBERSHIPS = pa.schema([("sub", pa.string()), ("group_name", pa.string())])
"""Memberships found at an adoption that the pool hasn't named since: the local administrator's."""

KEYS = pa.schema([("text", pa.string()), ("key", pa.string())])
"""The database's own comparison key for each login and group id asked about: equal keys are the same to Joget.
An empty text, or one of characters that its collation ignores, has no key (null)."""


@dataclass(frozen=True)
class Current:
    """One consistent reading of Joget and the ledger, for one sync."""

    users: pd.DataFrame
    user_links: pd.DataFrame
    groups: pd.DataFrame
    group_links: pd.DataFrame
    memberships: pd.DataFrame
    local_memberships: pd.DataFrame
    keys: pd.DataFrame
    stores_all_of_unicode: bool
    """False on DX 7's utf8 tables, which hold no emoji."""
    revision: int
    """The ledger's count of writes; a writer that finds another one plans again."""
    newest_snapshot_at: pd.Timestamp | None
    """The time of the newest full snapshot applied for this sync's pool."""

    def is_newer_than(self, snapshot_at: datetime) -> bool:
        """Whether a newer full snapshot was applied already: nothing older may come over it."""
        return self.newest_snapshot_at is not None and self.newest_snapshot_at > pd.Timestamp(snapshot_at)
