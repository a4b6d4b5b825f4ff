"""What a plan means for the answers that people gave: which to remember, and which to forget."""

from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from directory_sync.frames import make_empty_frame
from directory_sync.plan.changes import Plan, hash_for_answers
from directory_sync.plan.dependencies import remove_dependents
from directory_sync.vocabulary import UNTOUCHED_OUTCOMES

GIVEN_ANSWERS_SCHEMA = pa.schema(
    [
        ("answer_sha256", pa.string()),
        ("verdict", pa.string()),
        ("about", pa.string()),
        ("decided_by", pa.string()),
    ]
)
"""Answers to remember. answer_sha256: changes.hash_for_answers; verdict: `rejected` or `undone`;
about: the sub, null for a group; decided_by: the review, or the undo's key in the ledger.
"""


@dataclass(frozen=True)
class AnswerUpdate:
    """What a load changes among the ledger's answers, in the transaction of its changes."""

    given: pd.DataFrame = field(default_factory=lambda: make_empty_frame(GIVEN_ANSWERS_SCHEMA))
    """Columns GIVEN_ANSWERS_SCHEMA."""
    forgotten: tuple[str, ...] = ()
    """answer_sha256 of answers about changes that nobody asks for any more."""
    closes_review: str | None = None


def give_answers(changes: pd.DataFrame, verdict: str, decided_by: str) -> pd.DataFrame:
    """Columns GIVEN_ANSWERS_SCHEMA for the changes (changes.CHANGES_SCHEMA) that a person rejected
    or took back.
    """
    # An answer is about its own row. Rows that depend on it wait as long as it does, and are then
    # decided by their own values (rule 13).
    own = remove_dependents(changes)
    return pd.DataFrame(
        {
            "answer_sha256": hash_for_answers(own),
            "verdict": verdict,
            "about": own["sub"],
            "decided_by": decided_by,
        }
    )


def find_forgotten(plan: Plan, answers: pd.DataFrame, before: pd.Timestamp) -> tuple[str, ...]:
    """The hashes of answers (current.ANSWERS_SCHEMA) to changes that the plan doesn't ask for any
    more.

    The plan must be of a complete snapshot of everybody. before: the snapshot's time, in UTC.
    """
    if answers.empty:
        return ()
    # The plan says nothing about users that it left alone, nor about answers that came after its
    # snapshot: both kinds stay.
    left_alone = plan.directory["outcome"].isin(UNTOUCHED_OUTCOMES)
    undecided = plan.directory.loc[left_alone, "sub"].dropna()
    stays = answers["answer_sha256"].isin(hash_for_answers(plan.held))
    stays |= answers["about"].isin(undecided) | ~(answers["decided_at"] < before)
    return tuple(answers.loc[~stays, "answer_sha256"])
