"""Reading from the pool only the users that a run is for, instead of everybody."""

import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa

from directory_sync import mapping
from directory_sync.cognito import snapshot
from directory_sync.cognito.client import UserPool
from directory_sync.cognito.named_users import NamedUsers
from directory_sync.cognito.snapshot import get_sub
from directory_sync.cognito.user_listing import Users
from directory_sync.errors import PermanentError
from directory_sync.events.joining import Changes, NamedBy, NamedUser, Times
from directory_sync.frames import make_frame_of_rows
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, links
from directory_sync.joget.reading import (
    find_group_names,
    read_group_names,
    read_group_names_of_subs,
    read_subs_of_group,
)
from directory_sync.joget.schema import JogetTables, inspect_tables
from directory_sync.run import Run
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.vocabulary import Entity

log = logging.getLogger(__name__)

UsersBySub = dict[str, dict[str, Any]]


class NamedReading:
    """The users of one run, as the pool gives them.

    users: everybody that an answer had, by sub: also users beside those that the run is for, who
    have a login that one of them is to get. named: the subs that the run is for, present or absent.
    """

    def __init__(self, database: Database, tables: JogetTables, run: Run, pool: UserPool) -> None:
        # Before the first question: a snapshot is as old as its oldest answer.
        self.snapshot_at = datetime.now(UTC)
        self._database, self._tables, self._run = database, tables, run
        self._questions = NamedUsers(pool, run.sync.mapping.username)
        self.users: UsersBySub = {}
        self.named: list[str] = []
        self._groups: list[str] = []
        self._leavers: set[str] | None = None

    @property
    def run(self) -> Run:
        """The run, for the users that were found."""
        leavers = self.absent if self._leavers is None else self._leavers & {*self.absent}
        return self._run.model_copy(
            update={
                "users": tuple(self.named),
                "groups": tuple(self._groups),
                "leavers": tuple(sorted(leavers)),
            }
        )

    @property
    def absent(self) -> list[str]:
        """The named subs that the pool doesn't have."""
        return [sub for sub in self.named if sub not in self.users]

    def read_names(self, names: Sequence[str]) -> None:
        """Find the users that a person named by subs, logins, emails or usernames.

        Raises PermanentError that says which names neither the pool nor Joget has.
        """
        linked = self._find_linked_subs(names)
        self._add(self._questions.find_by_sub(sub for subs in linked.values() for sub in subs))
        unknown = []
        for line, name in enumerate(names, 1):
            subs = linked.get(name, [])
            if not any(_is_called(self.users.get(sub), name) for sub in subs):
                # Joget's user of that name may be gone from the pool, or have another login there:
                # a newcomer may have the name.
                subs = [*subs, *self._add(self._questions.find_by_name(name))]
            self.named += [sub for sub in subs if sub not in self.named]
            if not subs:
                unknown.append(line)
        if unknown:
            lines = "; ".join(f"line {line}: nobody in the pool or in Joget" for line in unknown)
            # By their numbers: errors quote no login.
            raise PermanentError(
                f"{len(unknown)} of the {len(names)} users given can't be found. {lines}. Correct "
                "parameter users; nothing was read or written."
            )
        self._read_rivals()

    def read_changes(self, changes: Changes) -> dict[str, Times]:
        """Read the users that events named, and those whose membership of a named group differs
        from Joget's. Returns when the events about each of them happened and arrived, by sub.

        The events say who left: of the absent users, only these are removed at once.
        """
        subs = self._find_subs(changes)
        times = {sub: times for user, times in changes.users.items() for sub in subs[user]}
        for name, of_group in changes.groups.items():
            times |= {sub: times.get(sub, of_group) for sub in self._find_movers(name)}
        self._add(self._questions.find_by_sub(times.keys() - self.users.keys()))
        linked = self._read_linked_logins(list(times))
        # Somebody who came and went between two runs is nobody to Joget.
        self.named = [sub for sub in times if sub in self.users or sub in linked]
        self._leavers = {sub for user in changes.leavers for sub in subs[user]}
        self._read_rivals()
        return {sub: times[sub] for sub in self.named}

    def _find_subs(self, changes: Changes) -> dict[NamedUser, list[str]]:
        """The subs of the users that events named."""
        usernames = sorted(changes.usernames)
        by_username: dict[str, list[str]] = {}
        for member in self._questions.find_by_usernames(usernames):
            by_username.setdefault(member["Username"].casefold(), []).extend(self._add([member]))
        linked = self._find_linked_subs(usernames)
        by_name = self._run.sync.mapping.username == "cognito_username"
        found = {}
        for user in changes.users:
            subs = [user.value]
            if user.by is NamedBy.USERNAME:
                # The pool of a user who was deleted doesn't know the username any more. In most
                # pools it is the sub; where it is the login, the ledger's link has it.
                known = linked.get(user.value, [])
                known = known if by_name else [sub for sub in known if sub == user.value]
                subs = by_username.get(user.value.casefold()) or known
            found[user] = subs
        return found

    def _find_movers(self, group_name: str) -> set[str]:
        """The linked users that are in this group in the pool and not in Joget, or the reverse."""
        if not self._run.sync.scope.has_group(group_name, self._run.sync.user_pool_id):
            return set()
        members = self._questions.list_members(group_name)
        if members is None:  # the next runs for everybody see that it is gone (rule 9)
            return set()
        self._groups.append(group_name)
        if not definition.is_ledger_complete(self._database):
            return set()
        here = read_subs_of_group(self._database, self._tables, self._run, group_name)
        listed = {sub for member in members if (sub := get_sub(member))}
        movers = (here - listed) | (self._read_linked_logins(sorted(listed - here)).keys())
        self._add(member for member in members if get_sub(member) in movers)
        return movers

    def _add(self, users: Iterable[dict[str, Any]]) -> list[str]:
        found = {sub: user for user in users if (sub := get_sub(user))}
        self.users |= found
        return list(found)

    def _find_linked_subs(self, names: Sequence[str]) -> dict[str, list[str]]:
        if not definition.is_ledger_complete(self._database):
            return {}
        pool = self._run.sync.user_pool_id
        found = links.find_links_of_logins(self._database, self._tables, self._run, names)
        found = found[found["user_pool_id"] == pool]
        linked = {str(name): rows["sub"].tolist() for name, rows in found.groupby("text")}
        subs = [name for name in names if name.isascii()]
        known = links.read_logins_of_subs(self._database, self._run, subs)
        return linked | {sub: [sub] for sub in known["sub"] if sub in subs}

    def _read_rivals(self) -> None:
        """Read who else has, or had, a login that a named user is about to get.

        Only with them can planning tell a twin and an heir (rules 7 and 8 of docs/design.md).
        """
        # The login of somebody who left may be an heir's by now, who waits for a person.
        of_absent = self._read_linked_logins(self.absent).values()
        logins = list(dict.fromkeys([*self._find_new_logins(), *of_absent]))
        rivals = {sub for subs in self._find_linked_subs(logins).values() for sub in subs}
        self._add(self._questions.find_by_sub(rivals - self.users.keys()))
        self._add(self._questions.find_by_logins(logins))

    def _find_new_logins(self) -> list[str]:
        """The logins of named users that aren't those of their Joget users."""
        present = [self.users[sub] for sub in self.named if sub in self.users]
        attributes = self._run.attributes
        raw = make_frame_of_rows(
            [snapshot.make_user_row(user, attributes) for user in present],
            snapshot.make_users_schema(attributes),
        )
        logins = mapping.map_login(raw, self._run.sync.mapping.username)
        logins = logins.mask(logins.str.strip() == "")
        known = self._read_linked_logins(raw["sub"].tolist())
        same = [known.get(sub) == login for sub, login in zip(raw["sub"], logins, strict=True)]
        return logins[~pd.Series(same, index=logins.index, dtype=bool)].dropna().unique().tolist()

    def _read_linked_logins(self, subs: list[str]) -> dict[str, str]:
        if not definition.is_ledger_complete(self._database):
            return {}
        found = links.read_logins_of_subs(self._database, self._run, subs)
        return dict(zip(found["sub"], found["user_id"], strict=True))


