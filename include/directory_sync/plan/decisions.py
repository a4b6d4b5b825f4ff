"""Deciding each row once: the first rule that fits is the one that counts."""

import pandas as pd

from include.directory_sync.frames import no_text, yes


class Decisions:
    """Outcomes of a frame's rows, given rule by rule; a row that has one is never decided again."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._outcome, self._reason, self._hold = (no_text(frame.index) for _ in range(3))

    @property
    def open(self) -> "pd.Series[bool]":
        """Rows that no rule fitted yet."""
        return self._outcome.isna()

    def outcome_is(self, outcome: str) -> "pd.Series[bool]":
        """Rows that have this outcome."""
        return yes(self._outcome == outcome)

    def decide(
        self,
        rows: "pd.Series[bool]",
        outcome: str,
        reason: "pd.Series[str] | str | None" = None,
        hold: str | None = None,
    ) -> None:
        """Give an outcome to those of the rows that are still open."""
        chosen = yes(rows) & self.open
        self._outcome = self._outcome.mask(chosen, outcome)
        self._reason = self._reason.mask(chosen, reason)
        self._hold = self._hold.mask(chosen, hold)

    def frame(self) -> pd.DataFrame:
        """Columns outcome, reason, hold."""
        return pd.DataFrame({"outcome": self._outcome, "reason": self._reason, "hold": self._hold})
