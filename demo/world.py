"""The demo's world: MariaDB with Joget's tables, moto as AWS, and settings that join them."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.airflow import environment
from demo.aws import BUCKET, Aws, aws
from demo.database import DatabaseServer
from demo.mariadb import mariadb

DATABASE = "jwdb"

SETTINGS = Path(__file__).parent / "syncs.yaml"


@dataclass(frozen=True)
class World:
    """Everything that a sync joins."""

    folder: Path
    joget: DatabaseServer
    aws: Aws
    pool_id: str

    @property
    def airflow(self) -> dict[str, str]:
        """Airflow's environment."""
        home = self.folder / "airflow"
        home.mkdir(exist_ok=True)
        return environment(
            home, settings=SETTINGS, joget_uri=self.joget_uri, endpoint=self.aws.endpoint
        )

    @property
    def joget_uri(self) -> str:
        """The Connection joget_mysql, of an account with the documented rights."""
        return self.joget.account_uri(DATABASE)

    def newest_report(self) -> dict[str, Any]:
        """The report.json that was staged last."""
        s3 = self.aws.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET, Prefix="staging/").get("Contents", [])
        reports = sorted(
            (found["LastModified"], found["Key"])
            for found in listed
            if "report.json" in found["Key"]
        )
        content: dict[str, Any] = json.loads(
            s3.get_object(Bucket=BUCKET, Key=reports[-1][1])["Body"].read()
        )
        return content

    def directory(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of each of Joget's directory tables, by table, ordered by all columns."""
        connection = self.joget.connect(DATABASE)
        with connection.cursor() as cursor:
            cursor.execute("SHOW TABLES LIKE 'dir\\_%'")
            tables = [name for (name,) in cursor.fetchall()]
            directory = {}
            for table in tables:
                cursor.execute(f"SELECT * FROM {table}")  # noqa: S608 - a name that the server gave
                names = [column[0] for column in cursor.description]
                directory[table] = [
                    dict(zip(names, row, strict=True))
                    for row in sorted(cursor.fetchall(), key=repr)
                ]
        connection.close()
        return directory


@contextmanager
def world() -> Iterator[World]:
    """Start everything in a temporary folder, seed it, and stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="directory-sync-") as name:
        folder = Path(name)
        with mariadb(folder / "mariadb") as joget, aws(folder / "aws") as cloud:
            joget.create_joget(DATABASE)
            joget.create_account(DATABASE)
            yield World(folder, joget, cloud, pool_id=cloud.seed())
