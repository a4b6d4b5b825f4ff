"""Users whom nothing concerns: nearly everybody in nearly every run, told apart by bytes before any rule is asked.

The rules would say `unchanged` of each (a test holds them to it), at many times the cost.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from include.directory_sync.frames import NUMBER, TEXT, TIME, places, rows_at, taken, yes
from include.directory_sync.mapping import MAPPED
from include.directory_sync.plan.current import Current, Evidence, is_own_key
from include.directory_sync.plan.users import newer_than
from include.directory_sync.run import Run


@dataclass(frozen=True)
class Settled:
    """users: rows for the plan, in those of `users.decide_users`' columns that aren't null for them. desired, current:
    what is left to decide about.
    """

    users: pd.DataFrame
    desired: pd.DataFrame
    current: Current

    def with_all(self, decided: pd.DataFrame) -> pd.DataFrame:
        """All users, once the others are decided."""
        if self.users.empty:
            return decided
        users = pd.concat([decided, self.users], ignore_index=True)
        for columns, kind in ((TEXTS, TEXT), (NUMBERS, NUMBER), (TIMES, TIME), (FLAGS, bool)):
            users[columns] = users[columns].astype(kind)
        return users


TEXTS = ["sub", "user_id", "before_id", "after_id", "before_link", "before_state", "outcome"]
NUMBERS = ["before_active", "before_misses"]
TIMES = ["linked_at"]
FLAGS = ["active", "listed", "linked", "joget_active"]


def settle(run: Run, desired: pd.DataFrame, current: Current, evidence: Evidence) -> Settled:
    """Take out the desired users (mapping.USERS) who are linked, active, listed without a miss, and as Joget has them.

    Not those whose id in Joget is the same key as another text that the plan compares, nor any in a run for some users.
    """
    if run.users:
        return Settled(pd.DataFrame(), desired, current)
    links = current.user_links
    own = (links["sync"] == run.sync.name) & (links["user_pool_id"] == run.sync.user_pool_id)
    quiet = own & (links["state"] == "active") & (links["misses"] == 0) & is_own_key(links["user_key"])
    links = links[yes(quiet) & ~newer_than(evidence, links)]
    of_link = places(desired["sub"], links["sub"])
    user_id = taken(links["user_id"], of_link, desired.index)
    of_row = places(user_id, current.users["id"])
    now = rows_at(current.users, of_row, desired.index)
    same = (
        yes(desired["username"] == user_id)
        & yes(now["username"] == user_id)
        & yes(now["id_key"] == now["username_key"])
    )
    same &= (desired["verdict"] == "mapped") & desired["active"] & yes(now["active"] == 1) & ~yes(now["is_admin"])
    for column in MAPPED:
        same &= yes(desired[column] == now[column]) | desired[column].isna()
    same = yes(same)
    found, user_id = desired[same], user_id[same]
    users = pd.DataFrame(
        {
            "sub": found["sub"],
            "user_id": user_id,
            "before_id": user_id,
            "after_id": user_id,
            "before_link": run.sync.user_pool_id + "/" + found["sub"],
            "before_state": "active",
            "before_active": 1,
            "before_misses": 0,
            "linked_at": taken(links["linked_at"], of_link[same], found.index),
            "outcome": "unchanged",
            "active": True,
            "listed": True,
            "linked": True,
            "joget_active": True,
        }
    )
    return Settled(users, desired[~same], _without(current, links.index[of_link[same]], of_row[same]))


def _without(current: Current, links: pd.Index, rows: "np.ndarray[tuple[int], np.dtype[np.int32]]") -> Current:
    others = np.ones(len(current.users), dtype=bool)
    others[rows] = False
    return replace(
        current, users=current.users[others], user_links=current.user_links.drop(index=links), settled=len(links)
    )
