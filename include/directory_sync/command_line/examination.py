"""What `directory-sync doctor` prints."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from directory_sync.command_line.doctor.findings import Examination

STATUS_STYLES = {"ok": "green", "warning": "yellow", "wrong": "bold red", "unknown": "dim"}
"""By status."""

EXIT_CODES = {"ok": 0, "wrong": 1, "warning": 2}
"""By the worst status."""

CONCLUSION_SENTENCES = {
    "ok": "Nothing is wrong.",
    "warning": "A run works. Look at the warnings.",
    "wrong": "A run would fail, or do what nobody wants: correct what is wrong.",
}


def describe_examination(examination: "Examination") -> dict[str, Any]:
    """The examination, as --json prints it."""
    return {
        "sync": examination.sync,
        "worst": str(examination.worst),
        "findings": [
            {
                "name": finding.name,
                "status": str(finding.status),
                "what": finding.what,
                "to_do": finding.to_do,
            }
            for finding in examination.findings
        ],
    }


def show_examination(examination: "Examination", console: Console) -> None:
    """A line for each finding, then what to conclude."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=34, overflow="fold")
    table.add_column(overflow="fold")
    for finding in examination.findings:
        style = STATUS_STYLES[finding.status]
        said = escape(
            f"{finding.what.rstrip('.')}. {finding.to_do}" if finding.to_do else finding.what
        )
        table.add_row(f"[{style}]{finding.status}[/{style}]", escape(finding.name), said)
    console.print(table, highlight=False)
    console.print(
        f"Sync {examination.sync}: {CONCLUSION_SENTENCES[examination.worst]}", highlight=False
    )
