"""Why a user is as he is: his way from the pool to Joget, read from what the runs left."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.directory_sync import staging
from include.directory_sync.errors import PermanentError
from include.directory_sync.mapping import MAPPED
from include.directory_sync.pages.changes import Change, changes_at, hidden_group
from include.directory_sync.pages.history import PastRun, is_full
from include.directory_sync.pages.published import Published, read_groups
from include.directory_sync.settings import Mapping
from include.directory_sync.wording import COLUMNS, MEANINGS, quarantine_to_do, what_to_do

MOST_FOUND = 20


@dataclass(frozen=True)
class InPool:
    """A user as the newest snapshot lists him."""

    status: str
    enabled: bool
    created_at: datetime | None
    modified_at: datetime | None


@dataclass(frozen=True)
class MappedValue:
    """One of Joget's columns, the attribute that it comes from, and the value."""

    column: str
    attribute: str
    value: str


@dataclass(frozen=True)
class InGroup:
    """A group that the pool has the user in."""

    name: str
    joget_id: str
    came: str
    """What the runs did about this membership, or that it was there before them."""
    note: str
    """Why Joget doesn't have it, or empty."""


@dataclass(frozen=True)
class Event:
    """What one run did to the user."""

    dag_id: str
    run_id: str
    at: datetime
    by: str
    dry_run: bool
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Explanation:
    """The way of one user. Without the right to see values, `joget_id` and `values` are empty."""

    sub: str
    pool: InPool | None
    verdict: str
    """By mapping and scope: mapped, frozen, quarantined, or empty for who isn't listed."""
    verdict_reason: str
    values: tuple[MappedValue, ...]
    joget_id: str
    outcome: str
    """What the newest run did with him; empty where it knows nothing of him."""
    state: str
    reason: str
    linked_since: str
    groups: tuple[InGroup, ...]
    unread_groups: tuple[str, ...]
    """Some of the pool's groups that aren't in scope: nobody asked who is in them."""
    events: tuple[Event, ...]
    holding_back: tuple[tuple[str, str], ...] = field(default=())
    """Why something isn't done, and what to do about it."""


def find_subs(text: str, newest: Published, history: list[PastRun], *, values: bool) -> list[str]:
    """The subs of whom a login, an email or a sub names, letters' case ignored: in the newest snapshot, among the
    linked, and among whom the last runs changed. Without the right to see values only a sub is looked for.
    """
    text = text.strip()
    if not text:
        return []
    found: list[str] = []
    named = ["sub"]
    if values:
        named += ["cognito_username", "attribute.email", "username", "email", "joget_id", "user_id", "before_id"]
        named += ["before_email", "after_email"]
    for name in ("users.parquet", "desired_users.parquet", "directory.parquet"):
        found += _subs_in(newest, name, text, named)
    if not found:
        for past in history:
            if past.published:
                found += _subs_in(past.published, "plan.parquet", text, named)
    return list(dict.fromkeys(found))[:MOST_FOUND]


def _subs_in(published: Published, name: str, text: str, named: list[str]) -> list[str]:
    manifest = published.files_of(name)
    if manifest is None:
        return []
    found: list[str] = []
    with staging.open_parquet(manifest, name) as file:
        for _, rows in read_groups(file, list(dict.fromkeys(["sub", *named]))):
            hit = np.zeros(len(rows), dtype=bool)
            for column in rows.column_names:
                if column in named:
                    hit |= _is(rows.column(column), text)
            found += [sub for sub in rows.column("sub").take(pa.array(np.flatnonzero(hit))).to_pylist() if sub]
    return found


def _is(texts: pa.ChunkedArray, text: str) -> "np.ndarray[Any, Any]":
    same = pc.equal(pc.utf8_lower(texts), text.lower())
    plain: np.ndarray[Any, Any] = pc.fill_null(same, False).to_numpy()
    return plain


def explain(sub: str, newest: Published, history: list[PastRun], *, values: bool) -> Explanation:
    """Everything that the newest full run and the last runs tell of a user."""
    listed, desired, known = (
        next(_rows(newest, name, "sub", sub), {})
        for name in ("users.parquet", "desired_users.parquet", "directory.parquet")
    )
    events = tuple(_events(sub, history, values=values))
    pool = InPool(listed["status"], listed["enabled"], listed["created_at"], listed["modified_at"]) if listed else None
    verdict = desired.get("verdict") or ""
    return Explanation(
        sub=sub,
        pool=pool,
        verdict=verdict,
        verdict_reason=desired.get("reason") or "",
        values=tuple(_mapped(newest, desired)) if values else (),
        joget_id=(known.get("joget_id") or "") if values else "",
        outcome=known.get("outcome") or "",
        state=known.get("state") or "",
        reason=known.get("reason") or "",
        linked_since=_linked_since(known, events),
        groups=tuple(_groups(sub, newest, events, values=values)),
        unread_groups=tuple(_unread_groups(newest, values=values)),
        events=events,
        holding_back=tuple(_holding_back(known, sub, newest)),
    )


def _rows(published: Published, name: str, column: str, value: str) -> Iterator[dict[str, Any]]:
    """The rows of a file with that value, a row group at a time; those that can't hold it aren't read."""
    manifest = published.files_of(name)
    if manifest is None:
        return
    with staging.open_parquet(manifest, name) as file:
        for _, at, group in _places(file, column, value):
            yield from file.read_row_group(group).take(pa.array(at)).to_pylist()


