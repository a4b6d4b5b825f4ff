"""Joget as it is now, as planning sees it: the rows that a plan may touch, and what the ledger says
of them.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa

from directory_sync.cognito.snapshot import ABSENT_SCHEMA
from directory_sync.frames import make_empty_frame
from directory_sync.plan.changes import USER_COLUMN_FIELDS, Removals

JOGET_USERS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("username", pa.string()),
        *USER_COLUMN_FIELDS,
        ("has_password", pa.bool_()),
        ("is_admin", pa.bool_()),
        ("has_role_user", pa.bool_()),
        ("has_employment", pa.bool_()),
        ("is_used", pa.bool_()),
        ("is_replaced", pa.bool_()),
        ("id_key", pa.string()),
        ("username_key", pa.string()),
    ]
)
"""Rows of dir_user that are linked, or have the id or username of a desired user.

has_role_user and has_employment are null for active users that are linked to their own login, since
no rule needs them. is_used: whether Joget keeps more of the user than single sign-on makes; known
for unlinked users with a login that a linked user wants, else null. is_replaced: whether the user
that the sync made was deleted, and another account has its id now; known for users with a password
that the sync made without one, else null.
"""

USER_LINKS_SCHEMA = pa.schema(
    [
        ("sync", pa.string()),
        ("user_pool_id", pa.string()),
        ("sub", pa.string()),
        ("user_id", pa.string()),
        ("origin", pa.string()),
        ("state", pa.string()),
        ("misses", pa.int64()),
        ("changed_at", pa.timestamp("us")),
        ("linked_at", pa.timestamp("us")),
        ("user_key", pa.string()),
        ("is_compared", pa.bool_()),
    ]
)
"""The sync's live links, and those of other syncs to users that a desired login names.

origin: the action that made the link. state: `active`, or `deactivated` where the sync deactivated
the user. linked_at and changed_at (UTC): the times of the snapshots that made the link and that
last changed it. is_compared: whether the database was asked for the user's key; where it wasn't,
user_key equals only the key of the same id, byte for byte.
"""

PAST_LINKS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("user_id", pa.string()),
        ("state", pa.string()),
        ("changed_at", pa.timestamp("us")),
        ("user_key", pa.string()),
    ]
)
"""Links of this pool that are history: the Joget user is linked to another sub now, or to none.

changed_at (UTC): the time of the snapshot that ended the link.
"""

RETIRED_LOGINS_SCHEMA = pa.schema(
    [("user_pool_id", pa.string()), ("sub", pa.string()), ("user_key", pa.string())]
)
"""Logins that were linked once and aren't any more, each with the sub that had it.

Only logins with the key of a desired login are read.
"""

JOGET_GROUPS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("name", pa.string()),
        ("organizationId", pa.string()),
        ("id_key", pa.string()),
        ("name_key", pa.string()),
    ]
)
"""Rows of dir_group that are linked, or that have an id or name that a desired group may get.

They are read from every organization, since Joget asks for groups by name (isUserInGroup) and takes
the first one.
"""

GROUP_LINKS_SCHEMA = pa.schema(
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

JOGET_MEMBERSHIPS_SCHEMA = pa.schema([("user_id", pa.string()), ("group_id", pa.string())])
"""All members of the groups above, in the bytes of dir_user.id and dir_group.id."""

LOCAL_MEMBERSHIPS_SCHEMA = pa.schema([("user_id", pa.string()), ("group_id", pa.string())])
"""Memberships found at an adoption that the pool hasn't named since: the local administrator's."""

EMPLOYMENT_IDS_SCHEMA = pa.schema([("user_id", pa.string()), ("employment_id", pa.string())])
"""The id of a new employment in the organization, for each user that a plan may give one."""

ANSWERS_SCHEMA = pa.schema(
    [
        ("answer_sha256", pa.string()),
        ("verdict", pa.string()),
        ("about", pa.string()),
        ("decided_at", pa.timestamp("us")),
    ]
)
"""What a person rejected or undid, by changes.hash_for_answers; verdict: `rejected` or `undone`;
about: a sub, null for a group; decided_at in UTC.
"""

BELONGINGS_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("memberships", pa.int64()),
        ("roles", pa.int64()),
        ("employments", pa.int64()),
        ("others", pa.int64()),
    ]
)
"""How many rows Joget has of each user; others: those that it keeps by username."""

USED_EMPLOYMENTS_SCHEMA = pa.schema([("id", pa.string()), ("user_id", pa.string())])
"""Employments in which somebody entered a department, grade, role, code, dates, head-of or
report-to.
"""

LEFT_OVER_SCHEMA = pa.schema(
    [
        ("account", pa.string()),
        ("id", pa.string()),
        *USER_COLUMN_FIELDS,
        ("id_key", pa.string()),
        ("verdict", pa.string()),
    ]
)
"""Accounts that the pool may have left behind: active, employed in the organization, without
password, link or ROLE_ADMIN.

