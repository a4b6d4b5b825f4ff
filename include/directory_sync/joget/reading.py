"""Reading Joget as it is now, in one consistent snapshot, for planning."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from directory_sync.errors import MissingRightError
from directory_sync.frames import (
    BEYOND_BMP_PATTERN,
    FLAG_TYPE,
    TEXT_TYPE,
    find_positions,
    is_true,
    look_up,
    make_empty_frame,
    make_null_texts,
    take_values,
    to_arrow_types,
)
from directory_sync.joget import belongings, employments, left_over, some_users
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.database_errors import TEMPORARY_TABLE
from directory_sync.joget.ledger import definition, links, reviews, runs
from directory_sync.joget.schema import (
    TABLES_BY_USERNAME,
    JogetTables,
    count_users,
    name_columns,
)
from directory_sync.mapping import LOGIN_LENGTH, Desired
from directory_sync.plan import Removals
from directory_sync.plan import current as now
from directory_sync.plan.changes import USER_COLUMNS
from directory_sync.plan.current import Current
from directory_sync.plan.users import MADE_WITHOUT_PASSWORD
from directory_sync.run import Run
from directory_sync.vocabulary import State, Verdict

log = logging.getLogger(__name__)

UNCOMPARED_KEY_PREFIX = "="
"""The first character of a key that stands for an id that the database wasn't asked about. The
database's own keys are hashes, so no such key equals one of them.
"""

COLUMNS_READ_APART = ("is_admin", "is_used", "is_replaced")

FOUND_USERS_SCHEMA = pa.schema(
    [field for field in now.JOGET_USERS_SCHEMA if field.name not in COLUMNS_READ_APART]
)

MEMBERS_SCHEMA = pa.schema([("sub", pa.string()), ("group_name", pa.string())])

LEDGER_FRAMES = {
    "group_links": now.GROUP_LINKS_SCHEMA,
    "local_memberships": now.LOCAL_MEMBERSHIPS_SCHEMA,
    "past_links": now.PAST_LINKS_SCHEMA,
    "retired": now.RETIRED_LOGINS_SCHEMA,
    "answers": now.ANSWERS_SCHEMA,
}


@dataclass(frozen=True)
class Lookups:
    """What a proposal has to know of Joget to plan."""

    desired: tuple[Desired, ...] = ()
    """Directories: all their users and groups are looked up."""
    ids: "pd.Series[str]" = field(default_factory=lambda: pd.Series([], dtype=TEXT_TYPE))
    """More ids of Joget users and groups to look up."""
    subs: tuple[str, ...] | None = None
    """In a run for some users: whose links are read, beside those to a desired login. None: all
    links are read."""
    remembered: pd.DataFrame = field(
        default_factory=lambda: make_empty_frame(now.REMEMBERED_LINKS_SCHEMA)
    )
    """Links that the ledger lost: columns current.REMEMBERED_LINKS_SCHEMA."""
    remembered_organization: str | None = None
    """The organization of the runs that the ledger lost."""
    reads_belongings: bool = False
    """Whether to count what Joget keeps of the users among the ids."""
    finds_left_over: bool = False
    """Whether to look for accounts of the organization that the pool doesn't have."""

    @property
    def is_for_some(self) -> bool:
        """Whether only some users' rows are read."""
        return self.subs is not None


