"""A running database server of ours, MariaDB or MySQL, and Joget's directory tables in it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import MySQLdb

JOGET_SQL = Path(__file__).parent / "joget.sql"
GRANTS_SQL = Path(__file__).parent.parent / "docs" / "joget-grants.sql"
ACCOUNT_SQL = Path(__file__).parent / "account.sql"
ACCOUNT, PASSWORD = "directory_sync", "demo"
"""The account that ACCOUNT_SQL makes and GRANTS_SQL names."""

COLLATIONS = {"utf8mb4": "utf8mb4_unicode_ci", "utf8mb3": "utf8mb3_unicode_ci"}


@dataclass(frozen=True)
class DatabaseServer:
    """A running server; root may log in from the loopback interface without a password."""

    port: int

    def connect(self, database: str = "", user: str = "root", password: str = "") -> Any:
        """A connection in utf8mb4 and autocommit."""
        return MySQLdb.connect(
            host="127.0.0.1",
            port=self.port,
            user=user,
            passwd=password,
            db=database,
            charset="utf8mb4",
            autocommit=True,
        )

    def uri(self, database: str, user: str = "root", password: str = "") -> str:
        """The database as an Airflow Connection."""
        return f"mysql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def create_joget(self, database: str, charset: str = "utf8mb4") -> None:
        """A fresh Joget directory."""
        connection = self.connect()
        with connection.cursor() as cursor:
            text = f"CHARACTER SET {charset} COLLATE {COLLATIONS[charset]}"
            cursor.execute(f"CREATE DATABASE {database} {text}")
            cursor.execute(f"USE {database}")
            for statement in JOGET_SQL.read_text(encoding="utf-8").split(";\n"):
                if statement.strip():
                    cursor.execute(statement)
        connection.close()

    def create_account(self, database: str, *parts: int) -> None:
        """The sync's account, with the documented rights on that database, or with the rights of
        these parts of GRANTS_SQL only.
        """
        connection = self.connect()
        with connection.cursor() as cursor:
            cursor.execute(ACCOUNT_SQL.read_text(encoding="utf-8"))
            for grant in read_grants(*parts):
                cursor.execute(grant.replace("jwdb.", f"{database}."))
        connection.close()

    def account_uri(self, database: str) -> str:
        """The database as an Airflow Connection of the sync's account."""
        return self.uri(database, ACCOUNT, PASSWORD)

    def accepts_logins(self) -> bool:
        """Whether root can log in by now."""
        try:
            self.connect().close()
        except MySQLdb.Error:
            return False
        return True


def read_grants(*parts: int) -> list[str]:
    """The statements of these parts of GRANTS_SQL, or of all of them, in its order."""
    texts = GRANTS_SQL.read_text(encoding="utf-8").split("-- Part ")[1:]
    wanted = [text for text in texts if not parts or int(text[0]) in parts]
    lines = [line for text in wanted for line in text.splitlines()]
    return [line.rstrip(";") for line in lines if line.startswith("GRANT ")]
