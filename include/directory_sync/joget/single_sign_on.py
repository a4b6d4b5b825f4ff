"""The accounts that single sign-on made in Joget."""

import pyarrow as pa

from directory_sync.joget.database import Database
from directory_sync.plan.users import MADE_WITHOUT_PASSWORD

MADE_BY_SINGLE_SIGN_ON = (
    "u.password IS NULL AND CAST(u.id AS BINARY) <=> CAST(u.username AS BINARY) AND NOT EXISTS "
    "(SELECT 1 FROM dir_user_role r WHERE r.userId = u.id AND r.roleId = 'ROLE_ADMIN')"
)
"""SQL: whether dir_user's row `u` is as single sign-on makes one: no password, id = username, and
no administrator.
"""

LINK_OF_USER = "l.user_id_sha256 = CONVERT(SHA2(u.id, 256) USING ascii)"
"""SQL: whether directory_sync_user_link's row `l` links dir_user's row `u`."""

LOGINS_SCHEMA = pa.schema([("login", pa.string())])


def read_logins_of_single_sign_on(database: Database, *, has_ledger: bool) -> pa.ChunkedArray:
    """The logins of the accounts that single sign-on made, those that the sync adopted too."""
    # The accounts that the sync created look the same. The ledger tells them apart, and they are
    # left out: their logins say nothing about single sign-on.
    origins = ", ".join(["%s"] * len(MADE_WITHOUT_PASSWORD))
    created = (
        f"SELECT 1 FROM directory_sync_user_link l WHERE {LINK_OF_USER} AND l.origin IN ({origins})"
    )
    found = database.frame(
        f"SELECT u.username FROM dir_user u WHERE {MADE_BY_SINGLE_SIGN_ON}"
        + (f" AND NOT EXISTS ({created})" if has_ledger else ""),
        [str(origin) for origin in MADE_WITHOUT_PASSWORD] if has_ledger else (),
        schema=LOGINS_SCHEMA,
        about="dir_user",
    )
    return pa.chunked_array([pa.array(found["login"], pa.string())], pa.string())
