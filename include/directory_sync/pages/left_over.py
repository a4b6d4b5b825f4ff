"""Accounts in Joget that no user in the pool's scope has, as a run's page shows them."""

from dataclasses import dataclass
from itertools import islice

from directory_sync.pages.published_files import PublishedRun
from directory_sync.reasons import LEFT_OVER_REASONS, advise_on_reason
from directory_sync.report import LEFT_OVER_NAMES
from directory_sync.staging import store
from directory_sync.vocabulary import Outcome

MOST_ACCOUNTS_SHOWN = 100
ACCOUNT_COLUMNS = ["sub", "joget_id", "outcome", "code", "reason"]


@dataclass(frozen=True)
class LeftOverAccount:
    """An account. name: its login, or a name that hides it if the reader may see no values."""

    name: str
    reason: str
    to_do: str


@dataclass(frozen=True)
class LeftOverAccounts:
    """accounts: the first of them; in_all: how many; employed_twice: users with several
    employments.
    """

    accounts: tuple[LeftOverAccount, ...]
    in_all: int
    employed_twice: int

    @property
    def more(self) -> int:
        """How many accounts aren't among the first."""
        return self.in_all - len(self.accounts)


def find_left_over(found: PublishedRun, *, values: bool) -> LeftOverAccounts:
    """The left-over accounts in a run's directory.parquet, which is read only if it has any."""
    counts = found.report.left_over
    in_all = sum(counts.get(name, 0) for name in LEFT_OVER_NAMES)
    accounts = _read_accounts(found, values=values) if in_all else ()
    return LeftOverAccounts(accounts, in_all, counts.get("employed_twice", 0))


def _read_accounts(found: PublishedRun, *, values: bool) -> tuple[LeftOverAccount, ...]:
    rows = store.find_rows(
        found.folder, "directory.parquet", "code", LEFT_OVER_REASONS, columns=ACCOUNT_COLUMNS
    )
    accounts = (
        # Such an account has no sub. The name in its place reveals no login: it is a hash of an
        # employment's id (joget.left_over.ACCOUNT_PREFIX).
        LeftOverAccount(
            row["joget_id" if values else "sub"], row["reason"], advise_on_reason(row["code"])
        )
        for row in rows
        # The counts leave out accounts that this plan deactivates (report.left_over).
        if row["outcome"] != Outcome.DEACTIVATED
    )
    return tuple(islice(accounts, MOST_ACCOUNTS_SHOWN))
