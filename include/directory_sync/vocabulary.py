"""The words of a plan, each with what follows from it.

Frames hold the words as text, so a plan that another version staged can still be read.
Planning, reports, reviews and pages all look here; no module compares a sentence.
"""

from dataclasses import dataclass
from enum import StrEnum


class Entity(StrEnum):
    """What a change is about, in the order of writing."""

    GROUP = "group"
    USER = "user"
    ROLE = "role"
    MEMBERSHIP = "membership"
    # Last, since Joget's console waits to edit an organization until a new employment in it is
    # committed.
    EMPLOYMENT = "employment"


class Outcome(StrEnum):
    """What a run did with a user or a group: report.json counts these, directory.parquet has
    them.
    """

    CREATED = "created"
    ADOPTED = "adopted"
    UPDATED = "updated"
    RENAMED = "renamed"
    DEACTIVATED = "deactivated"
    REACTIVATED = "reactivated"
    DELETED = "deleted"
    RECREATED = "recreated"
    UNCHANGED = "unchanged"
    FROZEN = "frozen"
    """Listed, and left alone: excluded, out of scope, or not asked for."""
    QUARANTINED = "quarantined"
    MISSING = "missing"
    UNLISTED = "unlisted"
    """Not listed, by a snapshot that proves nothing about absence."""
    LEFT_OVER = "left_over"
    """An account without a link that the pool doesn't have, such as the Joget plugin leaves."""
    HELD = "held"
    DEFERRED = "deferred"


class Verdict(StrEnum):
    """What mapping found of a record."""

    MAPPED = "mapped"
    FROZEN = "frozen"
    QUARANTINED = "quarantined"


class State(StrEnum):
    """The state of a link: column `state` of the ledger and of directory.parquet."""

    ACTIVE = "active"
    DEACTIVATED = "deactivated"
    """By the sync."""
    DEACTIVATED_IN_JOGET = "deactivated in Joget"
    """By an administrator; the ledger has `active`."""


class RunKind(StrEnum):
    """How the ledger remembers a run."""

    FULL = "full"
    """For everybody, from a snapshot."""
    SUBSET = "subset"
    """For the users that the trigger form names."""
    REVIEW = "review"
    UNDO = "undo"
    DETACHED = "detached"
    """Of any kind, from before the sync was detached: it is history, and no run builds on it."""


UNTOUCHED_OUTCOMES = (Outcome.FROZEN, Outcome.QUARANTINED, Outcome.UNLISTED)
"""Users and groups with these outcomes don't change, and no miss counts for them."""


class Action(StrEnum):
    """What a row of a plan does."""

    CREATE = "create"
    ADOPT = "adopt"
    UPDATE = "update"
    RENAME = "rename"
    DEACTIVATE = "deactivate"
    REACTIVATE = "reactivate"
    DELETE = "delete"
    RECREATE = "recreate"
    RELINK = "relink"
    """The Joget user or group gets another sub, or another pool's group."""
    RELEASE = "release"
    """The inverse of an adoption."""
    EVICT = "evict"
    """An account that single sign-on made is deleted, so that its login is free for a rename."""
    RESTORE = "restore"
    """The inverse of EVICT: the account comes back."""
    MISS = "miss"
    SEEN = "seen"
    UNLINK = "unlink"
    ADD = "add"
    REMOVE = "remove"
    KEEP_LOCAL = "keep_local"
    """A membership found at an adoption is the local administrator's."""
    CLAIM = "claim"
    """The pool names a membership that was local, so it becomes ours."""


@dataclass(frozen=True)
class ActionRule:
    """What follows from an action."""

    inverse: Action
    outcome: Outcome | None = None
    """What the report calls the user or group once it is applied."""
    ledger_only: bool = False
    """No row of Joget's changes."""


