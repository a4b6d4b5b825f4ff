"""Finding users by login, email or sub in the files that the runs left."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from directory_sync.pages.published_files import PublishedRun, read_row_groups
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
    named = SEARCHED_COLUMNS if values else ("sub",)
    found = [
        *map_side_by_side(
            [newest] * len(SEARCHED_FILES),
            lambda past, at: _find_subs(past, SEARCHED_FILES[at], text, named),
        ),
        *map_side_by_side(runs, lambda past, _: _find_subs(past, "plan.parquet", text, named)),
    ]
    subs = list(dict.fromkeys(sub for some in found for sub in some))
    known = [sub for sub in subs if sub]
    return SearchResult(
        tuple(known[:MOST_FOUND]), more=len(known) > MOST_FOUND, without_sub="" in subs
    )


def _find_subs(past: PastRun, name: str, text: str, named: Collection[str]) -> list[str]:
    """The subs of the users that fit; an empty text for a user without a sub."""
    manifest = past.published.holders.get(name) if past.published else None
    if manifest is None:
        return []
    found: list[str] = []
    with store.open_parquet(manifest, name) as file:
        for _, rows in read_row_groups(file, list(named)):
            hit = np.zeros(len(rows), dtype=bool)
            for column in rows.column_names:
                hit |= _equals_text(rows.column(column), text)
            found += rows.column("sub").take(pa.array(np.flatnonzero(hit))).to_pylist()
    return list(dict.fromkeys(sub or "" for sub in found))


def _equals_text(texts: pa.ChunkedArray, text: str) -> "np.ndarray[Any, Any]":
    same = pc.equal(pc.utf8_lower(texts), text.lower())
    plain: np.ndarray[Any, Any] = pc.fill_null(same, False).to_numpy()
    return plain


def find_logins(published: PublishedRun, subs: Collection[str]) -> dict[str, str]:
    """The logins of the given users that a run read, by sub."""
    manifest = published.holders.get("desired_users.parquet")
    if manifest is None or not subs:
        return {}
    found: dict[str, str] = {}
    with store.open_parquet(manifest, "desired_users.parquet") as file:
        for _, rows in read_row_groups(file, ["sub", "username"]):
            mine = rows.filter(pc.is_in(rows.column("sub"), value_set=pa.array(subs, pa.string())))
            found |= {
                sub: login for sub, login in zip(*mine.to_pydict().values(), strict=True) if login
            }
    return found
