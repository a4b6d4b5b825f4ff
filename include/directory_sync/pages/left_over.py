"""Accounts in Joget that no user in the pool's scope has, as a run's page shows them."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from include.directory_sync import staging
from include.directory_sync.pages.published import Published, read_groups
from include.directory_sync.report import LEFT_OVER_NAMES
from include.directory_sync.vocabulary import LEFT_OVER_REASONS, Outcome, advise_on_reason

MOST_SHOWN = 100
COLUMNS = ["sub", "joget_id", "outcome", "code", "reason"]


@dataclass(frozen=True)
class LeftOver:
    """An account; name: its login, or what stands for it where the reader may see no values."""

    name: str
    reason: str
    to_do: str


@dataclass(frozen=True)
class LeftOvers:
    """accounts: the first of them; in_all: how many; employed_twice: users with several employments."""

    accounts: tuple[LeftOver, ...]
    in_all: int
    employed_twice: int

    @property
    def more(self) -> int:
        """How many accounts aren't among the first."""
        return self.in_all - len(self.accounts)


def find_left_over(found: Published, *, values: bool) -> LeftOvers:
    """What a run left in directory.parquet of such accounts; reads it only where there are any."""
    counts = found.report.left_over
    in_all = sum(counts.get(name, 0) for name in LEFT_OVER_NAMES)
    accounts = _read_accounts(found, values=values) if in_all else ()
    return LeftOvers(accounts, in_all, counts.get("employed_twice", 0))


def _read_accounts(found: Published, *, values: bool) -> tuple[LeftOver, ...]:
    accounts: list[LeftOver] = []
    reasons = pa.array([str(reason) for reason in LEFT_OVER_REASONS])
    with staging.open_parquet(found.folder, "directory.parquet") as file:
        for _, rows in read_groups(file, COLUMNS):
            chosen = pc.is_in(rows.column("code"), value_set=reasons)
            chosen = pc.and_(chosen, pc.not_equal(rows.column("outcome"), str(Outcome.DEACTIVATED)))
            accounts += [
                LeftOver(row["joget_id" if values else "sub"], row["reason"], advise_on_reason(row["code"]))
                for row in rows.filter(chosen).slice(0, MOST_SHOWN - len(accounts)).to_pylist()
            ]
            if len(accounts) >= MOST_SHOWN:
                break
    return tuple(accounts)