def read_current(database: Database, tables: JogetTables, run: Run, lookups: Lookups) -> Current:
    """Read the rows of Joget that a plan may touch, and the ledger; a ledger that doesn't exist yet
    is empty.
    """
    desired, remembered = lookups.desired, lookups.remembered
    # The table is made before the transaction begins, since DDL commits.
    _make_text_table(database, tables)
    # One moment for all reads: a plan must not mix two states of Joget. Plain reads of a snapshot
    # lock nothing, so Joget never waits while the sync plans.
    with database.transaction("REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT"):
        has_ledger = definition.is_ledger_complete(database)
        linked = _read_linked_users(database, tables, run, lookups, has_ledger=has_ledger)
        # Most users' logins are, byte for byte, the ids that they are linked to. Only the other
        # texts are compared by the database's own keys.
        keys = _read_text_keys(
            database,
            tables,
            _collect_texts(run, desired, pd.concat([lookups.ids, remembered["joget_id"]]), linked),
        )
        found = _read_users_by_login(
            database,
            tables,
            by_name=not lookups.is_for_some or some_users.has_new_login(desired, linked),
        )
        ledger = _read_ledger_frames(database, tables, run, has_ledger=has_ledger)
        own_groups = ledger["group_links"]
        own_groups = own_groups[own_groups["sync"] == run.sync.name]
        groups = _read_groups(database, tables, keys, own_groups, lookups)
        if lookups.is_for_some and has_ledger:
            linked = _add_members_of_new_groups(
                database, tables, run, linked, groups=groups, own_groups=own_groups
            )
        users = _read_users(linked, found, _read_admin_ids(database))
        users = _add_replacements(database, tables, run, users, linked)
        users = _add_use(database, tables, users, linked=linked, desired=desired, keys=keys)
        memberships = _read_memberships(
            database,
            tables,
            lookups,
            groups=groups,
            own_groups=own_groups,
            user_ids=users["id"],
        )
        removals = runs.count_recent_removals(database, run) if has_ledger else Removals()
        return Current(
            users=users,
            groups=groups,
            memberships=memberships,
            **ledger,
            **(
                _count_the_others(
                    database,
                    run,
                    lookups,
                    linked=linked,
                    memberships=memberships,
                    own_groups=own_groups,
                    removals=removals,
                )
                if lookups.is_for_some and has_ledger
                else {}
            ),
            user_links=_read_user_links(
                database, tables, run, linked=linked, keys=keys, found=found, has_ledger=has_ledger
            ),
            # An adopted user keeps the stored id, even if its letters differ from the login's, and
            # the employment's id is made from the stored one.
            employment_ids=employments.read_employment_ids(
                database, tables, found.loc[~found["id"].isin(keys["text"]), "id"]
            ),
            keys=keys,
            stores_all_of_unicode=tables.stores_all_of_unicode,
            revision=definition.read_revision(database) if has_ledger else 0,
            newest_snapshot_at=runs.find_newest_snapshot_time(database, run)
            if has_ledger
            else None,
            # To count a million rows takes longer than everything else for one user.
            users_in_all=0
            if lookups.is_for_some and run.sync.limits.max_users is None
            else count_users(database),
            removals=removals,
            remembered=remembered,
            column_lengths=tables.column_lengths,
            organization=(runs.find_newest_organization(database, run) if has_ledger else None)
            or lookups.remembered_organization,
            # The second desired directory, if any, follows the settings before a change.
            left_over=left_over.find_left_over(
                database, tables, desired[0], keys, linked, has_ledger=has_ledger
            )
            if lookups.finds_left_over
            else make_empty_frame(now.LEFT_OVER_SCHEMA),
            employed_twice=left_over.count_employed_twice(database, tables)
            if lookups.finds_left_over
            else 0,
            belongings=belongings.read_belongings(database)
            if lookups.reads_belongings
            else make_empty_frame(now.BELONGINGS_SCHEMA),
            used_employments=belongings.read_used_employments(database)
            if lookups.reads_belongings
            else make_empty_frame(now.USED_EMPLOYMENTS_SCHEMA),
        )


def read_memberships(database: Database, tables: JogetTables, run: Run) -> pd.DataFrame:
    """Columns sub, group_name: which linked users of this pool are in which linked groups in Joget;
    none without a ledger.
    """
    if not definition.is_ledger_complete(database):
        return make_empty_frame(MEMBERS_SCHEMA)
    users, groups = (
        links.read_subs_of_users(database, run),
        links.read_group_links(database, tables, now.GROUP_LINKS_SCHEMA),
    )
    groups = _select_own_groups(groups, run)
    members = _read_memberships_of_groups(
        database, tables, groups["group_id"].tolist(), users["user_id"]
    )
    return _name_members(members, users, groups)


