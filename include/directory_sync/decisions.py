"""Deciding each row once: the first rule that fits counts."""

import pandas as pd

from directory_sync.frames import TEXT_TYPE, is_true, make_null_texts
from directory_sync.reasons import Reason, split_reason_sentence
from directory_sync.vocabulary import Cause, Outcome


class Decisions:
    """Outcomes of a frame's rows, given rule by rule; a row that has one is never decided again."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._outcome, self._code, self._reason, self._hold = (
            make_null_texts(frame.index) for _ in range(4)
        )

    @property
    def open(self) -> "pd.Series[bool]":
        """Rows that no rule has decided yet."""
        return self._outcome.isna()

    @property
    def contends(self) -> "pd.Series[bool]":
        """Rows that count where several want the same login."""
        # Users that this run isn't for are decided here, but the next run may give them the login.
        return self.open | is_true(self._code == Reason.NOT_ASKED)

    def outcome_is(self, outcome: Outcome) -> "pd.Series[bool]":
        """Rows that have this outcome."""
        return is_true(self._outcome == outcome)

    def decide(
        self,
        rows: "pd.Series[bool]",
        outcome: Outcome,
        reason: Reason | None = None,
        hold: Cause | None = None,
        *,
        detail: "pd.Series[str] | str" = "",
    ) -> None:
        """Give an outcome to those of the rows that are still open.

        `detail` is what the reason's sentence is about, such as an attribute's name; never a
        personal value. `hold` is the cause that makes the change wait for a person.
        """
        chosen = is_true(rows) & self.open
        if not chosen.any():  # in most runs, most rules fit no row
            return
        self._outcome = self._outcome.mask(chosen, outcome)
        self._hold = self._hold.mask(chosen, hold)
        if reason is not None:
            # By parts, not by str.format: the detail may be a column, with a text for each row.
            before, after = split_reason_sentence(reason)
            self._code = self._code.mask(chosen, reason)
            self._reason = self._reason.mask(chosen, before + detail + after)

    def decide_as_mapped(
        self, rows: "pd.Series[bool]", outcome: Outcome, mapped: pd.DataFrame
    ) -> None:
        """Give an outcome with the code and reason that mapping found (columns code, reason)."""
        chosen = is_true(rows) & self.open
        if not chosen.any():
            return
        self._outcome = self._outcome.mask(chosen, outcome)
        self._code = self._code.mask(chosen, mapped["code"])
        self._reason = self._reason.mask(chosen, mapped["reason"])

    def frame(self) -> pd.DataFrame:
        """Columns outcome, code, reason, hold."""
        return pd.DataFrame(
            {
                "outcome": self._outcome,
                "code": self._code,
                "reason": self._reason,
                "hold": self._hold,
            }
        ).astype(TEXT_TYPE)