account: a name for the account that doesn't reveal its login. id_key: null for an id that the
collation ignores. verdict: mapping's verdict on the listed user with the account's login or email,
null where the pool has none.
"""

REMEMBERED_LINKS_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("key", pa.string()),
        ("joget_id", pa.string()),
        ("state", pa.string()),
    ]
)
"""Links that the ledger lost, by sub or group name, as the newest run for everybody left them
(`tasks.ledger_loss`)."""

TEXT_KEYS_SCHEMA = pa.schema([("text", pa.string()), ("key", pa.string())])
"""The database's own comparison key for each login and group id that it was asked about: to Joget,
texts with equal keys are the same. A text has no key (null) where it is empty, or the collation
ignores all its characters.
"""


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
    answers: pd.DataFrame
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
    remembered: pd.DataFrame = field(
        default_factory=lambda: make_empty_frame(REMEMBERED_LINKS_SCHEMA)
    )
    unchanged_users: int = 0
    """Users of this pool that are left out of users and user_links (plan.unchanged)."""
    unread_users: dict[str, int] = field(default_factory=dict)
    """In a run for some users: how many more active linked users there are, by pool."""
    members_by_group: "pd.Series[int] | None" = None
    """In a run for some users: how many members the linked groups of these users have, by group
    name."""
    memberships_in_all: int | None = None
    """In a run for some users: how many of our memberships the newest run for everybody left."""
    column_lengths: dict[str, int] = field(default_factory=dict)
    """How many characters each text column of dir_user holds in this installation."""
    organization: str | None = None
    """The organization that the sync's newest run wrote to; null before the first one."""
    belongings: pd.DataFrame = field(default_factory=lambda: make_empty_frame(BELONGINGS_SCHEMA))
    """BELONGINGS_SCHEMA of the users that an undo may delete."""
    left_over: pd.DataFrame = field(default_factory=lambda: make_empty_frame(LEFT_OVER_SCHEMA))
    """LEFT_OVER_SCHEMA, where the proposal asks for it."""
    employed_twice: int = 0
    """Users with several employments in the organization."""
    used_employments: pd.DataFrame = field(
        default_factory=lambda: make_empty_frame(USED_EMPLOYMENTS_SCHEMA)
    )
    """USED_EMPLOYMENTS_SCHEMA of the users that an undo looks at."""

    def is_newer_than(self, snapshot_at: datetime) -> bool:
        """Whether a newer full snapshot was applied already; an older one mustn't overwrite it."""
        return self.newest_snapshot_at is not None and self.newest_snapshot_at > pd.Timestamp(
            snapshot_at
        )


@dataclass(frozen=True)
class Evidence:
    """How far a snapshot may be believed when it lacks somebody."""

    snapshot_at: datetime
    complete: bool
    """Whether the snapshot is proven complete. If not, no user or membership counts as missing."""
    compares: bool = False
    """Whether a dry run compares an old snapshot with Joget; newer readings don't stop it."""
    absent: pd.DataFrame = field(default_factory=lambda: make_empty_frame(ABSENT_SCHEMA))
    """Columns snapshot.ABSENT_SCHEMA."""
    missing_minutes: int = 0
    """The least time between two counted misses."""
    lag: timedelta = timedelta(0)
    """How much older than the snapshot's time an answer in it may be: a replica's may be late."""

    @property
    def at(self) -> pd.Timestamp:
        """The snapshot's time as the ledger has it: UTC, without a time zone."""
        return pd.Timestamp(self.snapshot_at).tz_convert("UTC").tz_localize(None)

    def is_proven_absent(
        self, links: pd.DataFrame, entity: str, key: str, user_pool_id: str
    ) -> "pd.Series[bool]":
        """Whether the pool was asked for each link's sub or group name (column `key`), and lacks
        it.
        """
        asked = self.absent.loc[self.absent["entity"] == entity, "key"]
        # A link of another pool has a sub that can't be in this pool.
        return links[key].isin(asked) | (links["user_pool_id"] != user_pool_id)

    def count_misses(
        self, links: pd.DataFrame, proven: "pd.Series[bool]", limit: int, *, subset: bool
    ) -> "pd.Series[int]":
        """How many misses in a row (up to the limit) these unlisted links have after this snapshot:
        as many as before, or one more.
        """
        counts = self.complete and not subset and not self.compares
        pause = pd.Timedelta(minutes=self.missing_minutes)
        # A load that is repeated counts no second miss: this snapshot changed the link already.
        older = (links["changed_at"] < self.at).fillna(False).astype(bool)
        # Cognito's lists are eventually consistent: two runs within minutes may see the same gap.
        rested = (links["misses"] == 0) | (links["changed_at"] <= self.at - pause).fillna(False)
        counted = older & rested.astype(bool) & (links["misses"] < limit) & proven & counts
        total: pd.Series[int] = links["misses"] + counted.astype("int64[pyarrow]")
        return total
