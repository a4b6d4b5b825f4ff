"""The words of a plan, each with what follows from it.

Frames hold the words as text, so a plan that another version staged can still be read.
Planning, reports, reviews and pages all look here; no module compares a sentence.
"""

from dataclasses import dataclass
from enum import StrEnum


class Entity(StrEnum):
    """What a change is about, in the order of writing.

    Employments come last: they lock the organization's row for Joget's console.
    """

    GROUP = "group"
    USER = "user"
    ROLE = "role"
    MEMBERSHIP = "membership"
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


class Reason(StrEnum):
    """Why something became what it became: column `code` of plan.parquet and directory.parquet."""

    # Records that can't be mapped.
    NO_SUB = "no_sub"
    ODD_SUB = "odd_sub"
    NOT_UNICODE = "not_unicode"
    NO_LOGIN = "no_login"
    LOGIN_TOO_LONG = "login_too_long"
    LOGIN_WITH_SPACE = "login_with_space"
    LOGIN_WITH_CONTROL = "login_with_control"
    LOGIN_WITH_SEPARATOR = "login_with_separator"
    VALUE_TOO_LONG = "value_too_long"
    NOT_STORABLE = "not_storable"
    LOGIN_IGNORED = "login_ignored"
    # Users and groups that are left alone.
    STATUS_OUT_OF_SCOPE = "status_out_of_scope"
    GROUP_OUT_OF_SCOPE = "group_out_of_scope"
    EXCLUDED = "excluded"
    NOT_ASKED = "not_asked"
    NEWER_READING = "newer_reading"
    NOT_CREATABLE = "not_creatable"
    # Matching.
    REPLACED_IN_JOGET = "replaced_in_joget"
    USERNAME_CHANGED_IN_JOGET = "username_changed_in_joget"
    ADMIN_ACCOUNT = "admin_account"
    TWIN = "twin"
    LINKED_BY_OTHER_SYNC = "linked_by_other_sync"
    LOGIN_OF_LINKED_USER = "login_of_linked_user"
    LOGIN_WANTED_BY_LINKED_USER = "login_wanted_by_linked_user"
    SEVERAL_JOGET_USERS = "several_joget_users"
    ID_IS_NOT_USERNAME = "id_is_not_username"
    HOLDS_ROLE_ADMIN = "holds_role_admin"
    HAS_PASSWORD = "has_password"  # noqa: S105 - a reason
    EXISTS_IN_JOGET = "exists_in_joget"
    # Changes of users.
    NEW = "new"
    NEW_WITH_RETIRED_LOGIN = "new_with_retired_login"
    FOUND_FROM_SSO = "found_from_sso"
    FOUND = "found"
    FOUND_WITH_RETIRED_LOGIN = "found_with_retired_login"
    HEIR = "heir"
    DELETED_IN_JOGET = "deleted_in_joget"
    DISABLED = "disabled"
    ENABLED_AGAIN = "enabled_again"
    DEACTIVATED_IN_JOGET = "deactivated_in_joget"
    LOGIN_CHANGED = "login_changed"
    LOGIN_OCCUPIED = "login_occupied"
    LOGIN_OCCUPIED_BY_SSO = "login_occupied_by_sso"
    LOGIN_OCCUPIED_BY_SSO_AND_RETIRED = "login_occupied_by_sso_and_retired"
    LOGIN_RETIRED = "login_retired"
    SECOND_ACCOUNT = "second_account"
    CHANGED = "changed"
    POOL_CHANGED = "pool_changed"
    LINK_REBUILT = "link_rebuilt"
    SEEN_AGAIN = "seen_again"
    # Absence.
    CANNOT_TELL = "cannot_tell"
    MISSING = "missing"
    MISSING_UNASKED = "missing_unasked"
    MISSING_AND_DELETED_IN_JOGET = "missing_and_deleted_in_joget"
    MISSING_AND_KEPT = "missing_and_kept"
    MISSING_AND_PEOPLED = "missing_and_peopled"
    # Accounts that the pool doesn't explain.
    LEFT_OVER = "left_over"
    LEFT_OVER_OUT_OF_SCOPE = "left_over_out_of_scope"
    LEFT_OVER_WITHOUT_LOGIN = "left_over_without_login"
    # Groups.
    NAME_NOT_STORABLE = "name_not_storable"
    GROUP_DELETED_IN_JOGET = "group_deleted_in_joget"
    GROUP_REPLACED_IN_JOGET = "group_replaced_in_joget"
    NAME_DIFFERS = "name_differs"
    GROUP_LINKED_ELSEWHERE = "group_linked_elsewhere"
    SEVERAL_JOGET_GROUPS = "several_joget_groups"
    GROUP_FOUND = "group_found"
    GROUP_IN_OTHER_ORGANIZATION = "group_in_other_organization"
    GROUP_WITH_LOCAL_MEMBERS = "group_with_local_members"
    GROUP_WITHOUT_MEMBERS = "group_without_members"
    GROUP_NAMED_ALIKE = "group_named_alike"
    # What belongs to users.
    ROLE_USER = "role_user"
    EMPLOYMENT = "employment"
    NAMED = "named"
    NAMED_NOW = "named_now"
    NO_LONGER_NAMED = "no_longer_named"
    GROUP_GONE = "group_gone"
    USER_OUT = "user_out"
    USER_OFF_IN_JOGET = "user_off_in_joget"
    FOUND_AT_ADOPTION = "found_at_adoption"
    # Undo.
    TAKEN_BACK = "taken_back"
    CHANGED_SINCE = "changed_since"