def _select_own_groups(group_links: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The links (current.GROUP_LINKS_SCHEMA) of the sync's pool."""
    own = group_links["sync"] == run.sync.name
    return group_links[own & (group_links["user_pool_id"] == run.sync.user_pool_id)]


def _name_members(members: pd.DataFrame, users: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """Columns sub, group_name, for Joget's memberships between linked users and linked groups."""
    subs, names = (
        find_positions(members[column], known[column])
        for column, known in (("user_id", users), ("group_id", groups))
    )
    # Local members of a linked group have no sub.
    both = (subs >= 0) & (names >= 0)
    return pd.DataFrame(
        {
            "sub": users["sub"].take(subs[both]).reset_index(drop=True),
            "group_name": groups["group_name"].take(names[both]).reset_index(drop=True),
        }
    )


def read_subs_of_group(
    database: Database, tables: JogetTables, run: Run, group_name: str
) -> set[str]:
    """The linked users that Joget has in a linked group, by sub."""
    groups = _select_own_groups(
        links.read_group_links(database, tables, now.GROUP_LINKS_SCHEMA), run
    )
    groups = groups[groups["group_name"] == group_name]
    members = _read_memberships_of_groups(
        database, tables, groups["group_id"].tolist(), make_null_texts(pd.RangeIndex(0))
    )
    found = links.find_links_of_users(database, run, members["user_id"].tolist())
    return set(found.loc[found["user_pool_id"] == run.sync.user_pool_id, "sub"])


def read_group_names_of_subs(
    database: Database, tables: JogetTables, run: Run, subs: Sequence[str]
) -> dict[str, set[str]]:
    """The Cognito names of the linked groups in which Joget has these linked users, by sub."""
    if not definition.is_ledger_complete(database):
        return {}
    users = links.read_logins_of_subs(database, run, subs)
    groups = _select_own_groups(
        links.read_group_links(database, tables, now.GROUP_LINKS_SCHEMA), run
    )
    members = _give_stored_ids(
        database,
        tables,
        some_users.read_memberships(database, users["user_id"].tolist()),
        users["user_id"],
        groups["group_id"],
    )
    pairs = _name_members(members, users, groups)
    return {str(sub): set(rows) for sub, rows in pairs.groupby("sub")["group_name"]}


def find_group_names(database: Database) -> set[str]:
    """The ids and names of all of Joget's groups."""
    rows = database.rows("SELECT id, name FROM dir_group", about="dir_group")
    return {str(text) for row in rows for text in row if text is not None}


def read_group_names(database: Database, tables: JogetTables, run: Run) -> list[str]:
    """The Cognito names of this pool's linked groups that are in scope; none without a ledger."""
    if not definition.is_ledger_complete(database):
        return []
    groups = links.read_group_links(database, tables, now.GROUP_LINKS_SCHEMA)
    names = sorted(_select_own_groups(groups, run)["group_name"])
    return [name for name in names if run.sync.scope.has_group(name, run.sync.user_pool_id)]


def read_expected_subs(database: Database, run: Run) -> pa.Array:
    """The linked subs of this pool for which this run may count a miss; none without a ledger."""
    if not definition.is_ledger_complete(database):
        return pa.array([], pa.string())
    expected = links.read_expected_subs(database, run)
    return pa.array(expected["sub"], pa.string())


def _read_ledger_frames(
    database: Database, tables: JogetTables, run: Run, *, has_ledger: bool
) -> dict[str, Any]:
    if not has_ledger:
        return {name: make_empty_frame(schema) for name, schema in LEDGER_FRAMES.items()}
    return {
        "group_links": links.read_group_links(database, tables, now.GROUP_LINKS_SCHEMA),
        "local_memberships": links.read_local_memberships(
            database, run, now.LOCAL_MEMBERSHIPS_SCHEMA
        ),
        "past_links": links.read_past_links(database, tables, run, now.PAST_LINKS_SCHEMA),
        "retired": links.read_retired_logins(database, tables, now.RETIRED_LOGINS_SCHEMA),
        "answers": reviews.read_answers(database, run, now.ANSWERS_SCHEMA),
    }


def _collect_texts(
    run: Run, desired: Sequence[Desired], ids: "pd.Series[str]", linked: pd.DataFrame
) -> pd.DataFrame:
    """Column text: each text that a plan compares with others by its key. These are logins,
    possible group ids and names, logins in the settings, and the ids of linked users that Joget
    changed or that aren't active.
    """
    unchanged_links = linked[
        linked["is_same"]
        & (linked["state"] == State.ACTIVE)
        & (linked["user_pool_id"] == run.sync.user_pool_id)
    ]
    changed = linked[~linked["is_same"] | (linked["state"] != State.ACTIVE)]
    named = [*run.sync.scope.exclude_users, *run.before_change.sync.scope.exclude_users]
    parts = [ids, changed["user_id"], pd.Series(named, dtype=TEXT_TYPE)]
    for directory in desired:
        # A frozen user may have a login of any length, and our table holds 255 characters.
        usable = (directory.users["verdict"] != Verdict.QUARANTINED) & (
            directory.users["username"].str.len() <= LOGIN_LENGTH
        )
        users = directory.users.loc[usable, ["sub", "username"]]
        link = find_positions(users["sub"], unchanged_links["sub"])
        is_linked_login = (link >= 0) & is_true(
            take_values(unchanged_links["user_id"], link, users.index) == users["username"]
        )
        parts.append(users.loc[~is_linked_login, "username"])
        groups = directory.groups[directory.groups["verdict"] == Verdict.MAPPED]
        parts += [groups["group_name"], groups["hashed_id"]]
    return pd.DataFrame({"text": pd.concat(parts, ignore_index=True)}).dropna().drop_duplicates()


def _make_text_table(database: Database, tables: JogetTables) -> None:
    """Make an empty temporary table for the texts. This is DDL, so no transaction may be open."""
    database.execute("DROP TEMPORARY TABLE IF EXISTS directory_sync_text", about=TEMPORARY_TABLE)
    # Texts of one key may both be sent, so the key on them isn't unique. A server with
    # sql_require_primary_key refuses a table without a primary key.
    database.execute(
        f"CREATE TEMPORARY TABLE directory_sync_text (number INT NOT NULL AUTO_INCREMENT, "
        f"text {tables.text} NOT NULL, PRIMARY KEY (number), KEY (text)) ENGINE=InnoDB",
        about=TEMPORARY_TABLE,
    )


def _read_text_keys(database: Database, tables: JogetTables, texts: pd.DataFrame) -> pd.DataFrame:
    """Send the texts and get their keys (columns current.TEXT_KEYS_SCHEMA); later joins use the
    texts too.
    """
    # On DX 7 (utf8mb3) an emoji in any column is error 1366, in our own table too.
    if not tables.stores_all_of_unicode:
        texts = texts[~texts["text"].str.contains(BEYOND_BMP_PATTERN, na=False)]
    database.fill("directory_sync_text", texts.sort_values("text"), about=TEMPORARY_TABLE)
    return database.frame(
        f"SELECT text, {tables.key('text')} FROM directory_sync_text",
        schema=now.TEXT_KEYS_SCHEMA,
        about=TEMPORARY_TABLE,
    )


def _read_users_by_login(database: Database, tables: JogetTables, *, by_name: bool) -> pd.DataFrame:
    """Columns FOUND_USERS_SCHEMA: users with a sent text as their id or, with by_name, their
    username.
    """
    columns = (
        f"u.id, u.username, {name_columns(USER_COLUMNS, 'u')}, "
        "u.password IS NOT NULL, "
        "EXISTS (SELECT 1 FROM dir_user_role r WHERE r.userId = u.id AND r.roleId = 'ROLE_USER'), "
        "EXISTS (SELECT 1 FROM dir_employment e WHERE e.userId = u.id AND e.organizationId = %s), "
        f"{tables.key('u.id')}, {tables.key('u.username')}"
    )
    # STRAIGHT_JOIN, since the server knows nothing about a table that was just filled. Joget has no
    # index on the username: one scan is held against the texts' index, for the few users with an id
    # other than their username.
    sources = ["FROM directory_sync_text t STRAIGHT_JOIN dir_user u ON u.id = t.text"]
    if by_name:
        sources.append(
            "FROM dir_user u STRAIGHT_JOIN directory_sync_text t ON t.text = u.username "
            "WHERE NOT CAST(u.id AS BINARY) <=> CAST(u.username AS BINARY)"
        )
    parts = [
        database.frame(
            f"SELECT {columns} {source}",
            (tables.organization,),
            schema=FOUND_USERS_SCHEMA,
            about="dir_user",
        )
        for source in sources
    ]
    return pd.concat(parts, ignore_index=True).drop_duplicates("id", ignore_index=True)


def _read_admin_ids(database: Database) -> "pd.Series[str]":
    """Ids of all holders of ROLE_ADMIN, in the bytes of dir_user.id."""
    # To MySQL a foreign key may have other letters than its parent's id: `BOB` refers to `bob`.
    return database.frame(
        "SELECT u.id FROM dir_user_role r STRAIGHT_JOIN dir_user u ON u.id = r.userId WHERE "
        "r.roleId = 'ROLE_ADMIN'",
        schema=pa.schema([("id", pa.string())]),
        about="dir_user_role",
    )["id"]


def _read_users(
    linked: pd.DataFrame, found: pd.DataFrame, admins: "pd.Series[str]"
) -> pd.DataFrame:
    """Columns current.JOGET_USERS_SCHEMA."""
    # The ids of the other linked users weren't sent, so the database wasn't asked for their roles
    # and employments. No rule needs those.
    others = linked[linked["is_same"]].rename(columns={"user_id": "id"})
    others = others[~others["id"].isin(found["id"])]
    key = UNCOMPARED_KEY_PREFIX + others["id"]
    others = others.assign(username=others["id"], id_key=key, username_key=key)
    users = pd.concat(
        [
            to_arrow_types(found, now.JOGET_USERS_SCHEMA),
            to_arrow_types(others, now.JOGET_USERS_SCHEMA),
        ],
        ignore_index=True,
    )
    return users.assign(is_admin=users["id"].isin(admins).astype(FLAG_TYPE))


def _add_use(
    database: Database,
    tables: JogetTables,
    users: pd.DataFrame,
    *,
    linked: pd.DataFrame,
    desired: Sequence[Desired],
    keys: pd.DataFrame,
) -> pd.DataFrame:
    """Add is_used, known for the few unlinked users with a login that a linked user wants."""
    parts = []
    for directory in desired:
        at = find_positions(directory.users["sub"], linked["sub"])
        own = take_values(linked["user_id"], at, directory.users.index)
        parts.append(
            directory.users["username"].where(
                own.notna() & ~is_true(own == directory.users["username"])
            )
        )
    logins = pd.concat(parts, ignore_index=True) if parts else pd.Series([], dtype=TEXT_TYPE)
    wanted = users["id_key"].isin(look_up(logins.dropna(), keys, "text", "key").dropna())
    # An account with a password is local, and never evicted (rule 6).
    wanted &= ~users["id"].isin(linked["user_id"]) & ~is_true(users["has_password"])
    ids = users.loc[is_true(wanted), "id"].tolist()
    used = {
        user_id
        for batch in split_into_batches(ids)
        for user_id in _find_used(database, tables, batch)
    }
    known = users["id"].isin(ids)
    is_used = users["id"].isin(used).astype(FLAG_TYPE).mask(~known)
    return users.assign(is_used=is_used)


def _add_replacements(
    database: Database, tables: JogetTables, run: Run, users: pd.DataFrame, linked: pd.DataFrame
) -> pd.DataFrame:
    """Add is_replaced. A user that the sync made has no password, and an employment with an id that
    the sync chose (joget.employments).

    If the account has a password and no such employment, the sync's user was deleted in Joget, and
    somebody made another account under the same name.
    """
    made = linked["origin"].isin(MADE_WITHOUT_PASSWORD) & is_true(linked["has_password"])
    # With random passwords, a password doesn't show that somebody else made the account.
    if run.sync.policies.new_password != "none":  # noqa: S105 - a policy
        made &= False
    ids = linked.loc[is_true(made), "user_id"].tolist()
    kept = employments.find_users_with_own_employment(database, tables, ids)
    replaced = (~users["id"].isin(kept)).astype(FLAG_TYPE)
    return users.assign(is_replaced=replaced.where(users["id"].isin(ids)))


def _find_used(database: Database, tables: JogetTables, ids: Sequence[str]) -> Sequence[str]:
    """Find which of these users have more in Joget than single sign-on makes: a row in dir_user and
    ROLE_USER. Where the database account may not read all of these tables, every user counts as
    used.
    """
    marks = ", ".join(["%s"] * len(ids))
    sources = [("dir_user_group", "userId"), ("dir_employment", "userId")]
    # Joget notes each login in dir_user_extra.
    sources += [
        (table, column) for table, column in TABLES_BY_USERNAME if table != "dir_user_extra"
    ]
    used = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} c WHERE c.{column} = u.id)" for table, column in sources
    )
    roles = "EXISTS (SELECT 1 FROM dir_user_role r WHERE r.userId = u.id AND r.roleId <> %s)"
    try:
        rows = database.rows(
            f"SELECT u.id FROM dir_user u WHERE u.id IN ({marks}) AND ({roles} OR {used})",
            (*ids, tables.role_user),
            about="the tables of a user's belongings",
        )
    except MissingRightError as error:
        log.warning(
            "can't tell whether single sign-on made the accounts in the way of renames: %s", error
        )
        return ids  # so that nobody is evicted by mistake
    return [str(row[0]) for row in rows]


