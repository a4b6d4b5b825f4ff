"""Whether the mapping's login is the one that single sign-on makes accounts with.

If it isn't, Joget has two accounts of each person: the sync's, and the one that they log in to.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.cognito.client import USERS_IN_A_PAGE, UserPool
from directory_sync.cognito.snapshot import make_user_row, make_users_schema
from directory_sync.command_line.doctor.findings import Finding, Status, run_check, skip_check
from directory_sync.errors import MissingFilesError
from directory_sync.frames import make_frame, make_frame_of_rows
from directory_sync.joget.database import Database
from directory_sync.joget.ledger.definition import is_ledger_complete
from directory_sync.joget.single_sign_on import read_logins_of_single_sign_on
from directory_sync.mapping import map_login
from directory_sync.run import Run
from directory_sync.settings import Sync
from directory_sync.staging import signposts, store
from directory_sync.staging.signposts import SNAPSHOT_SIGNPOSTS

SNAPSHOT_CHECK = "login, by the newest snapshot"
SAMPLE_CHECK = "login, by a sample of the pool"
LOGIN_CHECK = "login"
"""Stands for both checks, where neither is tried."""

RULES_ALWAYS_COUNTED = (
    "sub",
    "cognito_username",
    "email",
    "preferred_username",
    "preferred_username_or_email",
    "phone_number",
)
"""Rules of mapping.username that the answer always names. It names other attributes only where one
is the login of an account.
"""

OWN_COLUMNS = ("sub", "cognito_username")
ATTRIBUTE_PREFIX = "attribute."


@dataclass(frozen=True)
class LoginCounts:
    """How many of the accounts that single sign-on made have the login of a user, by rule of
    mapping.username.
    """

    accounts: int
    users: int
    """How many users were looked at."""
    by_rule: dict[str, int]
    rule: str
    """The mapping's own."""

    @property
    def best(self) -> str:
        """The rule that fits most accounts; among equals, the mapping's own."""
        return max(self.by_rule, key=lambda rule: (self.by_rule[rule], rule == self.rule))


def check_logins(
    sync: Sync, database: Database, pool: UserPool | None, *, has_staging: bool
) -> Iterator[Finding]:
    """Compare by the newest complete snapshot, and by a page of the pool.

    pool: None where its users can't be listed; has_staging: whether files there can be read.
    """
    # A snapshot has only the attributes that the mapping names. The page of the pool has them all,
    # and adds the rules that the snapshot couldn't compare.
    held: list[str] = []
    if has_staging:
        yield run_check(SNAPSHOT_CHECK, lambda: _check_snapshot(sync, database, held))
    else:
        yield skip_check(SNAPSHOT_CHECK, "staging")
    if pool is None:
        yield skip_check(SAMPLE_CHECK, "the list of users")
    else:
        yield run_check(SAMPLE_CHECK, lambda: _check_sample(sync, pool, database, held))


def _check_snapshot(sync: Sync, database: Database, held: list[str]) -> Finding:
    """Compare by the newest snapshot, and add the rules that it allows to `held`."""
    users = _read_newest_snapshot(sync)
    if users is None:
        what = "no complete snapshot is in staging yet"
        return Finding(SNAPSHOT_CHECK, Status.UNKNOWN, what, "Run this again after a run.")
    rules = _list_rules(users, sync)
    held += rules
    counts = _count_logins(users, _read_accounts(database), rules, sync)
    return _judge_counts(SNAPSHOT_CHECK, counts, is_sample=False)


def _read_newest_snapshot(sync: Sync) -> pd.DataFrame | None:
    """Logins and attributes of the newest complete snapshot's users; None where there is none, or
    its files were deleted.
    """
    run = Run(run_id="doctor", sync=sync, dry_run=True)
    try:
        folder_url = signposts.read_newest_signpost(run, SNAPSHOT_SIGNPOSTS, ".users")
        if folder_url is None:
            return None
        source = store.find_source(store.read_manifest(folder_url))
        with store.open_parquet(source, "users.parquet") as file:
            columns = [
                name
                for name in file.schema_arrow.names
                if name in OWN_COLUMNS or name.startswith(ATTRIBUTE_PREFIX)
            ]
            return make_frame(file.read(columns=columns))
    except MissingFilesError:
        return None


