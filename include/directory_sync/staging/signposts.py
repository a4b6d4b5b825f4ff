"""Signposts: small files that name folders, or moments, since staging is never searched.

A signpost lies in a folder of its kind beside those of the runs, and its name begins with a time.
"""

from datetime import UTC, datetime, timedelta

from directory_sync.run import Run
from directory_sync.staging import store

SNAPSHOT_SIGNPOSTS = "snapshots"
"""Signposts to complete listings, which a backfill's other dates use: `<time>.users`,
`<time>.groups`, and `<time>.backfill.users` for those that a backfill's run listed.
"""

APPLIED_SIGNPOSTS = "applied"
"""Signposts to the folders of committed runs, named `<time of the commit>.<database>.<kind>.<key in
the ledger>`.
"""

CLEANING_SIGNPOSTS = "cleanings"
"""Signposts by time, each saying that a run looked for old files then."""

ONE_CHAIN_SIGNPOSTS = "one_chain"
"""Signposts by time, each saying that a listing in parts couldn't be trusted then."""

ONE_CHAIN_DAYS = timedelta(days=7)
"""How long the pool is then listed in one chain of pages. Trying parts in every run, and then one
chain, would cost twice the calls.
"""

ALERT_SIGNPOSTS = "alerts"
"""Signposts by time that say which alert was sent, or which figure a run noted: `<time>.<condition
of alerts.Condition>.<raised or cleared>`. They name no folder; their content is the figure.
"""

TIME_FORMAT = "%Y%m%dT%H%M%S%fZ"


def write_signpost(run: Run, kind: str, name: str, folder_url: str) -> None:
    """Leave a signpost of that kind to a sealed folder."""
    store.write_bytes(_make_url(run, kind, name), folder_url.encode())


def list_signposts(run: Run, kind: str) -> list[str]:
    """The names of a kind's signposts, oldest first."""
    return store.list_names(_make_url(run, kind))


def read_signpost(run: Run, kind: str, name: str) -> str:
    """The folder that a signpost names."""
    return store.read_bytes(_make_url(run, kind, name)).decode()


def read_newest_signpost(run: Run, kind: str, ending: str) -> str | None:
    """The folder that the newest signpost with such an ending names; None where there is none."""
    names = [name for name in list_signposts(run, kind) if name.endswith(ending)]
    return read_signpost(run, kind, names[-1]) if names else None


def format_time(at: datetime) -> str:
    """A time as the beginning of a signpost's name: UTC, to the microsecond."""
    return at.astimezone(UTC).strftime(TIME_FORMAT)


def format_later_time(name: str) -> str:
    """The first time after that of a signpost's name."""
    at = datetime.strptime(name.partition(".")[0], TIME_FORMAT).replace(tzinfo=UTC)
    return format_time(at + timedelta(microseconds=1))


def _make_url(run: Run, *names: str) -> str:
    return "/".join((run.sync.staging_url, run.home, *names))
