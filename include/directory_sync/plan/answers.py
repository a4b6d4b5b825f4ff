"""What a plan means for the answers that people gave: which are remembered, and which are forgotten."""

from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from include.directory_sync.frames import empty
from include.directory_sync.plan.changes import Plan, answer_hashes
from include.directory_sync.plan.dependencies import without_dependents
from include.directory_sync.vocabulary import LEFT_ALONE

GIVEN_SCHEMA = pa.schema(
    [
        ("answer_sha256", pa.string()),
        ("verdict", pa.string()),
        ("about", pa.string()),
        ("decided_by", pa.string()),
    ]
)
"""Answers to remember. answer_sha256: changes.answer_hashes; verdict: `rejected` or `undone`;
about: the sub, null for a group; decided_by: the review, or the undo's key in the ledger.
"""


@dataclass(frozen=True)
class AnswerUpdate:
    """What a load changes among the ledger's answers, in the transaction of its changes."""

    given: pd.DataFrame = field(default_factory=lambda: empty(GIVEN_SCHEMA))
    """Columns GIVEN_SCHEMA."""
    forgotten: tuple[str, ...] = ()
    """answer_sha256 of answers about changes that nobody asks for any more."""
    closes_review: str | None = None


def give_answers(changes: pd.DataFrame, verdict: str, decided_by: str) -> pd.DataFrame:
    """Columns GIVEN_SCHEMA for the changes (changes.CHANGES) that a person rejected or took back.

    An answer is about its own row: what depends on that row waits as long as the row does, and is
    decided by its own values afterwards (rule 13).
    """
    own = without_dependents(changes)
    return pd.DataFrame(
        {
            "answer_sha256": answer_hashes(own),
            "verdict": verdict,
            "about": own["sub"],
            "decided_by": decided_by,
        }
    )


def find_forgotten(plan: Plan, answers: pd.DataFrame, before: pd.Timestamp) -> tuple[str, ...]:
    """The hashes of answers (current.ANSWERS) to changes that the plan doesn't ask for any more.

    The plan must be of a complete snapshot of everybody. Two kinds of answers stay: those given
    after the snapshot's time (`before`, in UTC), and those about users that the plan left alone.
    """
    if answers.empty:
        return ()
    left_alone = plan.directory["outcome"].isin(LEFT_ALONE)
    undecided = plan.directory.loc[left_alone, "sub"].dropna()
    stays = answers["answer_sha256"].isin(answer_hashes(plan.held))
    stays |= answers["about"].isin(undecided) | ~(answers["decided_at"] < before)
    return tuple(answers.loc[~stays, "answer_sha256"])