def _check_sample(sync: Sync, pool: UserPool, database: Database, held: list[str]) -> Finding:
    users = _read_sample(pool)
    rules = [rule for rule in _list_rules(users, sync) if rule not in held]
    if not rules:
        what = "nothing more to compare: the snapshot has every attribute of these users"
        return Finding(SAMPLE_CHECK, Status.OK, what)
    # The mapping's rule is counted again: the others are compared with it over the same users.
    if sync.mapping.username not in rules and _has_login(users, sync.mapping.username):
        rules.insert(0, sync.mapping.username)
    counts = _count_logins(users, _read_accounts(database), rules, sync)
    return _judge_counts(SAMPLE_CHECK, counts, is_sample=True)


def _read_sample(pool: UserPool) -> pd.DataFrame:
    """One page of the pool, with every attribute that its users have."""
    listed = pool.read_first_rows("ListUsers", USERS_IN_A_PAGE)
    named = {pair["Name"] for user in listed for pair in user.get("Attributes") or ()}
    attributes = tuple(sorted(named - {"sub"}))
    rows = [make_user_row(user, attributes) for user in listed]
    return make_frame_of_rows(rows, make_users_schema(attributes))


def _list_rules(users: pd.DataFrame, sync: Sync) -> list[str]:
    """The rules of mapping.username that these users' columns allow, the mapping's own first."""
    attributes = [
        name.removeprefix(ATTRIBUTE_PREFIX)
        for name in users.columns
        if name.startswith(ATTRIBUTE_PREFIX)
    ]
    rules = dict.fromkeys([sync.mapping.username, *RULES_ALWAYS_COUNTED, *attributes])
    return [rule for rule in rules if _has_login(users, rule)]


def _has_login(users: pd.DataFrame, rule: str) -> bool:
    needed = {
        "preferred_username_or_email": ("attribute.preferred_username", "attribute.email"),
        **{name: (name,) for name in OWN_COLUMNS},
    }.get(rule, (f"{ATTRIBUTE_PREFIX}{rule}",))
    return set(needed) <= set(users.columns)


def _read_accounts(database: Database) -> pa.ChunkedArray:
    return read_logins_of_single_sign_on(database, has_ledger=is_ledger_complete(database))


def _count_logins(
    users: pd.DataFrame, accounts: pa.ChunkedArray, rules: list[str], sync: Sync
) -> LoginCounts:
    # Joget's collations ignore the case of letters.
    lowered = pc.utf8_lower(accounts)
    by_rule = {}
    for rule in rules:
        logins = pc.utf8_lower(pa.array(map_login(users, rule), pa.string())).drop_null()
        if rule != sync.mapping.username and len(pc.unique(logins)) < len(logins):
            continue  # two users have one value, such as a manager's email: it is no login
        by_rule[rule] = int(pc.sum(pc.is_in(lowered, value_set=pc.unique(logins))).as_py() or 0)
    return LoginCounts(len(accounts), len(users), by_rule, sync.mapping.username)


def _judge_counts(name: str, counts: LoginCounts, *, is_sample: bool) -> Finding:
    if not counts.accounts:
        what = "Joget has no account that single sign-on made, so this can't be told"
        to_do = "Let somebody log in to Joget by single sign-on once, then run this again."
        return Finding(name, Status.UNKNOWN, what, to_do)
    what = _describe_counts(counts, is_sample=is_sample)
    best, own = counts.by_rule[counts.best], counts.by_rule.get(counts.rule, 0)
    if best > own:
        # A sample is one page of the pool, so it proves nothing.
        is_plain = best >= 2 * own and not is_sample
        status = Status.WRONG if is_plain else Status.WARNING
        to_do = (
            f"Single sign-on seems to log in with {counts.best}: set mapping.username to it, or "
            f"correct what single sign-on takes as the username in Joget."
        )
        return Finding(name, status, what, to_do)
    if not own and is_sample:
        return Finding(name, Status.UNKNOWN, what, "A snapshot tells more: run the sync once.")
    if not own:
        to_do = (
            "Compare mapping.username with what single sign-on takes as the username in Joget. "
            "These accounts may also be left over from people who have gone."
        )
        return Finding(name, Status.WARNING, what, to_do)
    return Finding(name, Status.OK, what)


def _describe_counts(counts: LoginCounts, *, is_sample: bool) -> str:
    shown = [
        f"{count:,} by {rule}" + (" (mapping.username)" if rule == counts.rule else "")
        for rule, count in counts.by_rule.items()
        if count or rule in RULES_ALWAYS_COUNTED or rule == counts.rule
    ]
    of_users = f"{counts.users:,} users" + (", a sample of the pool" if is_sample else "")
    return (
        f"single sign-on made {counts.accounts:,} accounts in Joget. So many of them have the "
        f"login of one of {of_users}: {', '.join(shown)}"
    )
