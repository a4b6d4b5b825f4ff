"""The ledger's reviews and answers: what a person was asked, and what they answered."""

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import pandas as pd
import pyarrow as pa

from directory_sync.joget.database import Database
from directory_sync.plan.answers import AnswerUpdate
from directory_sync.run import Run


@dataclass(frozen=True)
class Review:
    """A question to a person about what a run held."""

    review_id: str
    sync: str
    asked_by: str
    """The run that asked."""
    plan_url: str
    """The folder of the plan with the held rows that were shown."""
    plan_sha256: str
    held_sha256: str
    """The hash of the rows that were shown (changes.hash_held_rows)."""
    answer: str | None = None
    """approve, reject, or null."""
    answered_at: datetime | None = None
    answered_by: str | None = None
    is_open: bool = True


IS_OPEN = (
    "(closed_at IS NULL AND (expires_at > UTC_TIMESTAMP(6) OR answered_at > UTC_TIMESTAMP(6) - "
    "INTERVAL 24 HOUR))"
)
"""A review blocks others until its time is over without an answer, or until its answer is a day old
and nothing acted on it.
"""

REVIEW_COLUMNS = (
    "review_id, sync, asked_by, plan_url, plan_sha256, held_sha256, answer, answered_at, "
    f"answered_by, {IS_OPEN}"
)


def find_review(database: Database, review_id: str) -> Review | None:
    """The review with that id, if there is one."""
    rows = database.rows(
        f"SELECT {REVIEW_COLUMNS} FROM directory_sync_review WHERE review_id = %s",
        (review_id,),
        about="directory_sync_review",
    )
    return Review(*rows[0]) if rows else None


def open_review(database: Database, sync: str) -> Review | None:
    """The sync's one open review, if there is one."""
    rows = database.rows(
        f"SELECT {REVIEW_COLUMNS} FROM directory_sync_review WHERE sync = %s AND {IS_OPEN}",
        (sync,),
        about="directory_sync_review",
    )
    return Review(*rows[0]) if rows else None


def is_approved(database: Database, plan_url: str) -> bool:
    """Whether a person approved what the plan in that folder holds, and the answer was carried
    out.
    """
    rows = database.rows(
        "SELECT COUNT(*) FROM directory_sync_review "
        "WHERE plan_url = %s AND answer = 'approve' AND closed_at IS NOT NULL",
        (plan_url,),
        about="directory_sync_review",
    )
    return int(rows[0][0]) > 0


def insert_review(database: Database, review: Review, timeout_hours: float) -> None:
    """Open a review, for an hour longer than its time-out, unless it was opened already."""
    # IGNORE, since a task that is retried finds the review of its earlier attempt.
    database.execute(
        "INSERT IGNORE INTO directory_sync_review (review_id, sync, asked_by, plan_url, "
        "plan_sha256, held_sha256, "
        "opened_at, expires_at) VALUES (%s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6), "
        "UTC_TIMESTAMP(6) + INTERVAL %s SECOND)",
        (
            review.review_id,
            review.sync,
            quote(review.asked_by),
            review.plan_url,
            review.plan_sha256,
            review.held_sha256,
            int(timeout_hours * 3600) + 3600,  # so that a late answer counts
        ),
        about="directory_sync_review",
    )


def note_answer(database: Database, review_id: str, answer: str, by: str | None) -> None:
    """Write an answer to a review, with the time and the person; the first answer stands."""
    database.execute(
        "UPDATE directory_sync_review SET answer = %s, answered_by = %s, answered_at = "
        "UTC_TIMESTAMP(6) "
        "WHERE review_id = %s AND answer IS NULL AND closed_at IS NULL",
        (answer, by, review_id),
        about="directory_sync_review",
    )


def close_review(database: Database, review_id: str) -> None:
    """Close a review that was acted on, or that timed out."""
    database.execute(
        "UPDATE directory_sync_review SET closed_at = UTC_TIMESTAMP(6) WHERE review_id = %s AND "
        "closed_at IS NULL",
        (review_id,),
        about="directory_sync_review",
    )


def read_answers(database: Database, run: Run, schema: pa.Schema) -> pd.DataFrame:
    """What was rejected or undone, in the schema's columns."""
    return database.frame(
        "SELECT decision_sha256, verdict, about, decided_at FROM directory_sync_decision WHERE "
        "sync = %s",
        (run.sync.name,),
        schema=schema,
        about="directory_sync_decision",
    )


HASHES_IN_A_STATEMENT = 50_000
"""About 3 MB, well below MariaDB's max_allowed_packet of 16 MB."""


def update_answers(database: Database, sync: str, update: AnswerUpdate) -> None:
    """Remember and forget answers, and close their review, in the transaction of the changes."""
    given = update.given.assign(sync=sync)
    database.insert(
        "REPLACE INTO directory_sync_decision (sync, decision_sha256, verdict, about, decided_by, "
        "decided_at) VALUES (%s, %s, %s, %s, %s, UTC_TIMESTAMP(6))",
        given[["sync", "answer_sha256", "verdict", "about", "decided_by"]],
        about="directory_sync_decision",
    )
    for start in range(0, len(update.forgotten), HASHES_IN_A_STATEMENT):
        hashes = update.forgotten[start : start + HASHES_IN_A_STATEMENT]
        database.execute(
            f"DELETE FROM directory_sync_decision WHERE sync = %s "
            f"AND decision_sha256 IN ({', '.join(['%s'] * len(hashes))})",
            (sync, *hashes),
            about="directory_sync_decision",
        )
    if update.closes_review:
        close_review(database, update.closes_review)
