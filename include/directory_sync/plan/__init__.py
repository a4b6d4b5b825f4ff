"""Planning: the desired directory against Joget now, decided without touching either.

planning      make_plan, in three passes
matching      the link and the Joget row of each user and group
users, missing, left_over, groups, memberships    pass 1: the rules
unchanged     the users that pass 1 needn't look at
holding, limits                                   pass 2: what waits for a person
rows                                              pass 3: the plan's rows
dependencies  what depends on what
changes       the plan as a value
current       what planning sees of Joget and the ledger
approval, answers, deferral, refusals, undoing    plans made from plans
"""

from directory_sync.plan.changes import (
    CHANGES_SCHEMA,
    DIRECTORY_SCHEMA,
    Plan,
    Removals,
    make_empty_plan,
)
from directory_sync.plan.current import Current, Evidence
from directory_sync.plan.planning import make_plan

__all__ = [
    "CHANGES_SCHEMA",
    "DIRECTORY_SCHEMA",
    "Current",
    "Evidence",
    "Plan",
    "Removals",
    "make_empty_plan",
    "make_plan",
]