def _is_called(user: dict[str, Any] | None, name: str) -> bool:
    """Whether a user has the name as their username or as the value of an attribute."""
    if user is None:
        return False
    values = [user.get("Username"), *(pair.get("Value") for pair in user.get("Attributes") or ())]
    return name.casefold() in (value.casefold() for value in values if value)


def write_users(folder: store.Folder, pool: UserPool, read: NamedReading) -> Manifest:
    """Leave users.parquet of a run for some users, and seal the folder."""
    attributes = folder.run.attributes
    with folder.rows("users.parquet", snapshot.make_users_schema(attributes)) as users:
        users.write([snapshot.make_user_row(user, attributes) for user in read.users.values()])
    pool.progress.say()
    counts = {"users": len(read.users), "asked_by_name": len(read.named), **pool.count_calls()}
    return folder.seal(snapshot_at=read.snapshot_at, counts=counts, complete=True)


def read_groups(folder: store.Folder, pool: UserPool, users: Manifest) -> Manifest:
    """Ask for the groups of each user that the run is for, and once more for each absent one.

    Leaves the same files as a listing of all groups.
    """
    run = folder.run
    questions = NamedUsers(pool, run.sync.mapping.username)
    listed = store.read_frame(users, "users.parquet")
    listed = listed[listed["sub"].isin(run.users)]
    # Nobody is gone on one answer.
    again = questions.find_by_sub(sub for sub in run.users if sub not in set(listed["sub"]))
    usernames = dict(zip(listed["sub"], listed["cognito_username"], strict=True))
    usernames |= {get_sub(user) or "": user["Username"] for user in again}
    with open_session(run.sync.joget_conn_id) as database:
        tables = inspect_tables(database, run.sync.organization)
        known = read_group_names_of_subs(database, tables, run, list(usernames))
        linked_names = set(read_group_names(database, tables, run))
    # A live run reads again from the start. This task's retry would only read the same file.
    groups = questions.list_groups(usernames, known, bears_gone=not run.is_live)
    listed_names = {group["GroupName"] for of_user in groups.values() for group in of_user}
    lost_names = {name for names in known.values() for name in names} - listed_names
    gone = questions.find_absent_groups(lost_names)
    # Joget's own group may be adopted. Which of its members are the local administrator's is known
    # only from all that the pool names (rule 2).
    for name in _find_adoptable_groups(run, listed_names - linked_names):
        for member in questions.list_members(name) or ():
            sub = get_sub(member) or ""
            groups.setdefault(sub, []).append({"GroupName": name})
            if sub not in usernames:
                again.append(member)
    absent = [{"entity": str(Entity.GROUP), "key": name} for name in gone]
    absent += [
        {"entity": str(Entity.USER), "key": sub} for sub in run.users if sub not in usernames
    ]
    pool.progress.say()
    return _seal_groups(folder, pool, users, again=again, groups=groups, absent=absent)


