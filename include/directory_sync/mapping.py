"""From the snapshot to Joget's columns: pure, no network, no database.

What only Joget's database can tell (which logins are the same key, which characters it can store)
is left to planning. The rules come from how Joget's console, workflow engine and screens treat
these columns.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.decisions import Decisions
from directory_sync.frames import (
    make_frame,
    make_frame_of_rows,
    make_null_texts,
    number_pairs,
    sort_table,
    take_values,
    to_arrow_types,
)
from directory_sync.reasons import Reason
from directory_sync.settings import Mapping, Scope
from directory_sync.vocabulary import Entity, Outcome, Verdict

LOGIN_LENGTH = 100
"""Characters of a username: Joget's workflow tables hold no more."""

COLUMN_LENGTH = 255
"""Characters of every other text column of dir_user, as Joget makes them; planning asks the
database.
"""

SUB_PATTERN = r"^[!-~]{1,128}$"
"""A sub we can keep as a key: printable ASCII, as Cognito's UUIDs are."""

DISABLED_STATUSES = ("ARCHIVED", "COMPROMISED")
"""Statuses that deactivate a linked user like Enabled = false, whatever the scope's statuses are.
"""

CONSOLE_GROUP_ID = re.compile(r"[0-9a-zA-Z_-]+")
"""What Joget's console accepts as a group id."""

SLUG_LENGTH = 60

LANGUAGE_REGION = r"^([A-Za-z]{2,3})(?:[-_][A-Za-z]{4})?[-_]([A-Za-z]{2}|[0-9]{3})$"
LANGUAGE_SCRIPT = r"^([A-Za-z]{2,3})[-_][A-Za-z]{4}$"

MAPPED_COLUMNS = {
    "firstName": "first_name",
    "lastName": "last_name",
    "email": "email",
    "timeZone": "time_zone",
    "locale": "locale",
}
"""dir_user's source-owned columns and the setting that names each one's attribute."""

COLUMN_DEFAULTS = {"timeZone": "time_zone_default", "locale": "locale_default"}
"""Columns that stay as Joget has them where the pool has no value, unless this setting gives one.
"""