LEFT_OVER_REASONS = (
    Reason.LEFT_OVER,
    Reason.LEFT_OVER_OUT_OF_SCOPE,
    Reason.LEFT_OVER_WITHOUT_LOGIN,
)
"""Reasons of accounts that no user of the pool in scope has."""


@dataclass(frozen=True)
class ReasonRule:
    """A reason's sentence, and what a person can do. `{}` stands for a detail such as an
    attribute's name.
    """

    sentence: str
    to_do: str = ""


CORRECT_LOGIN_ADVICE = "Correct the login in Cognito."
NO_NAMESAKE_ADVICE = "Find out who replaced it in Joget; delete or rename the replacement there."

REASON_RULES = {
    Reason.NO_SUB: ReasonRule(
        "the user has no sub",
        "A user without a sub can't be told apart from others; look at them in Cognito.",
    ),
    Reason.ODD_SUB: ReasonRule(
        "the sub isn't printable ASCII text of at most 128 characters",
        "The ledger can't keep such a sub; look at the user in Cognito.",
    ),
    Reason.NOT_UNICODE: ReasonRule(
        "attribute {} is no Unicode text", "Correct the attribute in Cognito."
    ),
    Reason.NO_LOGIN: ReasonRule(
        "no login: {} is missing or blank", "Give the user that attribute in Cognito."
    ),
    Reason.LOGIN_TOO_LONG: ReasonRule(
        "the login is longer than {} characters", "Shorten it in Cognito."
    ),
    Reason.LOGIN_WITH_SPACE: ReasonRule(
        "the login begins or ends with white space", CORRECT_LOGIN_ADVICE
    ),
    Reason.LOGIN_WITH_CONTROL: ReasonRule(
        "the login has a control character", CORRECT_LOGIN_ADVICE
    ),
    Reason.LOGIN_WITH_SEPARATOR: ReasonRule(
        "the login has a comma or semicolon, where Joget splits lists of users",
        "Give the user another login in Cognito.",
    ),
    Reason.VALUE_TOO_LONG: ReasonRule("{} characters", "Shorten it in Cognito."),
    Reason.NOT_STORABLE: ReasonRule(
        "{} can't be stored in utf8 tables",
        "Convert Joget's tables to utf8mb4 (DX 8 does), or remove the character in Cognito.",
    ),
    Reason.LOGIN_IGNORED: ReasonRule(
        "the login has only characters that Joget's database ignores", CORRECT_LOGIN_ADVICE
    ),
    Reason.STATUS_OUT_OF_SCOPE: ReasonRule(
        "status {} isn't in scope",
        "Change scope.statuses in the settings, or the user's status in Cognito.",
    ),
    Reason.GROUP_OUT_OF_SCOPE: ReasonRule(
        "the group isn't in scope", "Change scope.include_groups or exclude_groups."
    ),
    Reason.EXCLUDED: ReasonRule(
        "excluded by the settings",
        "The user is in scope.exclude_users of the settings: remove them there.",
    ),
    Reason.NOT_ASKED: ReasonRule(
        "not among the users that this run is for",
        "Nothing: the next run for everybody looks at them.",
    ),
    Reason.NEWER_READING: ReasonRule(
        "a newer reading of this user was applied",
        "Nothing: a newer run has decided about the user.",
    ),
    Reason.NOT_CREATABLE: ReasonRule(
        "archived or compromised, and not in Joget", "Change the user's status in Cognito."
    ),
    Reason.REPLACED_IN_JOGET: ReasonRule(
        "its Joget user was replaced by another account of the same name", NO_NAMESAKE_ADVICE
    ),
    Reason.USERNAME_CHANGED_IN_JOGET: ReasonRule(
        "the username of its Joget user isn't its id any more: it was changed in Joget",
        "Change the username back to the id in Joget.",
    ),
    Reason.ADMIN_ACCOUNT: ReasonRule(
        "admin is Joget's own account", "Give the user another login in Cognito."
    ),
    Reason.TWIN: ReasonRule(
        "another user of the pool has the same login",
        "Give one of the two another login in Cognito.",
    ),
    Reason.LINKED_BY_OTHER_SYNC: ReasonRule(
        "its Joget user is linked by another sync", "Two syncs claim it: decide by their scopes."
    ),
    Reason.LOGIN_OF_LINKED_USER: ReasonRule(
        "its login belongs to the linked user {}",
        "The person linked first keeps the account: give this one another login.",
    ),
    Reason.LOGIN_WANTED_BY_LINKED_USER: ReasonRule(
        "a linked user's login changed to this one",
        "Answer the review about the changed login first.",
    ),
    Reason.SEVERAL_JOGET_USERS: ReasonRule(
        "several Joget users have this login", "Delete or rename all but one of them in Joget."
    ),
    Reason.ID_IS_NOT_USERNAME: ReasonRule(
        "the Joget user's id isn't its username",
        "Joget can't manage such a user: change its username to its id in Joget's database.",
    ),
    Reason.HOLDS_ROLE_ADMIN: ReasonRule(
        "the Joget user of this login holds ROLE_ADMIN",
        "Administrators of Joget are never taken over: give the person another login.",
    ),
    Reason.HAS_PASSWORD: ReasonRule(
        "the Joget user of this login is local: it has a password",
        "Remove its password in Joget, or set existing_user to adopt.",
    ),
    Reason.EXISTS_IN_JOGET: ReasonRule(
        "Joget has a user of this login",
        "Set existing_user to adopt_sso or adopt, or remove the Joget user.",
    ),
    Reason.NEW: ReasonRule("new in the pool"),
    Reason.NEW_WITH_RETIRED_LOGIN: ReasonRule(
        "new in the pool, with a login that another user had before"
    ),
    Reason.FOUND_FROM_SSO: ReasonRule("already in Joget, from single sign-on"),
    Reason.FOUND: ReasonRule("already in Joget"),
    Reason.FOUND_WITH_RETIRED_LOGIN: ReasonRule(
        "already in Joget, with a login that another user had before"
    ),
    Reason.HEIR: ReasonRule("its login belongs to the linked user {}, who is gone from the pool"),
    Reason.DELETED_IN_JOGET: ReasonRule("its Joget user was deleted in Joget"),
    Reason.DISABLED: ReasonRule("disabled in the pool"),
    Reason.ENABLED_AGAIN: ReasonRule("enabled again in the pool"),
    Reason.DEACTIVATED_IN_JOGET: ReasonRule(
        "deactivated in Joget by an administrator: stays so",
        "Activate the user in Joget's console; the next run gives them what the pool says.",
    ),
    Reason.LOGIN_CHANGED: ReasonRule("the login changed in the pool"),
    Reason.LOGIN_OCCUPIED: ReasonRule("the login changed to one that is taken"),
    Reason.LOGIN_OCCUPIED_BY_SSO: ReasonRule(
        "the login changed to that of an account that single sign-on made"
    ),
    Reason.LOGIN_OCCUPIED_BY_SSO_AND_RETIRED: ReasonRule(
        "the login changed to one that another user had before, and that an account from single "
        "sign-on has"
    ),
    Reason.LOGIN_RETIRED: ReasonRule("the login changed to one that another user had before"),
    Reason.SECOND_ACCOUNT: ReasonRule("a second account that single sign-on made"),
    Reason.CHANGED: ReasonRule("changed in the pool"),
    Reason.POOL_CHANGED: ReasonRule("the pool changed: linked to its new sub"),
    Reason.LINK_REBUILT: ReasonRule("its link was lost from the ledger, and rebuilt"),
    Reason.SEEN_AGAIN: ReasonRule("listed again"),
    Reason.CANNOT_TELL: ReasonRule("not listed, and this run can't tell who is missing"),
    Reason.MISSING: ReasonRule("not listed in the pool"),
    Reason.MISSING_UNASKED: ReasonRule("not listed in the pool, and not yet asked for by name"),
    Reason.MISSING_AND_DELETED_IN_JOGET: ReasonRule("not listed in the pool, and deleted in Joget"),
    Reason.MISSING_AND_KEPT: ReasonRule("not listed in the pool; the settings keep the user"),
    Reason.MISSING_AND_PEOPLED: ReasonRule("not listed in the pool; kept for its members"),
    Reason.LEFT_OVER: ReasonRule(
        "the account has no password and no link, and the pool doesn't have it",
        "Set left_over to ask, or deactivate the account in Joget.",
    ),
    Reason.LEFT_OVER_OUT_OF_SCOPE: ReasonRule(
        "the account's user is in the pool, and out of scope",
        "Change scope.statuses in the settings or the user's status in Cognito, or deactivate the "
        "account in Joget.",
    ),
    Reason.LEFT_OVER_WITHOUT_LOGIN: ReasonRule(
        "the account has no login", "Delete it in Joget's database: nobody can log in to it."
    ),
    Reason.NAME_NOT_STORABLE: ReasonRule(
        "the name can't be stored in utf8 tables",
        "Convert Joget's tables to utf8mb4 (DX 8 does), or rename the group in Cognito.",
    ),
    Reason.GROUP_DELETED_IN_JOGET: ReasonRule("its Joget group was deleted in Joget"),
    Reason.GROUP_REPLACED_IN_JOGET: ReasonRule(
        "its Joget group was replaced by another one of the same name", NO_NAMESAKE_ADVICE
    ),
    Reason.NAME_DIFFERS: ReasonRule("the name differs in Joget"),
    Reason.GROUP_LINKED_ELSEWHERE: ReasonRule(
        "the Joget group of this id is linked to another group",
        "Rename one of the two groups in Cognito.",
    ),
    Reason.SEVERAL_JOGET_GROUPS: ReasonRule(
        "several Joget groups have this name", "Rename all but one of them in Joget."
    ),
    Reason.GROUP_FOUND: ReasonRule("already in Joget"),
    Reason.GROUP_IN_OTHER_ORGANIZATION: ReasonRule("Joget has this group in another organization"),
    Reason.GROUP_WITH_LOCAL_MEMBERS: ReasonRule(
        "Joget has this group, with members that this sync doesn't know"
    ),
    Reason.GROUP_WITHOUT_MEMBERS: ReasonRule("Joget has this group, without members"),
    Reason.GROUP_NAMED_ALIKE: ReasonRule("Joget has a group of this name under another id"),
    Reason.ROLE_USER: ReasonRule("every synchronised user has ROLE_USER"),
    Reason.EMPLOYMENT: ReasonRule("every synchronised user is employed in the organization"),
    Reason.NAMED: ReasonRule("the pool names it"),
    Reason.NAMED_NOW: ReasonRule("the pool names it now"),
    Reason.NO_LONGER_NAMED: ReasonRule("the pool no longer names it"),
    Reason.GROUP_GONE: ReasonRule("the group is gone from the pool"),
    Reason.USER_OUT: ReasonRule("the user is disabled in the pool, or gone from it"),
    Reason.USER_OFF_IN_JOGET: ReasonRule("an administrator deactivated the user in Joget"),
    Reason.FOUND_AT_ADOPTION: ReasonRule("found at the adoption: the local administrator's"),
    Reason.TAKEN_BACK: ReasonRule("taken back"),
    Reason.CHANGED_SINCE: ReasonRule(
        "changed since that run: left as it is",
        "Where it is to be taken back as well, change it by hand in Joget or in the pool.",
    ),
}


def split_reason_sentence(reason: str) -> tuple[str, str]:
    """A reason's sentence before and after its detail."""
    before, _, after = REASON_RULES[Reason(reason)].sentence.partition("{}")
    return before, after


def advise_on_reason(code: str | None) -> str:
    """What a person can do about a record that is quarantined or left alone."""
    known = REASON_RULES.get(Reason(code)) if code in REASON_RULES else None
    return (known.to_do if known else "") or "Correct the record in Cognito."