ACTION_RULES = {
    Action.CREATE: ActionRule(Action.DELETE, Outcome.CREATED),
    Action.ADOPT: ActionRule(Action.RELEASE, Outcome.ADOPTED),
    Action.UPDATE: ActionRule(Action.UPDATE, Outcome.UPDATED),
    Action.RENAME: ActionRule(Action.RENAME, Outcome.RENAMED),
    Action.DEACTIVATE: ActionRule(Action.REACTIVATE, Outcome.DEACTIVATED),
    Action.REACTIVATE: ActionRule(Action.DEACTIVATE, Outcome.REACTIVATED),
    Action.DELETE: ActionRule(Action.CREATE, Outcome.DELETED),
    Action.RECREATE: ActionRule(Action.DELETE, Outcome.RECREATED),
    Action.RELINK: ActionRule(Action.RELINK, Outcome.UPDATED),
    Action.RELEASE: ActionRule(Action.ADOPT, Outcome.UPDATED),
    # Without an outcome: the row has the sub of the renamed user, who is counted as renamed.
    Action.EVICT: ActionRule(Action.RESTORE),
    Action.RESTORE: ActionRule(Action.EVICT),
    Action.MISS: ActionRule(Action.SEEN, ledger_only=True),
    Action.SEEN: ActionRule(Action.MISS, ledger_only=True),
    Action.UNLINK: ActionRule(Action.RELINK, ledger_only=True),
    Action.ADD: ActionRule(Action.REMOVE),
    Action.REMOVE: ActionRule(Action.ADD),
    Action.KEEP_LOCAL: ActionRule(Action.CLAIM, ledger_only=True),
    Action.CLAIM: ActionRule(Action.KEEP_LOCAL, ledger_only=True),
}

LEDGER_ACTIONS = tuple(action for action, rule in ACTION_RULES.items() if rule.ledger_only)

INVERSE_ACTIONS = {action: rule.inverse for action, rule in ACTION_RULES.items()}

APPLIED_OUTCOMES = {action: rule.outcome for action, rule in ACTION_RULES.items() if rule.outcome}

REMOVAL_ACTIONS = (Action.DEACTIVATE, Action.DELETE)
"""Actions that take a user's access."""

USER_ACTIONS = {
    rule.outcome: action
    for action, rule in ACTION_RULES.items()
    # The report counts both as `updated`, which is the outcome of UPDATE.
    if rule.outcome and action not in (Action.RELINK, Action.RELEASE)
}
"""The action of an outcome that changes something; the other outcomes change nothing in Joget."""


class Cause(StrEnum):
    """Why a row of a plan is held. A row has one cause, or none and is applied."""

    REMOVED_USERS = "removed_users_percent"
    DISABLED_USERS = "disabled_users_percent"
    REMOVED_MEMBERSHIPS = "removed_memberships_percent"
    EMPTIED_GROUP = "emptied_group_percent"
    CHANGED_USERS = "changed_users_percent"
    CREATED_USERS = "created_users"
    MAX_USERS = "max_users"
    RENAMED_USER = "renamed_user"
    RETIRED_LOGIN = "retired_login"
    OCCUPIED_LOGIN = "occupied_login"
    OCCUPIED_BY_SSO = "occupied_by_sso"
    NEW_SUB = "new_sub"
    ROLE_ADMIN = "role_admin"
    EXISTING_GROUP = "existing_group"
    UNPROVEN_ABSENCE = "unproven_absence"
    POOL_CHANGE = "pool_change"
    LEFT_OVER = "left_over"
    REJECTED = "rejected"
    UNDONE = "undone"
    CHANGED_SINCE = "changed_since"
    DEFERRED = "deferred"


LIMIT_ADVICE = (
    "Look at the rows. If they are intended, approve them in the review; if not, correct the pool "
    "first."
)


@dataclass(frozen=True)
class CauseRule:
    """What follows from a cause."""

    meaning: str
    """Continues a count: "12 users would be …"."""
    to_do: str = LIMIT_ADVICE
    answered: bool = False
    """A person said no. They are asked again only if the change differs, or by a review that is
    started by hand.
    """
    answerable: bool = True
    """Whether a review asks about it."""