DESIRED_USERS_SCHEMA = pa.schema(
    [
        ("sub", pa.string()),
        ("username", pa.string()),
        *((column, pa.string()) for column in MAPPED_COLUMNS),
        ("active", pa.bool_()),
        ("creatable", pa.bool_()),
        ("verdict", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
    ]
)
DESIRED_GROUPS_SCHEMA = pa.schema(
    [
        ("group_name", pa.string()),
        ("plain_id", pa.string()),
        ("hashed_id", pa.string()),
        ("listed_twice", pa.bool_()),
        ("verdict", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
    ]
)
DESIRED_MEMBERSHIPS_SCHEMA = pa.schema([("sub", pa.string()), ("group_name", pa.string())])
DESIRED_FRAMES = ("users", "groups", "memberships")
"""Desired's frames, in order."""

QUARANTINE_SCHEMA = pa.schema(
    [("entity", pa.string()), ("key", pa.string()), ("code", pa.string()), ("reason", pa.string())]
)


@dataclass(frozen=True)
class Desired:
    """The directory as the pool wants it, a row for everything that the snapshot lists.

    users: columns DESIRED_USERS_SCHEMA; a column that is left to Joget is null. verdict is
    `mapped`, `frozen` or `quarantined`, code (reasons.Reason) and reason say why a user isn't
    mapped; `creatable` is false where a linked user may be changed, and an unlinked one is neither
    created nor adopted.
    groups: columns DESIRED_GROUPS_SCHEMA; plain_id is null where Joget's console wouldn't accept
    the name; listed_twice where the members were listed a second time, so that absence from both
    counts. memberships: columns DESIRED_MEMBERSHIPS_SCHEMA, between listed users and listed groups,
    each once.
    """

    users: pd.DataFrame
    groups: pd.DataFrame
    memberships: pd.DataFrame

    @property
    def quarantine(self) -> pd.DataFrame:
        """Columns QUARANTINE_SCHEMA: what can't be mapped, and why; key is a sub or a group
        name.
        """
        return select_quarantined(self.users, self.groups)


def select_quarantined(users: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Columns QUARANTINE_SCHEMA, from frames with a verdict and a reason."""
    parts = []
    for entity, key, frame in ((Entity.USER, "sub", users), (Entity.GROUP, "group_name", groups)):
        rows = frame[frame["verdict"] == Verdict.QUARANTINED]
        parts.append(
            rows.assign(entity=str(entity), key=rows[key].fillna(""))[QUARANTINE_SCHEMA.names]
        )
    found = pd.concat(parts, ignore_index=True).sort_values(["entity", "key"], ignore_index=True)
    return to_arrow_types(found, QUARANTINE_SCHEMA)


def map_snapshot(
    users: pd.DataFrame,
    groups: pd.DataFrame,
    memberships: pd.DataFrame,
    *,
    mapping: Mapping,
    scope: Scope,
    user_pool_id: str,
) -> Desired:
    """Map a snapshot (frames of `snapshot`) to the desired directory; the order of rows doesn't
    matter.
    """
    users = _map_users(users, mapping, scope)
    groups = _map_groups(groups, scope, user_pool_id)
    return Desired(users, groups, _map_memberships(memberships, users, groups))


def _map_memberships(
    listed: pd.DataFrame, users: pd.DataFrame, groups: pd.DataFrame
) -> pd.DataFrame:
    """Columns DESIRED_MEMBERSHIPS_SCHEMA: the memberships between listed users and groups, each
    once, in order.
    """
    # As numbers, which are sorted far faster than pairs of texts.
    each = np.sort(
        pd.unique(number_pairs(listed, ("sub", "group_name"), users["sub"], groups["group_name"]))
    )
    of_user, of_group = np.divmod(each[each >= 0], max(len(groups), 1))
    known = {
        "sub": take_values(users["sub"], of_user),
        "group_name": take_values(groups["group_name"], of_group),
    }
    return to_arrow_types(pd.DataFrame(known), DESIRED_MEMBERSHIPS_SCHEMA)


def _map_users(snapshot: pd.DataFrame, mapping: Mapping, scope: Scope) -> pd.DataFrame:
    raw = _sort_by_login(_keep_newest_rows(snapshot), mapping.username)
    login = raw["login"]
    users = pd.DataFrame({"sub": raw["sub"], "username": login})
    for column, setting in MAPPED_COLUMNS.items():
        users[column] = _map_column(raw, column, getattr(mapping, setting), login)
    for column, setting in COLUMN_DEFAULTS.items():
        users[column] = _fill_empty(users[column], getattr(mapping, setting))
    users["locale"] = _convert_to_java_locale(users["locale"])
    off = raw["status"].isin(DISABLED_STATUSES)
    # An archived or compromised user stays mapped, so that a linked one is deactivated (rule 4);
    # `creatable` keeps planning from creating or adopting one, even if the scope names the status.
    users["active"] = raw["enabled"] & ~off
    in_scope = raw["status"].isin(scope.statuses)
    users["creatable"] = in_scope & ~off
    out = ~in_scope & ~off
    decisions = Decisions(users)
    decisions.decide(
        out, Outcome.FROZEN, Reason.STATUS_OUT_OF_SCOPE, detail=raw["status"].fillna("")
    )
    for failed, reason, detail in _find_faults(users, raw, mapping):
        decisions.decide(failed, Outcome.QUARANTINED, reason, detail=detail)
    decided = decisions.frame()
    users["verdict"] = decided["outcome"].fillna("mapped")
    users[["code", "reason"]] = decided[["code", "reason"]]
    return to_arrow_types(users, DESIRED_USERS_SCHEMA)


def _keep_newest_rows(snapshot: pd.DataFrame) -> pd.DataFrame:
    """The newest row of each sub; users without a sub as often as they are listed."""
    if not snapshot["sub"].dropna().duplicated().any():
        return snapshot
    known = snapshot[snapshot["sub"].notna()].sort_values(
        "modified_at", kind="stable", na_position="first"
    )
    known = known.drop_duplicates("sub", keep="last")
    # Users without a sub can't be told apart, so each of them is quarantined.
    return pd.concat([known, snapshot[snapshot["sub"].isna()]], ignore_index=True)


def _sort_by_login(users: pd.DataFrame, rule: str) -> pd.DataFrame:
    """The users with a column login, sorted by it."""
    # InnoDB loads rows in key order about twice as fast. All later steps keep this order, so they
    # needn't sort the million users of a first load.
    table = pa.Table.from_pandas(users.assign(login=map_login(users, rule)), preserve_index=False)
    order = ("login", "sub", "cognito_username")
    return make_frame(sort_table(table, order))


def map_login(raw: pd.DataFrame, rule: str) -> "pd.Series[str]":
    """The login of each user of a snapshot, by a rule as the setting mapping.username gives it."""
    if rule == "cognito_username":
        return raw["cognito_username"]
    if rule == "sub":
        return raw["sub"]
    if rule == "preferred_username_or_email":
        # As Joget's OpenID Connect plugin names the accounts that it makes.
        preferred = raw["attribute.preferred_username"]
        return preferred.mask(preferred == "").fillna(raw["attribute.email"])
    return raw[f"attribute.{rule}"]


def _map_column(
    raw: pd.DataFrame, column: str, attribute: str | None, login: "pd.Series[str]"
) -> "pd.Series[str]":
    """One mapped column, null where planning is to keep Joget's value."""
    if attribute is None:
        return make_null_texts(login.index)
    # Empty texts, not nulls: an attribute that was cleared in the pool is cleared in Joget.
    values = (raw["sub"] if attribute == "sub" else raw[f"attribute.{attribute}"]).fillna("")
    # Joget's screens print "null" where the first name is NULL.
    if column == "firstName":
        return values.mask(values.str.strip() == "").fillna(login)
    return values


def _fill_empty(values: "pd.Series[str]", default: str | None) -> "pd.Series[str]":
    """The values, with the default (or null) where the pool has none."""
    filled = values.mask(values.str.strip() == "")
    # A null leaves Joget's value: an empty time zone would change all times that the user sees.
    return filled if default is None else filled.fillna(default)


def _convert_to_java_locale(tags: "pd.Series[str]") -> "pd.Series[str]":
    """en-US and zh-Hant-TW as Java's en_US and zh_TW; other texts stay as they are."""
    java = pc.replace_substring_regex(pa.array(tags, pa.string()), LANGUAGE_REGION, r"\1_\2")
    java = pc.replace_substring_regex(java, LANGUAGE_SCRIPT, r"\1")
    return pd.Series(java.to_pandas(types_mapper=pd.ArrowDtype), index=tags.index)


def _find_faults(
    users: pd.DataFrame, raw: pd.DataFrame, mapping: Mapping
) -> list[tuple["pd.Series[bool]", Reason, "pd.Series[str] | str"]]:
    """Each fault that keeps users from being mapped: its rows, its reason and a detail. Of several
    faults of one row, the first counts.
    """
    login = users["username"]
    blank = login.isna() | (login.str.strip() == "")
    faults: list[tuple[pd.Series[bool], Reason, pd.Series[str] | str]] = [
        (raw["sub"].isna(), Reason.NO_SUB, ""),
        (~raw["sub"].str.contains(SUB_PATTERN, na=False), Reason.ODD_SUB, ""),
        (raw["unreadable"].notna(), Reason.NOT_UNICODE, raw["unreadable"].fillna("")),
        (blank, Reason.NO_LOGIN, mapping.username),
        (login.str.len() > LOGIN_LENGTH, Reason.LOGIN_TOO_LONG, str(LOGIN_LENGTH)),
        (login.str.contains(r"^\s|\s$", na=False), Reason.LOGIN_WITH_SPACE, ""),
        (login.str.contains(r"[\x00-\x1f\x7f]", na=False), Reason.LOGIN_WITH_CONTROL, ""),
        # Joget splits lists of users there: to it, `x,admin` names two users.
        (login.str.contains(r"[,;]", na=False), Reason.LOGIN_WITH_SEPARATOR, ""),
    ]
    for column, setting in MAPPED_COLUMNS.items():
        too_long = users[column].str.len() > COLUMN_LENGTH
        # The detail names the attribute and quotes no value: report.json shows it.
        detail = f"{getattr(mapping, setting)} is longer than {COLUMN_LENGTH}"
        faults.append((too_long, Reason.VALUE_TOO_LONG, detail))
    return faults


def _map_groups(snapshot: pd.DataFrame, scope: Scope, user_pool_id: str) -> pd.DataFrame:
    """Columns DESIRED_GROUPS_SCHEMA."""
    names = sorted(set(snapshot["group_name"].dropna()))
    listed_twice = set(snapshot.loc[snapshot["listed_twice"], "group_name"])
    rows = []
    # A loop is fast enough: a pool has 10,000 groups at most.
    for name in names:
        inside = scope.has_group(name, user_pool_id)
        rows.append(
            {
                "group_name": name,
                "plain_id": name if CONSOLE_GROUP_ID.fullmatch(name) else None,
                "hashed_id": hash_group_id(name),
                "listed_twice": name in listed_twice,
                "verdict": str(Verdict.MAPPED if inside else Verdict.FROZEN),
                "code": None if inside else Reason.GROUP_OUT_OF_SCOPE,
                "reason": None if inside else "the group isn't in scope",
            }
        )
    return make_frame_of_rows(rows, DESIRED_GROUPS_SCHEMA)


def hash_group_id(group_name: str) -> str:
    """A readable id that Joget's console accepts, with a hash of the name, the same for ever."""
    ascii_name = unicodedata.normalize("NFKD", group_name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^0-9a-zA-Z_]+", "-", ascii_name).strip("-")[:SLUG_LENGTH]
    # The hash is of this name alone. Joget's apps refer to groups by id, so an id mustn't change
    # when other groups come or go.
    digest = hashlib.sha256(group_name.encode()).hexdigest()[:10]
    return f"{slug or 'group'}-{digest}"
