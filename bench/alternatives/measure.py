"""What the alternatives share: their arguments, the company's ids, and the line they end with."""

import argparse
import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.memory import peak_mib

ORGANIZATION = "ORG-001"
ROLE = "ROLE_USER"


@dataclass(frozen=True)
class Target:
    """Where the rows lie and where they go."""

    rows: Path
    port: int
    database: str

    def uri(self, **query: str) -> str:
        """The database as SQLAlchemy names it."""
        options = "&".join(
            f"{name}={value}" for name, value in {"charset": "utf8mb4", **query}.items()
        )
        return f"mysql+mysqldb://root@127.0.0.1:{self.port}/{self.database}?{options}"


def target() -> Target:
    """The target that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--rows", type=Path, required=True, help="folder with the company's Parquet files"
    )
    parser.add_argument(
        "--port", type=int, required=True, help="MariaDB's port on the loopback interface"
    )
    parser.add_argument("--database", required=True, help="database with Joget's tables")
    asked = parser.parse_args()
    return Target(asked.rows, asked.port, asked.database)


def employment_id(user_id: str) -> str:
    """The id of a user's employment."""
    return hashlib.md5(f"{ORGANIZATION}/{user_id}".encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Clock:
    """Measures the time since it was made."""

    started: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """How long it has run."""
        return time.perf_counter() - self.started

    def report(self, **counted: int | bool) -> None:
        """Print one JSON line: time, what was counted, and the process's largest memory."""
        print(json.dumps({"seconds": round(self.seconds(), 3), **counted, "peak_mib": peak_mib()}))
