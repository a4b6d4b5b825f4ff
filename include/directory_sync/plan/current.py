"""Joget as it is now, as planning sees it: the rows that a plan may touch, and what the ledger says of them."""

from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd
import pyarrow as pa

from include.directory_sync.frames import empty
from include.directory_sync.plan.changes import Removals

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
"""Rows of dir_user that are linked, or have the id or username of a desired user. has_role_user and has_employment are
null for whom nobody asks: active users who are linked to their own login."""

USER_LINKS = pa.schema(
    [
        ("sync", pa.string()),
        ("user_pool_id", pa.string()),
        ("sub", pa.string()),
        ("user_id", pa.string()),
        ("state", pa.string()),
        ("misses", pa.int64()),
        ("changed_at", pa.timestamp("us")),
        ("linked_at", pa.timestamp("us")),
        ("user_key", pa.string()),
    ]
)
"""The sync's live links, and those of other syncs to users whom a desired login names; state is `active`, or
`deactivated` where we did that;
changed_at (UTC) is the time of the snapshot that the link was last changed from, linked_at that of its first one."""

PAST_LINKS = pa.schema(
    [("sub", pa.string()), ("user_id", pa.string()), ("state", pa.string()), ("user_key", pa.string())]
)
"""Links of this pool that are history: the Joget user is another sub's now, or nobody's."""

RETIRED = pa.schema([("user_pool_id", pa.string()), ("sub", pa.string()), ("user_key", pa.string())])
"""Logins that were linked once and aren't any more, with whose they were: those that a desired login names."""

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
        ("misses", pa.int64()),
        ("changed_at", pa.timestamp("us")),
        ("group_key", pa.string()),
    ]
)

MEMBERSHIPS = pa.schema([("user_id", pa.string()), ("group_id", pa.string())])
"""All members of the groups above, in the bytes of dir_user.id and dir_group.id."""

LOCAL_MEMBERSHIPS = pa.schema([("user_id", pa.string()), ("group_id", pa.string())])
"""Memberships found at an adoption that the pool hasn't named since: the local administrator's."""

EMPLOYMENT_IDS = pa.schema([("id", pa.string())])
"""Ids of employments that exist, among those that a new one of these users may choose from."""

DECISIONS = pa.schema([("decision_sha256", pa.string()), ("verdict", pa.string())])
"""What a person rejected or undid, by changes.decision_hashes: `rejected`, `undone`."""

REMEMBERED = pa.schema(
    [("entity", pa.string()), ("key", pa.string()), ("joget_id", pa.string()), ("state", pa.string())]
)
"""Links that the newest applied run left, by sub or group name, where the ledger lost them (`recovery`)."""

KEYS = pa.schema([("text", pa.string()), ("key", pa.string())])
"""The database's own comparison key for each login and group id asked about: equal keys are the same to Joget.
An empty text, or one of characters that its collation ignores, has no key (null)."""


OWN = "="
"""What no key of the database's begins with: those are hashes."""


def own_key(ids: "pd.Series[str]") -> "pd.Series[str]":
    """A key for ids of Joget's that are the same to it as no text asked about: nothing but themselves."""
    return OWN + ids


def is_own_key(keys: "pd.Series[str]") -> "pd.Series[bool]":
    """Whether keys are such: their users' ids are no other text's key."""
    return keys.str.startswith(OWN)


@dataclass(frozen=True)
class Current:
    """One consistent reading of Joget and the ledger, for one sync."""

    users: pd.DataFrame
    user_links: pd.DataFrame
    groups: pd.DataFrame
    group_links: pd.DataFrame
    memberships: pd.DataFrame
    local_memberships: pd.DataFrame
    past_links: pd.DataFrame
    retired: pd.DataFrame
    decisions: pd.DataFrame
    employment_ids: pd.DataFrame
    keys: pd.DataFrame
    stores_all_of_unicode: bool
    """False on DX 7's utf8 tables, which hold no emoji."""
    revision: int
    """The ledger's count of writes; a writer that finds another one plans again."""
    newest_snapshot_at: pd.Timestamp | None
    """The time of the newest full snapshot applied for this sync's pool."""
    users_in_all: int
    """Rows of dir_user: the seats of Joget's licence."""
    removals: Removals
    """What this sync's runs took away during the last 24 hours, without what a person approved."""
    remembered: pd.DataFrame = field(default_factory=lambda: empty(REMEMBERED))
    settled: int = 0
    """Users of this pool whom nothing concerns, left out of users and user_links (plan.settled)."""

    def is_newer_than(self, snapshot_at: datetime) -> bool:
        """Whether a newer full snapshot was applied already: nothing older may come over it."""
        return self.newest_snapshot_at is not None and self.newest_snapshot_at > pd.Timestamp(snapshot_at)


@dataclass(frozen=True)
class Evidence:
    """How far a snapshot may be believed when it lacks somebody."""

    snapshot_at: datetime
    complete: bool
    """Proven complete: only then is anybody missing, and any membership gone."""
    compares: bool = False
    """An old snapshot planned for comparison: a dry run, whom newer readings of some users don't stop."""

    def misses(self, links: pd.DataFrame, limit: int, *, subset: bool) -> "pd.Series[int]":
        """How many misses in a row (up to the limit) the absent ones of these links have after this snapshot.

        Each proven full snapshot counts once: not for a link that was last changed from it, or from a newer one.
        """
        counts = self.complete and not subset and not self.compares
        older = links["changed_at"] < pd.Timestamp(self.snapshot_at).tz_localize(None)
        counted = older.fillna(False) & (links["misses"] < limit) & counts
        total: pd.Series[int] = links["misses"] + counted.astype("int64[pyarrow]")
        return total