def _read_user_links(
    database: Database,
    tables: JogetTables,
    run: Run,
    *,
    linked: pd.DataFrame,
    keys: pd.DataFrame,
    found: pd.DataFrame,
    has_ledger: bool,
) -> pd.DataFrame:
    """Columns current.USER_LINKS_SCHEMA."""
    if not has_ledger:
        return make_empty_frame(now.USER_LINKS_SCHEMA)
    asked = pd.concat(
        [found[["id", "id_key"]].set_axis(["text", "key"], axis=1), keys], ignore_index=True
    )
    was_asked = linked["user_id"].isin(asked["text"])
    known = look_up(linked.loc[was_asked, "user_id"], asked, "text", "key")
    uncompared = UNCOMPARED_KEY_PREFIX + linked["user_id"]
    own = linked.assign(
        user_key=uncompared.mask(was_asked, known.reindex(linked.index)),
        is_compared=was_asked,
    )
    others = links.read_links_of_other_syncs(database, tables, run).assign(is_compared=True)
    return pd.concat(
        [to_arrow_types(own, now.USER_LINKS_SCHEMA), to_arrow_types(others, now.USER_LINKS_SCHEMA)],
        ignore_index=True,
    )


def _read_linked_users(
    database: Database, tables: JogetTables, run: Run, lookups: Lookups, *, has_ledger: bool
) -> pd.DataFrame:
    """Columns links.LINKED_USERS_SCHEMA."""
    if not has_ledger:
        return make_empty_frame(links.LINKED_USERS_SCHEMA)
    if lookups.subs is None:
        return links.read_linked_users(database, tables, run)
    return some_users.read_linked_users(database, tables, run, lookups.desired, lookups.subs)


