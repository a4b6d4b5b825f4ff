"""Ledgers as released versions left them, with Joget's rows, the pool and the staged files of that
time.

Before a release is tagged, `make ledger` writes its ledger into LEDGERS: `<release>.sql` has the
ledger's tables and Joget's rows, `<release>.zip` the pool and the staging folder. Later releases'
tests upgrade them.
"""

import hashlib
import itertools
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.mariadb import mariadb
from directory_sync import __version__
from directory_sync.joget.database import open_session
from directory_sync.joget.ledger import definition
from directory_sync.joget.schema import inspect_tables
from tests.company import Company
from tests.conftest import JogetDatabase, new_company
from tests.story import make_history

LEDGERS = Path(__file__).parent / "directory_sync" / "ledgers"

JOGET_TABLES = ("dir_user", "dir_group", "dir_employment", "dir_user_group", "dir_user_role")
"""Tables of Joget's that a sync writes to, parents first."""

STAGING_PLACE = "file:///staging"
"""This text stands in the files for the staging folder's URL."""

RUN_IDS_FROM = 1000
"""Numbers of the runs that a test adds to a restored history."""


def list_releases() -> list[str]:
    """The releases whose ledgers are kept."""
    return sorted(path.stem for path in LEDGERS.glob("*.sql"))


def write_ledger() -> None:
    """Write the ledger of this release."""
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        mariadb(Path(folder) / "database") as server,
    ):
        server.create_joget("joget")
        joget = JogetDatabase(server, "joget")
        patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", server.uri("joget"))
        with new_company(joget, Path(folder), patch) as company:
            make_history(company)
            with open_session("joget_mysql") as database:
                tables = inspect_tables(database, "ORG-001")
            place = str(company.settings["staging_url"])
            lines = [*definition.make_table_statements(tables).values(), *_write_statements(joget)]
            text = ";\n".join(lines).replace(place, STAGING_PLACE) + ";\n"
            LEDGERS.mkdir(exist_ok=True)
            (LEDGERS / f"{__version__}.sql").write_text(text, encoding="utf-8")
            _write_files(company, LEDGERS / f"{__version__}.zip")


def _write_statements(joget: JogetDatabase) -> Iterator[str]:
    connection = joget.server.connect(joget.name)
    for table in (*JOGET_TABLES, *definition.LEDGER_TABLES):
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {table}")
            columns = ", ".join(column[0] for column in cursor.description)
            for row in cursor.fetchall():
                values = ", ".join(connection.literal(value).decode() for value in row)
                yield f"REPLACE INTO {table} ({columns}) VALUES ({values})"
    connection.close()


def _write_files(company: Company, path: Path) -> None:
    place = str(company.settings["staging_url"])
    root = Path(place.removeprefix("file://"))
    pool = {"users": company.pool.users, "members": company.pool.members}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pool.json", json.dumps(pool, ensure_ascii=False, indent=1))
        for file in sorted(root.rglob("*")):
            if file.is_file():
                content = _replace_url(file.name, file.read_bytes(), place, STAGING_PLACE)
                archive.writestr(f"staging/{file.relative_to(root)}", content)


def restore(release: str, company: Company, charset: str) -> None:
    """Replace a new company's ledger, Joget, pool and staging by those that the release left. The
    open review can still be answered.
    """
    joget, place = company.joget, str(company.settings["staging_url"])
    text = (LEDGERS / f"{release}.sql").read_text(encoding="utf-8")
    text = text.replace(STAGING_PLACE, place).replace("utf8mb4", charset)
    connection = joget.server.connect(joget.name)
    with connection.cursor() as cursor:
        cursor.execute("SET FOREIGN_KEY_CHECKS = 0")  # REPLACE deletes parents first
        for statement in text.split(";\n"):
            if statement.strip():
                cursor.execute(statement)
        cursor.execute(
            "UPDATE directory_sync_review SET expires_at = UTC_TIMESTAMP(6) + INTERVAL 1 DAY"
        )
    connection.close()
    with zipfile.ZipFile(LEDGERS / f"{release}.zip") as archive:
        pool = json.loads(archive.read("pool.json"))
        files = {
            name: archive.read(name) for name in archive.namelist() if name.startswith("staging/")
        }
    company.pool.users, company.pool.members = pool["users"], pool["members"]
    company._numbers = itertools.count(RUN_IDS_FROM)
    with open_session("joget_mysql") as database:
        target = database.target
    _restore_files(files, place, target)


def _restore_files(files: dict[str, bytes], place: str, target: str) -> None:
    root = Path(place.removeprefix("file://"))
    for name, content in files.items():
        path = root / name.removeprefix("staging/")
        if path.parent.name == "applied":  # `<time>.<database>.<kind>.<key>`
            moment, _, rest = path.name.split(".", 2)
            path = path.with_name(f"{moment}.{target}.{rest}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_replace_url(path.name, content, STAGING_PLACE, place))
    for manifest in root.rglob("manifest.json"):
        correct_hashes(manifest)


def _replace_url(name: str, content: bytes, place: str, other: str) -> bytes:
    """Replace the staging folder's URL in a JSON file or a signpost."""
    return content if name.endswith(".parquet") else content.replace(place.encode(), other.encode())


def correct_hashes(manifest: Path) -> None:
    """Correct the hashes of the JSON files, which hold the URL of the staging folder."""
    content: dict[str, Any] = json.loads(manifest.read_bytes())
    for name, file in content["files"].items():
        if name.endswith(".json"):
            file["sha256"] = hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    write_ledger()