def _find_adoptable_groups(run: Run, names: set[str]) -> list[str]:
    """Those of the pool's groups that Joget has without a link."""
    if not names:
        return []
    with open_session(run.sync.joget_conn_id) as database:
        return sorted(names & find_group_names(database))


def _seal_groups(
    folder: store.Folder,
    pool: UserPool,
    users: Manifest,
    *,
    again: Users,
    groups: dict[str, list[dict[str, Any]]],
    absent: list[dict[str, Any]],
) -> Manifest:
    run = folder.run
    found = {name: {"GroupName": name} for name in run.groups}
    found |= {group["GroupName"]: group for of_user in groups.values() for group in of_user}
    # Each user's own list was read a second time where it lacked a group.
    group_rows = [
        snapshot.make_group_row(group) | {"listed_twice": True} for group in found.values()
    ]
    memberships = [
        {"group_name": group["GroupName"], "sub": sub}
        for sub, of_user in groups.items()
        for group in of_user
    ]
    seen = [snapshot.make_user_row(user, run.attributes) for user in again]
    users_schema = snapshot.make_users_schema(run.attributes)
    files: dict[str, tuple[pa.Schema, list[dict[str, Any]]]] = {
        "groups.parquet": (snapshot.GROUPS_SCHEMA, group_rows),
        "memberships.parquet": (snapshot.MEMBERSHIPS_SCHEMA, memberships),
        "memberships_again.parquet": (snapshot.MEMBERSHIPS_SCHEMA, []),
        "users_seen.parquet": (users_schema, seen),
        "users_seen_again.parquet": (users_schema, []),
        "absent.parquet": (snapshot.ABSENT_SCHEMA, absent),
    }
    for name, (schema, rows) in files.items():
        folder.frame(name, make_frame_of_rows(rows, schema))
    return folder.seal(
        snapshot_at=users.snapshot_at,
        counts={
            "groups": len(group_rows),
            "memberships": len(memberships),
            "asked_by_name": len(absent),
            **pool.count_calls(),
        },
        complete=True,
        inputs={"extract_users": users.url},
    )