def _add_members_of_new_groups(
    database: Database,
    tables: JogetTables,
    run: Run,
    linked: pd.DataFrame,
    *,
    groups: pd.DataFrame,
    own_groups: pd.DataFrame,
) -> pd.DataFrame:
    """Add to `linked` the members of Joget's groups that may be adopted: whether one may depends on
    all of its members (rule 9).
    """
    new = _select_new_groups(groups, own_groups)
    members = _read_memberships_of_groups(database, tables, new, linked["user_id"])
    ids = members["user_id"].drop_duplicates().tolist()
    return some_users.add_links_of_users(database, tables, run, linked, ids)


def _select_new_groups(groups: pd.DataFrame, own_groups: pd.DataFrame) -> list[str]:
    """Ids of Joget's groups that the sync hasn't linked."""
    return groups.loc[~groups["id"].isin(own_groups["group_id"]), "id"].tolist()


def _count_the_others(
    database: Database,
    run: Run,
    lookups: Lookups,
    *,
    linked: pd.DataFrame,
    memberships: pd.DataFrame,
    own_groups: pd.DataFrame,
    removals: Removals,
) -> dict[str, Any]:
    """What the limits of a run for some users are shares of: fields of Current."""
    counts: dict[str, Any] = {
        "linked_pools": links.find_linked_pools(database, run),
        "memberships_in_all": runs.count_newest_memberships(database, run),
        "members_by_group": pd.Series([], dtype="int64"),
    }
    most = max(removals.users, removals.disabled, *removals.by_group.values())
    # So few rows are within the floor of every limit. To count a million takes longer than
    # everything else for one user.
    if len(lookups.subs or ()) + most <= run.sync.limits.floor:
        return counts
    group_ids = memberships["group_id"].drop_duplicates().tolist()
    return counts | {
        "unread_users": links.count_active_links(database, run)
        - int((linked["state"] == State.ACTIVE).sum()),
        "members_by_group": some_users.count_members(database, group_ids, own_groups),
    }


