"""What causes, columns and outcomes are called where people read them."""

MEANINGS = {
    "removed_users_percent": "users would be deactivated or deleted",
    "changed_users_percent": "users would be changed",
    "created_users": "users would be created or adopted",
    "max_users": "users would be created beyond the seats",
    "removed_memberships_percent": "memberships would be removed",
    "emptied_group_percent": "memberships would be removed from groups that lose most members",
    "renamed_user": "users' logins changed in the pool",
    "retired_login": "users have a login that was another person's once",
    "new_sub": "new persons have the login of somebody who left",
    "role_admin": "users who hold ROLE_ADMIN would be changed",
    "pool_change": "the settings name another pool, which has fewer than half of the linked logins",
    "occupied_login": "logins belong to other Joget users",
    "rejected": "changes were rejected by a person",
    "undone": "changes were taken back by a person",
    "changed_since": "changes were followed by others since, and are left as they are",
}
"""What a cause of a hold means."""

COLUMNS = {
    "id": "id",
    "firstName": "first name",
    "lastName": "last name",
    "email": "email",
    "active": "active",
    "timeZone": "time zone",
    "locale": "locale",
    "name": "name",
    "organizationId": "organization",
    "link": "link",
    "state": "state",
    "misses": "misses in a row",
}
"""What the values of a change are called (plan.changes.VALUES)."""

TO_DO = {
    "renamed_user": "Approve to give the Joget user the new login with all that is his, or keep it by rejecting.",
    "retired_login": "Approve only if this person is to have what Joget's history has under that login.",
    "new_sub": "Approve only if the newcomer is the same person, or is to inherit the account.",
    "role_admin": "Change administrators in Joget itself, or approve this one change.",
    "pool_change": "Check user_pool_id in the settings. Approve only if the pool was really replaced.",
    "occupied_login": "The login is another Joget user's. Free it in Joget, or change it in the pool.",
    "rejected": "A person rejected it; it stays until it differs, or until the review DAG is started by hand.",
    "changed_since": "Where they are to be taken back as well, change them by hand in Joget or in the pool.",
    "undone": "A person took it back; it stays until it differs, or until the review DAG is started by hand.",
}
"""What a person can do about a hold; about limits: look at the rows, then approve, or correct the pool."""

LIMIT_TO_DO = "Look at the rows. If they are meant, approve them in the review; if not, correct the pool first."

QUARANTINE_TO_DO = (
    ("no login", "Give the user that attribute in Cognito."),
    ("no sub", "Such a user can't be told apart from others; look at him in Cognito."),
    ("is longer than", "Shorten it in Cognito."),
    ("white space", "Correct the login in Cognito."),
    ("control character", "Correct the login in Cognito."),
    ("he has a password", "He is a local Joget account: remove his password in Joget, or set existing_user to adopt."),
    ("ROLE_ADMIN", "Administrators of Joget are never taken over: give the person another login."),
    ("has a user of this login", "Set existing_user to adopt_sso or adopt, or remove the Joget user."),
    ("another user of the pool has the same login", "Give one of the two another login in Cognito."),
    ("its login belongs to the linked user", "The person linked first keeps the account: give this one another login."),
    ("a linked user's login changed to this one", "Answer the review about the changed login first."),
    ("utf8 tables", "Convert Joget's tables to utf8mb4 (DX 8 does), or remove the character in Cognito."),
    ("was replaced by another", "Look in Joget who replaced it; delete or rename the replacement there."),
    ("is linked to another group", "Rename one of the two groups in Cognito."),
    ("linked by another sync", "Two syncs claim it: decide by their scopes."),
    ("organization", "Move the group in Joget, or set existing_group to adopt."),
    ("members", "Let its other members leave the group in Joget, or set existing_group to adopt."),
)
"""What to do about a quarantined record, by words of its reason."""


FROZEN_TO_DO = (
    ("excluded by the settings", "He is in scope.exclude_users of the settings: take him out there."),
    ("newer reading", "Nothing: a newer run has decided about him."),
)
"""What to do about a user whom a run leaves as he is, by words of the reason."""


def frozen_to_do(reason: str) -> str:
    """What a person can do about a user who is out of scope."""
    found = (advice for words, advice in FROZEN_TO_DO if words in reason)
    return next(found, "Change scope in the settings, or his status in Cognito.")


def what_to_do(cause: str) -> str:
    """What a person can do about a hold."""
    return TO_DO.get(cause, LIMIT_TO_DO)


def quarantine_to_do(reason: str) -> str:
    """What a person can do about a quarantined record."""
    return next((advice for words, advice in QUARANTINE_TO_DO if words in reason), "Correct the record in Cognito.")


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 user`, `2 users`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
