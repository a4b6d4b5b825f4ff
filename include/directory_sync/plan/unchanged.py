"""Finding the users that don't change, by bytes and before any rule.

In nearly every run they are nearly everybody. The rules would call each of them `unchanged` too, at
many times the cost; a property test checks that they do.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from directory_sync.frames import find_positions, is_true, take_rows, take_values
from directory_sync.mapping import MAPPED_COLUMNS
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.users import is_newer
from directory_sync.run import Run
from directory_sync.vocabulary import Outcome, State, Verdict


@dataclass(frozen=True)
class Unchanged:
    """users: the unchanged users, in the columns of DECIDED_USERS_SCHEMA that they have values in.

    desired, current: the rows that the rules still have to decide.
    """

    users: pd.DataFrame
    desired: pd.DataFrame
    current: Current

    def join(self, decided: pd.DataFrame) -> pd.DataFrame:
        """All users, once the others are decided: the columns of `decided`."""
        if self.users.empty:
            return decided
        types = {name: kind for name, kind in decided.dtypes.items() if name in self.users.columns}
        return pd.concat([decided, self.users.astype(types)], ignore_index=True).astype(types)


def find_unchanged(
    run: Run, desired: pd.DataFrame, current: Current, evidence: Evidence
) -> Unchanged:
    """Take out each desired user (mapping.DESIRED_USERS_SCHEMA) that is linked, active and without
    misses, if Joget has all their values already.

    In a run for some users, nobody is taken out.
    """
    # The rules freeze the users that such a run isn't for.
    if run.is_for_some:
        return Unchanged(pd.DataFrame(), desired, current)
    links = current.user_links
    own = (links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)
    quiet = own & (links["state"] == State.ACTIVE) & (links["misses"] == 0)
    # The database was asked for the id's key, so the id or another text with its key is compared
    # with others: only the rules can decide the user.
    quiet &= ~links["is_compared"]
    links = links[is_true(quiet) & ~is_newer(evidence, links)]
    of_link = find_positions(desired["sub"], links["sub"])
    joget_id = take_values(links["user_id"], of_link, desired.index)
    of_row = find_positions(joget_id, current.users["id"])
    now = take_rows(current.users, of_row, desired.index)
    same = (
        is_true(desired["username"] == joget_id)
        & is_true(now["username"] == joget_id)
        & is_true(now["id_key"] == now["username_key"])
    )
    same &= (desired["verdict"] == Verdict.MAPPED) & desired["active"] & is_true(now["active"] == 1)
    same &= ~is_true(now["is_admin"]) & ~is_true(now["is_replaced"])
    for column in MAPPED_COLUMNS:
        # Mapping's null leaves Joget's value (rule 3).
        same &= is_true(desired[column] == now[column]) | desired[column].isna()
    same = is_true(same)
    found, joget_id = desired[same], joget_id[same]
    users = pd.DataFrame(
        {
            "sub": found["sub"],
            "joget_id": joget_id,
            "before_id": joget_id,
            "after_id": joget_id,
            "before_link": run.sync.user_pool_id + "/" + found["sub"],
            "before_state": str(State.ACTIVE),
            "before_active": 1,
            "before_misses": 0,
            "linked_at": take_values(links["linked_at"], of_link[same], found.index),
            "outcome": str(Outcome.UNCHANGED),
            "active": True,
            "listed": True,
            "linked": True,
            "joget_active": True,
            "takes_part": True,
            "loses_all": False,
            "is_admin": False,
            "is_unproven": False,
        }
    )
    return Unchanged(
        users, desired[~same], _leave_out(current, links.index[of_link[same]], of_row[same])
    )


def _leave_out(current: Current, links: pd.Index, rows: "np.ndarray[Any, Any]") -> Current:
    others = np.ones(len(current.users), dtype=bool)
    others[rows] = False
    return replace(
        current,
        users=current.users[others],
        user_links=current.user_links.drop(index=links),
        unchanged_users=len(links),
    )
