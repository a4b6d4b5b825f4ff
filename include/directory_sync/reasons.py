"""Why something became what it became: the reasons, each with its sentence and what to do.

Frames hold a reason's code as text, so a plan that another version staged can still be read.
"""

from dataclasses import dataclass
from enum import StrEnum


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
    LEFT_TO_THE_NEXT_RUN = "left_to_the_next_run"
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
"""Reasons of accounts that belong to no user of the pool in scope."""


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
    Reason.LEFT_TO_THE_NEXT_RUN: ReasonRule(
        "disabled in the pool; the next run for everybody decides (events.leavers_at_once)",
        "Nothing: the next run for everybody deactivates them.",
    ),
    Reason.NOT_CREATABLE: ReasonRule(
        "archived or compromised: neither created nor adopted",
        "Change the user's status in Cognito, or deactivate their account where Joget has one.",
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
    # A plan that another version staged may have a code that this version doesn't know.
    known = REASON_RULES.get(Reason(code)) if code in REASON_RULES else None
    return (known.to_do if known else "") or "Correct the record in Cognito."
