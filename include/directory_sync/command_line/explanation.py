"""What `directory-sync explain` prints: the page's answer, in its words."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from directory_sync.pages.user_answer import UserAnswer
    from directory_sync.pages.user_events import UserEvent
    from directory_sync.pages.user_explanation import Explanation


def describe_answer(answer: "UserAnswer") -> dict[str, Any]:
    """The answer, as --json prints it. `explained` is null where nobody, or more than one user, was
    found.
    """
    search_result = answer.search_result
    return {
        "refusal": answer.refusal,
        "subs": list(search_result.subs) if search_result else [],
        "more_subs": bool(search_result and search_result.more),
        "runs_searched": len(answer.searched_runs),
        "explained": _describe_explanation(answer.explained) if answer.explained else None,
    }


def _describe_explanation(explained: "Explanation") -> dict[str, Any]:
    pool = explained.pool
    return {
        "sub": explained.sub,
        "holding_back": [{"why": why, "to_do": to_do} for why, to_do in explained.holding_back],
        "in_pool": {"status": pool.status, "enabled": pool.enabled} if pool else None,
        "verdict": explained.verdict,
        "verdict_reason": explained.verdict_reason,
        "values": [vars(value) for value in explained.values],
        "joget_id": explained.joget_id,
        "linked_since": explained.linked_since,
        "state": explained.state,
        "outcome": explained.outcome,
        "reason": explained.reason,
        "decided_by": {
            "dag_id": explained.decided_by.run.dag_id,
            "run_id": explained.decided_by.run.run_id,
        },
        "groups": [vars(group) for group in explained.groups],
        "unread_groups": list(explained.unread_groups),
        "events": [_describe_event(event) for event in explained.events],
    }


def _describe_event(event: "UserEvent") -> dict[str, Any]:
    return {
        "dag_id": event.dag_id,
        "run_id": event.run_id,
        "at": event.at.isoformat(),
        "by": event.by,
        "dry_run": event.dry_run,
        "changes": [vars(change) for change in event.changes],
    }


def show_answer(answer: "UserAnswer", console: Console) -> None:
    """The explanation, or why there is none."""
    if answer.explained:
        _show_explanation(answer.explained, answer, console)
    elif answer.refusal:
        _print_sentence(console, answer.refusal)
    elif answer.search_result:
        first = " (these are the first of them)" if answer.search_result.more else ""
        _print_sentence(console, f"Several users fit{first}; ask again with the sub of one:")
        for sub in answer.search_result.subs:
            _print_sentence(console, f"  {sub}")


def _show_explanation(explained: "Explanation", answer: "UserAnswer", console: Console) -> None:
    console.print(f"[bold]{escape(explained.sub)}[/bold]", highlight=False)
    if explained.holding_back:
        console.print("[bold red]What holds this user back now[/bold red]")
    for why, to_do in explained.holding_back:
        _print_sentence(console, f"  {why}. {to_do}")
    if explained.conclusion:
        _print_sentence(console, explained.conclusion)
    _print_sentence(console, f"In the pool: {explained.in_pool}")
    _print_sentence(console, f"In scope: {explained.in_scope}")
    _show_table(
        console,
        "Mapped",
        ("Joget's column", "Cognito's attribute", "value"),
        [(value.column, value.attribute, value.value or "(empty)") for value in explained.values],
        "no values.",
    )
    _print_sentence(console, f"Linked: {_describe_link(explained)}")
    _show_table(
        console,
        "Groups",
        ("group of the pool", "Joget's group", "how it came about"),
        [
            (
                group.name,
                f"{group.joget_id} (not in Joget: {group.note})" if group.note else group.joget_id,
                group.came,
            )
            for group in explained.groups
        ],
        "none in the pool.",
    )
    if explained.unread_groups:
        unread = ", ".join(explained.unread_groups)
        _print_sentence(
            console,
            f"No run listed the members of groups that aren't in scope, such as {unread}.",
        )
    _show_events(explained, answer, console)


def _describe_link(explained: "Explanation") -> str:
    if not explained.outcome:
        return "no run knows this user."
    linked = (
        f"to Joget user {explained.joget_id}, since {explained.linked_since}"
        if explained.joget_id
        else "to no user of Joget's"
    )
    state = f"; state {explained.state}" if explained.state else ""
    reason = f" ({explained.reason})" if explained.reason else ""
    by = f"{explained.decided_by.run.run_id} of {explained.decided_by.ended:%Y-%m-%d %H:%M} UTC"
    return f"{linked}{state}; {by}: {explained.outcome}{reason}."


def _show_events(explained: "Explanation", answer: "UserAnswer", console: Console) -> None:
    if not explained.events:
        _print_sentence(console, f"What the runs did: nothing, in the {answer.searched}.")
        return
    _print_sentence(console, "What the runs did:")
    for event in explained.events:
        dry_run = ", dry run" if event.dry_run else ""
        _print_sentence(
            console,
            f"  {event.at:%Y-%m-%d %H:%M} UTC, {event.run_id}, {event.by}{dry_run}:",
        )
        for change in event.changes:
            group = f" {change.group}" if change.entity == "membership" else ""
            reason = f": {change.reason}" if change.reason else ""
            held = f"; held: {change.meaning}" if change.hold else ""
            action = change.action.replace("_", " ")
            _print_sentence(console, f"    {change.entity} {action}{group}{reason}{held}")
            for column, before, after in change.differences:
                _print_sentence(console, f"      {column}: {before} → {after}")


def _show_table(
    console: Console,
    title: str,
    headings: tuple[str, ...],
    rows: list[tuple[str, ...]],
    nothing: str,
) -> None:
    if not rows:
        _print_sentence(console, f"{title}: {nothing}")
        return
    _print_sentence(console, f"{title}:")
    table = Table(*headings)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table, highlight=False)


def _print_sentence(console: Console, sentence: str) -> None:
    """Print a sentence as it is, on one line."""
    # A name may hold what rich takes for markup, such as [red].
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
