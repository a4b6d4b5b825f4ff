"""Whom a login, an email or a sub names, in what the runs left."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from include.directory_sync import staging
from include.directory_sync.pages.history import PastRun, newest_full, of_each
from include.directory_sync.pages.published import Published, read_groups

MOST_FOUND = 20


@dataclass(frozen=True)
class Sought:
    """Whom a search found."""

    subs: tuple[str, ...] = ()
    more: bool = False
    """Whether there are others."""
    without_sub: bool = False
    """Whether somebody fits of whom the pool tells no sub."""


NAMED = (
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
"""Columns, of whatever file, in which somebody is looked for."""

LISTED = ("users.parquet", "desired_users.parquet", "directory.parquet")


def seek(text: str, runs: list[PastRun], *, values: bool) -> Sought:
    """Whom a login, an email or a sub names, letters' case ignored: in the newest snapshot, among the linked, and among
    whom these runs changed. Without the right to see values only a sub is looked for.
    """
    text = text.strip()
    newest = newest_full(runs)
    if not text or newest is None:
        return Sought()
    named = NAMED if values else ("sub",)
    found = [
        *of_each([newest] * len(LISTED), lambda past, at: _subs_in(past, LISTED[at], text, named)),
        *of_each(runs, lambda past, _: _subs_in(past, "plan.parquet", text, named)),
    ]
    subs = list(dict.fromkeys(sub for some in found for sub in some))
    known = [sub for sub in subs if sub]
    return Sought(tuple(known[:MOST_FOUND]), more=len(known) > MOST_FOUND, without_sub="" in subs)


def _subs_in(past: PastRun, name: str, text: str, named: Collection[str]) -> list[str]:
    """Subs, empty for who has none."""
    manifest = past.published.holders.get(name) if past.published else None
    if manifest is None:
        return []
    found: list[str] = []
    with staging.open_parquet(manifest, name) as file:
        for _, rows in read_groups(file, list(named)):
            hit = np.zeros(len(rows), dtype=bool)
            for column in rows.column_names:
                hit |= _is(rows.column(column), text)
            found += rows.column("sub").take(pa.array(np.flatnonzero(hit))).to_pylist()
    return list(dict.fromkeys(sub or "" for sub in found))


def _is(texts: pa.ChunkedArray, text: str) -> "np.ndarray[Any, Any]":
    same = pc.equal(pc.utf8_lower(texts), text.lower())
    plain: np.ndarray[Any, Any] = pc.fill_null(same, False).to_numpy()
    return plain


def logins(published: Published, subs: Collection[str]) -> dict[str, str]:
    """The logins of some of those whom a run read, by sub."""
    manifest = published.holders.get("desired_users.parquet")
    if manifest is None or not subs:
        return {}
    found: dict[str, str] = {}
    with staging.open_parquet(manifest, "desired_users.parquet") as file:
        for _, rows in read_groups(file, ["sub", "username"]):
            mine = rows.filter(pc.is_in(rows.column("sub"), value_set=pa.array(subs, pa.string())))
            found |= {sub: login for sub, login in zip(*mine.to_pydict().values(), strict=True) if login}
    return found