def _places(file: pq.ParquetFile, column: str, value: str) -> Iterator[tuple[int, "np.ndarray[Any, Any]", int]]:
    """Row groups with that value: the number of each one's first row, the places in it, and its number."""
    index = file.schema_arrow.names.index(column)
    first = 0
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        statistics = metadata.column(index).statistics
        bounded = statistics is not None and statistics.has_min_max
        if not bounded or statistics.min <= value <= statistics.max:
            texts = file.read_row_group(group, columns=[column]).column(0)
            at = np.flatnonzero(pc.fill_null(pc.equal(texts, value), False).to_numpy())
            if len(at):
                yield first, at, group
        first += metadata.num_rows


def _mapped(newest: Published, desired: dict[str, Any]) -> Iterator[MappedValue]:
    mapping = newest.run.sync.mapping if newest.run else Mapping()
    if not desired:
        return
    yield MappedValue("login", mapping.username, desired["username"] or "")
    for column, setting in MAPPED.items():
        attribute = getattr(mapping, setting)
        if attribute:
            yield MappedValue(COLUMNS[column], attribute, desired[column] or "")


def _events(sub: str, history: list[PastRun], *, values: bool) -> Iterator[Event]:
    """What each run did, the newest first."""
    for past in history:
        if not past.published:
            continue
        try:
            with staging.open_parquet(past.published.folder, "plan.parquet") as file:
                at = [places + first for first, places, _ in _places(file, "sub", sub)]
                changes = changes_at(file, np.concatenate(at), values=values) if at else []
        except PermanentError:
            continue  # cleaned up since: the list says how far back it goes
        if changes:
            report = past.published.report
            yield Event(past.run.dag_id, past.run.run_id, past.run.at, _by(past), report.dry_run, tuple(changes))


def _by(past: PastRun) -> str:
    review = past.published.report.review if past.published else None
    if review and review.answered_by:
        return f"approved by {review.answered_by}"
    if past.kind == "undo":
        return f"undo by {past.run.started_by}" if past.run.started_by else "undo"
    return f"started by {past.run.started_by}" if past.run.started_by else past.run.run_type


LINKING = ("create", "adopt", "relink", "recreate")


def _linked_since(known: dict[str, Any], events: tuple[Event, ...]) -> str:
    if not known.get("joget_id"):
        return ""
    for event in events:
        done = [change for change in event.changes if change.entity == "user" and change.action in LINKING]
        if any(not change.hold for change in done) and not event.dry_run:
            return f"{event.at:%Y-%m-%d %H:%M} UTC"
    return "before the oldest run that is looked at here"


def _groups(sub: str, newest: Published, events: tuple[Event, ...], *, values: bool) -> Iterator[InGroup]:
    names = sorted({row["group_name"] for row in _rows(newest, "memberships.parquet", "sub", sub)})
    wanted = _by_name(newest, "desired_groups.parquet", names)
    there = _by_name(newest, "directory.parquet", names)
    for name in names:
        shown = name if values else hidden_group(name)
        rows = [
            f"{change.action} on {event.at:%Y-%m-%d} ({event.by})"
            for event in events
            for change in event.changes
            if change.entity == "membership" and change.group == shown and not change.hold and not event.dry_run
        ]
        desired, known = wanted.get(name, {}), there.get(name, {})
        note = desired.get("reason") or ""
        if not note and known.get("outcome") in ("quarantined", "held", "frozen"):
            note = known.get("reason") or known["outcome"]
        joget_id = (known.get("joget_id") or "") if values else ""
        yield InGroup(shown, joget_id, "; ".join(rows) or "in the pool; no change in the runs looked at", note)


def _unread_groups(newest: Published, *, values: bool) -> list[str]:
    manifest = newest.files_of("desired_groups.parquet")
    if manifest is None:
        return []
    found: list[str] = []
    with staging.open_parquet(manifest, "desired_groups.parquet") as file:
        for _, rows in read_groups(file, ["group_name", "verdict"]):
            found += rows.filter(pc.equal(rows.column("verdict"), "frozen")).column("group_name").to_pylist()
    return [name if values else hidden_group(name) for name in sorted(found)[:MOST_FOUND]]


def _by_name(newest: Published, name: str, groups: list[str]) -> dict[str, dict[str, Any]]:
    manifest = newest.files_of(name)
    if manifest is None or not groups:
        return {}
    found: dict[str, dict[str, Any]] = {}
    with staging.open_parquet(manifest, name) as file:
        index = file.schema_arrow.names.index("group_name")
        for number in range(file.num_row_groups):
            statistics = file.metadata.row_group(number).column(index).statistics
            if statistics is not None and statistics.null_count == file.metadata.row_group(number).num_rows:
                continue
            rows = file.read_row_group(number)
            inside = pc.is_in(rows.column("group_name"), value_set=pa.array(groups, pa.string()))
            found |= {row["group_name"]: row for row in rows.filter(inside).to_pylist()}
    return found


def _holding_back(known: dict[str, Any], sub: str, newest: Published) -> Iterator[tuple[str, str]]:
    held = sorted({row["hold"] for row in _rows(newest, "plan.parquet", "sub", sub) if row["hold"]})
    for cause in held:
        yield f"held ({cause}): {MEANINGS.get(cause, cause)}", what_to_do(cause)
    outcome, reason = known.get("outcome"), known.get("reason") or ""
    if outcome == "quarantined":
        yield f"in quarantine: {reason}", quarantine_to_do(reason)
    if outcome == "frozen":
        yield f"left as he is: {reason}", "Change scope in the settings, or his status in Cognito."
    if known.get("state") == "deactivated in Joget":
        yield (
            "an administrator deactivated him in Joget, which the sync respects: he gets no memberships",
            "Activate him in Joget's console; the next run gives him what the pool says.",
        )
    if known.get("state") == "deactivated":
        yield "deactivated by the sync", "Enable him in Cognito (or bring him back into the pool)."


def newest_full(history: list[PastRun]) -> Published | None:
    """What the newest run for everybody left."""
    return next((past.published for past in history if is_full(past)), None)