def _read_groups(
    database: Database,
    tables: JogetTables,
    keys: pd.DataFrame,
    own_groups: pd.DataFrame,
    lookups: Lookups,
) -> pd.DataFrame:
    """Columns current.JOGET_GROUPS_SCHEMA."""
    columns = f"g.id, g.name, g.organizationId, {tables.key('g.id')}, {tables.key('g.name')}"
    if lookups.is_for_some:
        groups = some_users.read_groups(database, columns, own_groups["group_id"].tolist())
        if not some_users.needs_all_groups(lookups.desired, groups, own_groups):
            return groups
    # All groups are read: their names have no index, and groups are few.
    groups = database.frame(
        f"SELECT {columns} FROM dir_group g", schema=now.JOGET_GROUPS_SCHEMA, about="dir_group"
    )
    wanted = groups["id_key"].isin(keys["key"]) | groups["name_key"].isin(keys["key"])
    wanted |= groups["id_key"].isin(own_groups["group_key"])
    return groups[is_true(wanted)].reset_index(drop=True)


def _read_memberships(
    database: Database,
    tables: JogetTables,
    lookups: Lookups,
    *,
    groups: pd.DataFrame,
    own_groups: pd.DataFrame,
    user_ids: "pd.Series[str]",
) -> pd.DataFrame:
    """Columns current.JOGET_MEMBERSHIPS_SCHEMA: the members of these groups. In a run for some
    users, those of the linked groups among the users alone.
    """
    if not lookups.is_for_some:
        return _read_memberships_of_groups(database, tables, groups["id"].tolist(), user_ids)
    of_users = _give_stored_ids(
        database,
        tables,
        some_users.read_memberships(database, user_ids.tolist()),
        user_ids,
        groups["id"],
    )
    of_users = of_users[of_users["group_id"].isin(groups["id"])]
    of_groups = _read_memberships_of_groups(
        database, tables, _select_new_groups(groups, own_groups), user_ids
    )
    return pd.concat([of_users, of_groups], ignore_index=True).drop_duplicates(ignore_index=True)