CAUSE_RULES = {
    Cause.REMOVED_USERS: CauseRule("users would be deactivated or deleted, since they are missing"),
    Cause.DISABLED_USERS: CauseRule(
        "users would be deactivated, since they are disabled in the pool"
    ),
    Cause.REMOVED_MEMBERSHIPS: CauseRule("memberships would be removed"),
    Cause.EMPTIED_GROUP: CauseRule(
        "memberships would be removed from groups that lose most members"
    ),
    Cause.CHANGED_USERS: CauseRule("users would be changed"),
    Cause.CREATED_USERS: CauseRule("users would be created or adopted"),
    Cause.MAX_USERS: CauseRule("users would be created beyond the seats"),
    Cause.RENAMED_USER: CauseRule(
        "users' logins changed in the pool",
        "Approve to give the Joget user the new login with everything they have, or keep the old "
        "login by rejecting.",
    ),
    Cause.RETIRED_LOGIN: CauseRule(
        "users have a login that another person had before",
        "Approve only if this person may have Joget's history under that login.",
    ),
    Cause.OCCUPIED_LOGIN: CauseRule(
        "logins belong to other Joget users",
        "The login is another Joget user's. Free it in Joget, or change it in the pool.",
        answerable=False,
    ),
    Cause.OCCUPIED_BY_SSO: CauseRule(
        "users' new logins belong to second accounts that single sign-on made",
        "Approve to remove the second account, which has nothing but what single sign-on makes, "
        "and to give its login to the linked user.",
    ),
    Cause.NEW_SUB: CauseRule(
        "newcomers have the login of somebody who left",
        "Approve only if the newcomer is the same person, or is to inherit the account.",
    ),
    Cause.ROLE_ADMIN: CauseRule(
        "users who hold ROLE_ADMIN would be changed",
        "Change administrators in Joget itself, or approve this one change.",
    ),
    Cause.EXISTING_GROUP: CauseRule(
        "Joget's own groups would become the pool's groups",
        "Approve only if the pool's members may have the rights of Joget's group. If not, rename "
        "one of the two.",
    ),
    Cause.UNPROVEN_ABSENCE: CauseRule(
        "users are in no list, and were too many to ask for by name",
        "Check whether the pool really lost them. If you approve, the pool is asked for each by "
        "name first.",
    ),
    Cause.POOL_CHANGE: CauseRule(
        "the settings name another pool, which has fewer than half of the linked logins",
        "Check user_pool_id in the settings. Approve only if the pool was really replaced.",
    ),
    Cause.LEFT_OVER: CauseRule(
        "accounts of the organization have no password and no link, and the pool doesn't have them",
        "Approve to deactivate them and to remove them from the pool's groups. If an account is "
        "to stay, reject, give it a password or remove its employment in Joget, and run the sync "
        "again.",
    ),
    Cause.REJECTED: CauseRule(
        "changes were rejected by a person",
        "A person rejected it; it stays until it differs, or until the review DAG is started by "
        "hand.",
        answered=True,
    ),
    Cause.UNDONE: CauseRule(
        "changes were taken back by a person",
        "A person took it back; it stays until it differs, or until the review DAG is started by "
        "hand.",
        answered=True,
    ),
    Cause.CHANGED_SINCE: CauseRule(
        "changes were followed by others since, and are left as they are",
        "Where they are to be taken back as well, change them by hand in Joget or in the pool.",
    ),
    Cause.DEFERRED: CauseRule(
        "changes were refused by Joget's database, or somebody was changing the same rows",
        "Nothing: the next run tries again. If it stays, the load's log names the database's "
        "error.",
        answerable=False,
    ),
}

ANSWERED_CAUSES = tuple(cause for cause, rule in CAUSE_RULES.items() if rule.answered)
UNANSWERABLE_CAUSES = tuple(cause for cause, rule in CAUSE_RULES.items() if not rule.answerable)


def describe_cause(cause: str) -> str:
    """What a cause means, to follow a count. A cause of another version is given as it is."""
    known = cause in CAUSE_RULES
    return CAUSE_RULES[Cause(cause)].meaning if known else cause.replace("_", " ")


def advise_on_cause(cause: str) -> str:
    """What a person can do about a hold."""
    return CAUSE_RULES[Cause(cause)].to_do if cause in CAUSE_RULES else LIMIT_ADVICE
