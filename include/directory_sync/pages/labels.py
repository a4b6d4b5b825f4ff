"""Readers' names for columns and counts; `vocabulary` has the words of plans."""

VALUE_LABELS = {
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
"""Readers' names for the values of a change (plan.changes.VALUE_COLUMNS)."""


def count_nouns(number: int, one: str, many: str | None = None) -> str:
    """`1 user`, `2 users`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
