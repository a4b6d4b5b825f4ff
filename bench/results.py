"""What was measured, compared with the bars, as a page."""

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

console = Console(width=120, highlight=False)


@dataclass(frozen=True)
class Measured:
    """How long one piece of work took, once."""

    work: str
    people: int
    who: str
    seconds: float
    peak_mib: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class Bar:
    """A promise, what was measured for it, and whether that keeps it."""

    what: str
    asked: str
    reached: str
    ok: bool


@dataclass
class Results:
    """Everything of one run, printed as it comes."""

    times: list[Measured] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)

    def add(self, measured: Measured) -> float:
        """Keep and print one time; gives its seconds."""
        self.times.append(measured)
        memory = f"{measured.peak_mib:8,.0f} MiB" if measured.peak_mib else ""
        console.print(
            f"{measured.people:>9,} {measured.work:34} {measured.who:38} {measured.seconds:9.2f} s "
            f"{memory} {measured.remark}"
        )
        return measured.seconds

    def seconds(self, work: str, people: int, who: str) -> float | None:
        """A time that was measured, if it was."""
        found = [
            one.seconds
            for one in self.times
            if (one.work, one.people, one.who) == (work, people, who)
        ]
        return found[-1] if found else None

    def at_most(self, what: str, ours: float | None, base: float | None, times: float) -> None:
        """A bar: ours is at most so many times the base."""
        if ours is not None and base:
            self._bar(what, f"at most {times:g} times", ours / base, ok=ours <= times * base)

    def faster(self, what: str, ours: float | None, other: float | None, times: float) -> None:
        """A bar: the other takes at least so many times as long."""
        if ours and other is not None:
            self._bar(
                what, f"at least {times:g} times faster", other / ours, ok=other >= times * ours
            )

    def within(self, what: str, figure: float, limit: float, unit: str) -> None:
        """A bar: a figure within a limit."""
        self.bars.append(
            Bar(what, f"at most {limit:g} {unit}", f"{figure:,.2f} {unit}", figure <= limit)
        )

    def _bar(self, what: str, asked: str, ratio: float, *, ok: bool) -> None:
        self.bars.append(Bar(what, asked, f"{ratio:.2f}", ok))

    def page(self, remarks: str) -> str:
        """results.md."""
        lines = [
            "# Results of `make bench`",
            "",
            f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, all in one "
            "run on one machine. Compare ratios: the times of a busy machine vary.",
            "",
            "| bar | asked | measured | |",
            "|---|---|---|---|",
            *(
                f"| {bar.what} | {bar.asked} | {bar.reached} | {'yes' if bar.ok else '**no**'} |"
                for bar in self.bars
            ),
            "",
            "| users | work | who | seconds | peak MiB | |",
            "|--:|---|---|--:|--:|---|",
            *(
                f"| {one.people:,} | {one.work} | {one.who} | {one.seconds:.2f} | "
                f"{f'{one.peak_mib:,.0f}' if one.peak_mib else ''} | {one.remark} |"
                for one in self.times
            ),
            "",
            remarks.strip(),
            "",
        ]
        return "\n".join(lines)

    def write(self, path: Path, remarks: str) -> None:
        """Write the page, and print its bars."""
        for bar in self.bars:
            console.print(
                f"{'ok  ' if bar.ok else 'MISS'} {bar.what}: {bar.asked}, measured {bar.reached}"
            )
        path.parent.mkdir(exist_ok=True)
        path.write_text(self.page(remarks), encoding="utf-8")
        console.print(f"Written to {path}.")
