"""A company for scenarios: its pool, its Joget, its settings, and one run of the sync after the
other.
"""

import itertools
import os
import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from directory_sync.run import Attempt
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks import extract, load, review, transform, undo
from tests.conftest import JogetDatabase
from tests.stand_in import POOL_ID, Faults, Pool, StandIn, user


@dataclass
class Company:
    """Runs the four steps as the DAG's tasks do, over a stand-in for Cognito and a real MariaDB."""

    pool: Pool
    cognito: StandIn
    joget: JogetDatabase
    settings_path: Path
    settings: dict[str, Any]
    faults: Faults
    last: Manifest | None = None
    _numbers: Any = field(default_factory=itertools.count)

    def configure(self, **changes: Any) -> None:
        """Change settings; a section's value replaces only the keys that it names."""
        for key, value in changes.items():
            self.settings[key] = (
                {**self.settings.get(key, {}), **value} if isinstance(value, dict) else value
            )
        self.settings_path.write_text(yaml.safe_dump({"syncs": [self.settings]}), encoding="utf-8")

    def run(self, **parameters: Any) -> dict[str, Any]:
        """Do one whole run; returns its report.json."""
        return self.load(self.prepare(**parameters))

    def prepare(self, **parameters: Any) -> Manifest:
        """Do everything up to `load`."""
        run_id = f"manual__{next(self._numbers)}+00:00"
        users = extract.extract_users(attempt("extract_users", run_id), "default", {}, parameters)
        groups = extract.extract_groups(attempt("extract_groups", run_id), users.url)
        return transform.transform_snapshot(attempt("transform", run_id), users.url, groups.url)

    def load(self, transformed: Manifest) -> dict[str, Any]:
        """Do `load` alone; a second time with the same manifest, it is a retry."""
        self.last = load.load_snapshot(attempt("load", transformed.run_id), transformed.url)
        report: dict[str, Any] = store.read_json(self.last, "report.json")
        return report

    def prepare_backfill(self, run_id: str, began: datetime) -> Manifest:
        """Do everything up to `load`, for a run that a backfill made at that time."""
        users = extract.extract_users(
            replace(attempt("extract_users", run_id), backfill_since=began), "default", {}, {}
        )
        groups = extract.extract_groups(
            replace(attempt("extract_groups", run_id), backfill_since=began), users.url
        )
        return transform.transform_snapshot(attempt("transform", run_id), users.url, groups.url)

    def ask(self) -> str | None:
        """Do `request_review` after the last load; returns the review's id."""
        assert self.last is not None
        return review.request_review(self.last.url)

    def answer(self, review_id: str, answer: str) -> dict[str, Any]:
        """Answer as a person does, and do `load_held`; returns its report."""
        assert review.read_question("default", review_id, by_hand=False)
        review.note_answer("default", review_id, answer, "Olga")
        return self.load_held(review_id)

    def load_held(self, review_id: str) -> dict[str, Any]:
        """Do `load_held` alone."""
        self.last = review.load_held(
            attempt("load_held", f"review__{review_id}"), "default", review_id
        )
        report: dict[str, Any] = store.read_json(self.last, "report.json")
        return report

    def undo(self, run_id: str, **parameters: Any) -> dict[str, Any]:
        """Do the undo DAG's task; returns its report."""
        conf = {"run_id": run_id, "dry_run": False, **parameters}
        self.last = undo.undo_run(
            attempt("undo", f"undo__{next(self._numbers)}"), "default", {}, conf
        )
        report: dict[str, Any] = store.read_json(self.last, "report.json")
        return report

    def let_hours_pass(self, hours: int) -> None:
        """Make everything that the ledger remembers older by so many hours."""
        for table, columns in {
            "directory_sync_run": ("committed_at", "snapshot_at"),
            "directory_sync_user_link": ("changed_at", "linked_at"),
            "directory_sync_review": ("opened_at", "expires_at"),
        }.items():
            for column in columns:
                self.joget.execute(
                    f"UPDATE {table} SET {column} = {column} - INTERVAL {hours} HOUR"
                )

    def let_days_pass(self, days: int) -> None:
        """Make everything in staging and in the ledger older by so many days."""
        self.let_hours_pass(24 * days)
        for path in self.staging_folder.rglob("*"):
            if path.parent.name == "cleanings":
                path.unlink()
            elif path.is_file():
                at = path.stat().st_mtime - days * 86_400
                os.utime(path, (at, at))

    @property
    def staging_folder(self) -> Path:
        """Where the settings' staging_url points."""
        return Path(self.settings["staging_url"].removeprefix("file://"))

    def active(self) -> list[str]:
        """Ids of active users, without Joget's own."""
        return sorted(
            self.joget.column(
                "SELECT id FROM dir_user WHERE active = 1 AND id NOT IN ('admin', 'cat')"
            )
        )

    def staged(self, name: str) -> pd.DataFrame:
        """A frame that the last load left."""
        assert self.last is not None
        return store.read_frame(self.last, name)

    def usernames(self) -> list[str]:
        return sorted(
            self.joget.column(
                "SELECT username FROM dir_user WHERE username NOT IN ('admin', 'cat')"
            )
        )

    def user(self, login: str) -> dict[str, Any]:
        """A row of dir_user by its exact id."""
        names = ["firstName", "lastName", "email", "active", "timeZone", "locale", "password"]
        rows = self.joget.execute(
            f"SELECT {', '.join(names)} FROM dir_user WHERE BINARY id = %s", (login,)
        )
        return dict(zip(names, rows[0], strict=True))

    def memberships(self) -> set[tuple[str, str]]:
        """Pairs of user id and group id, without Joget's own."""
        rows = self.joget.execute(
            "SELECT userId, groupId FROM dir_user_group WHERE groupId <> 'managers'"
        )
        return {(user_id, group_id) for user_id, group_id in rows}

    def reasons(self, report: dict[str, Any]) -> dict[str, str]:
        """The quarantine's reasons by key."""
        return {entry["key"]: entry["reason"] for entry in report["quarantine"]}


def attempt(task: str, run_id: str) -> Attempt:
    return Attempt(name=f"{task}.1.{uuid.uuid4().hex[:12]}", run_id=run_id)


def settings(staging_folder: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a valid sync, with changes."""
    return {
        "name": "default",
        "user_pool_id": POOL_ID,
        "region": "us-east-1",
        "organization": "ORG-001",
        "staging_url": f"file://{staging_folder}",
        "requests_per_second": 2000,
        "policies": {"missing_minutes": 0},
        **changes,
    }


def people(count: int, name: str = "person") -> list[Any]:
    """Make so many users, with logins that begin with the name."""
    return [user(f"{name}{number:03}@example.org") for number in range(count)]


def causes(report: dict[str, Any]) -> dict[str, int]:
    """How many rows are held, by cause."""
    return {hold["cause"]: hold["rows"] for hold in report["holds"]}


def counts(report: dict[str, Any], entity: str = "users") -> dict[str, int]:
    """The counts that aren't zero."""
    return {what: count for what, count in report[entity].items() if count}