def _read_memberships_of_groups(
    database: Database, tables: JogetTables, group_ids: list[str], user_ids: "pd.Series[str]"
) -> pd.DataFrame:
    """Read the members of these groups, with ids as dir_user and dir_group store them. `user_ids`
    and `group_ids` are stored ids.
    """
    parts = [make_empty_frame(now.JOGET_MEMBERSHIPS_SCHEMA)]
    for ids in split_into_batches(group_ids):
        statement = (
            "SELECT userId, groupId FROM dir_user_group WHERE groupId IN "
            f"({', '.join(['%s'] * len(ids))})"
        )
        parts.append(
            database.frame(
                statement, ids, schema=now.JOGET_MEMBERSHIPS_SCHEMA, about="dir_user_group"
            )
        )
    return _give_stored_ids(
        database,
        tables,
        pd.concat(parts, ignore_index=True),
        user_ids,
        pd.Series(group_ids, dtype=TEXT_TYPE),
    )


def _give_stored_ids(
    database: Database,
    tables: JogetTables,
    members: pd.DataFrame,
    user_ids: "pd.Series[str]",
    group_ids: "pd.Series[str]",
) -> pd.DataFrame:
    """The rows of dir_user_group with ids as dir_user and dir_group store them, of which these are
    known.
    """
    known = {"user_id": ("dir_user", user_ids), "group_id": ("dir_group", group_ids)}
    # A row of dir_user_group may have a stored id's key in other letters. The database is asked
    # again for these rows only.
    for column, (table, parents) in known.items():
        unknown = members.loc[~members[column].isin(parents), column]
        if len(unknown):
            stored = _read_stored_ids(database, tables, table, unknown.drop_duplicates().tolist())
            members.loc[unknown.index, column] = look_up(unknown, stored, "child", "id")
    return members.dropna(ignore_index=True)


STORED_IDS_SCHEMA = pa.schema([("child", pa.string()), ("id", pa.string())])


def _read_stored_ids(
    database: Database, tables: JogetTables, table: str, children: list[str]
) -> pd.DataFrame:
    """Columns STORED_IDS_SCHEMA: for each value of a foreign key, the stored id that it refers
    to.
    """
    parts = [make_empty_frame(STORED_IDS_SCHEMA)]
    for ids in split_into_batches(children):
        rows = " UNION ALL ".join([f"SELECT {tables.as_directory('%s')} AS child"] * len(ids))
        statement = (
            f"SELECT c.child, d.id FROM ({rows}) c STRAIGHT_JOIN {table} d ON d.id = c.child"
        )
        parts.append(database.frame(statement, ids, schema=STORED_IDS_SCHEMA, about=table))
    return pd.concat(parts, ignore_index=True)
