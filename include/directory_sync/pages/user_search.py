"""Finding users by login, email or sub in the files that the runs left."""

import operator
from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce

import pyarrow.compute as pc

from directory_sync.pages.published_files import PublishedRun
from directory_sync.pages.run_history import PastRun, find_newest_full_run, map_side_by_side
from directory_sync.staging import store

MOST_FOUND = 20


@dataclass(frozen=True)
class SearchResult:
    """The users that a search found."""

    subs: tuple[str, ...] = ()
    more: bool = False
    """Whether more than MOST_FOUND users fit."""
    without_sub: bool = False
    """Whether a user without a sub fits."""


SEARCHED_COLUMNS = (
    "sub",
    "cognito_username",
    "attribute.email",
    "username",
    "email",
    "joget_id",
    "user_id",
    "before_id",
    "before_email",
    "after_email",
)
"""The columns of any file that are searched for a user."""

SEARCHED_FILES = ("users.parquet", "desired_users.parquet", "directory.parquet")


def search_users(text: str, runs: list[PastRun], *, values: bool) -> SearchResult:
    """Find users by login, email or sub, in any case of letters: in the newest snapshot, among the
    linked users, and among the users that these runs changed. Without the right to see values, only
    subs are searched.
    """
    text = text.strip()
    newest = find_newest_full_run(runs)
    if not text or newest is None:
        return SearchResult()
    searched = SEARCHED_COLUMNS if values else ("sub",)
    found = [
        # One run three times over, so that its three files are read at once.
        *map_side_by_side(
            [newest] * len(SEARCHED_FILES),
            lambda past, at: _find_subs(past, SEARCHED_FILES[at], text, searched),
        ),
        *map_side_by_side(runs, lambda past, _: _find_subs(past, "plan.parquet", text, searched)),
    ]
    subs = list(dict.fromkeys(sub for some in found for sub in some))
    known = [sub for sub in subs if sub]
    return SearchResult(
        tuple(known[:MOST_FOUND]), more=len(known) > MOST_FOUND, without_sub="" in subs
    )


def _find_subs(past: PastRun, name: str, text: str, searched: Collection[str]) -> list[str]:
    """The subs of the users that fit; an empty text for a user without a sub."""
    manifest = past.published.holders.get(name) if past.published else None
    if manifest is None:
        return []
    found: list[str] = []
    with store.open_parquet(manifest, name) as file:
        # The files differ in their columns, and a snapshot has only the attributes that the mapping
        # names.
        columns = [column for column in searched if column in file.schema_arrow.names]
        fits = reduce(
            operator.or_, [pc.utf8_lower(pc.field(column)) == text.lower() for column in columns]
        )
        # Parquet's statistics exclude no row group here, as they do in store.find_rows: they are
        # about exact letters.
        for group in range(file.num_row_groups):
            rows = file.read_row_group(group, columns=columns).filter(fits)
            found += rows.column("sub").to_pylist()
    return list(dict.fromkeys(sub or "" for sub in found))


def find_logins(published: PublishedRun, subs: Collection[str]) -> dict[str, str]:
    """The logins of the given users that a run read, by sub."""
    rows = published.find_rows("desired_users.parquet", "sub", subs, columns=["sub", "username"])
    return {row["sub"]: row["username"] for row in rows if row["username"]}
