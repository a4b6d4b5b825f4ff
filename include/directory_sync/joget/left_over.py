"""Accounts of the organization that the pool doesn't have, such as the Joget plugin's."""

import pandas as pd
import pyarrow as pa

from directory_sync.frames import look_up, make_empty_frame
from directory_sync.joget.database import Database, split_into_batches
from directory_sync.joget.schema import LEDGER_TEXT_LENGTH, JogetTables, name_columns
from directory_sync.joget.single_sign_on import LINK_OF_USER, MADE_BY_SINGLE_SIGN_ON
from directory_sync.mapping import Desired
from directory_sync.plan import current as now
from directory_sync.plan.changes import USER_COLUMNS
from directory_sync.vocabulary import Verdict


def find_left_over(
    database: Database,
    tables: JogetTables,
    desired: Desired,
    keys: pd.DataFrame,
    linked: pd.DataFrame,
    *,
    has_ledger: bool,
) -> pd.DataFrame:
    """Columns current.LEFT_OVER_SCHEMA."""
    accounts = _read_unlinked_accounts(database, tables, linked, has_ledger=has_ledger)
    if accounts.empty:
        return accounts
    logins = desired.users.dropna(subset=["username"])
    # The logins of quarantined users weren't sent. Without their keys, a listed user would count as
    # a leaver.
    unasked = logins.loc[~logins["username"].isin(keys["text"]), "username"]
    unasked = unasked[
        (logins["verdict"] == Verdict.QUARANTINED) & (unasked.str.len() <= LEDGER_TEXT_LENGTH)
    ]
    known = pd.concat([keys, _find_text_keys(database, tables, unasked.drop_duplicates().tolist())])
    key = look_up(logins["username"], known, "text", "key")
    by_login = look_up(
        accounts["id_key"], logins.assign(key=key).dropna(subset=["key"]), "key", "verdict"
    )
    # The Joget plugin made the email the id, whatever the mapping's login is. Only letters' case is
    # ignored here: for the collation's keys, each run would send the emails of the whole pool to
    # the database, for a few accounts that nobody's login fits.
    emails = desired.users[["email", "verdict"]].assign(
        email=desired.users["email"].str.strip().str.casefold()
    )
    by_email = look_up(
        accounts["id"].str.strip().str.casefold(), emails[emails["email"] != ""], "email", "verdict"
    )
    name = ACCOUNT_PREFIX + accounts["account"]
    return accounts.assign(account=name, verdict=by_login.fillna(by_email))


def _read_unlinked_accounts(
    database: Database, tables: JogetTables, linked: pd.DataFrame, *, has_ledger: bool
) -> pd.DataFrame:
    """Columns current.LEFT_OVER_SCHEMA: active users of the organization who have no password and
    no link, and aren't administrators.
    """
    # Nearly all of these users are linked, as `linked` tells. The others are looked at closely.
    ids = database.frame(
        "SELECT u.id FROM dir_user u WHERE u.active = 1 AND u.password IS NULL",
        schema=pa.schema([("id", pa.string())]),
        about="dir_user",
    )["id"]
    employed = "FROM dir_employment e WHERE e.userId = u.id AND e.organizationId = %s"
    # Another sync may have linked the account.
    linked_too = f"EXISTS (SELECT 1 FROM directory_sync_user_link l WHERE {LINK_OF_USER})"
    statement = (
        f"SELECT LEFT(SHA2((SELECT MIN(e.id) {employed}), 256), 16), u.id, "
        f"{name_columns(USER_COLUMNS, 'u')}, {tables.key('u.id')}, NULL FROM "
        f"dir_user u WHERE u.active = 1 AND EXISTS (SELECT 1 {employed}) AND "
        f"{MADE_BY_SINGLE_SIGN_ON}" + (f" AND NOT {linked_too}" if has_ledger else "")
    )
    parts = [
        database.frame(
            f"{statement} AND u.id IN ({', '.join(['%s'] * len(batch))})",
            (tables.organization, tables.organization, *batch),
            schema=now.LEFT_OVER_SCHEMA,
            about="dir_user",
        )
        for batch in split_into_batches(ids[~ids.isin(linked["user_id"])].tolist())
    ]
    parts.append(make_empty_frame(now.LEFT_OVER_SCHEMA))
    return pd.concat(parts, ignore_index=True)


ACCOUNT_PREFIX = "left-over-"
"""The name of an account without a sub is this prefix and a hash of the id of its first employment:
it doesn't reveal the login."""


def _find_text_keys(database: Database, tables: JogetTables, texts: list[str]) -> pd.DataFrame:
    """Columns current.TEXT_KEYS_SCHEMA, for texts that weren't sent because no rule may see their
    keys.
    """
    parts = [make_empty_frame(now.TEXT_KEYS_SCHEMA)]
    if not tables.stores_all_of_unicode:
        texts = [text for text in texts if max(map(ord, text), default=0) <= 0xFFFF]  # noqa: PLR2004 - the last of utf8
    for batch in split_into_batches(texts):
        rows = " UNION ALL ".join([f"SELECT {tables.as_directory('%s')} AS text"] * len(batch))
        statement = f"SELECT c.text, {tables.key('c.text')} FROM ({rows}) c"
        parts.append(
            database.frame(
                statement, batch, schema=now.TEXT_KEYS_SCHEMA, about="a query without tables"
            )
        )
    return pd.concat(parts, ignore_index=True)


def count_employed_twice(database: Database, tables: JogetTables) -> int:
    """How many users have several employments in the organization: the Joget plugin makes one for
    each of a user's groups.
    """
    statement = (
        "SELECT COUNT(*) FROM (SELECT userId FROM dir_employment WHERE organizationId = %s "
        "GROUP BY userId HAVING COUNT(*) > 1) c"
    )
    return int(database.rows(statement, (tables.organization,), about="dir_employment")[0][0])
