"""The leaver's clock: what the ledger keeps of each change's times, and what a report says."""

import time
from typing import Any

import pandas as pd
import pytest

from directory_sync.clock import DAYS_COUNTED
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import delays
from directory_sync.run import Run
from directory_sync.settings import find_sync
from directory_sync.staging import store
from directory_sync.tasks.load import SnapshotProposal
from directory_sync.tasks.proposal import carry_out_proposal
from tests.company import Company, attempt, causes, people
from tests.directory_sync.joget.ledger.test_upgrade import make_older
from tests.stand_in import sub_of, user

ANA, BOB, EVE, MAX = (f"{name}@example.org" for name in ("ana", "bob", "eve", "max"))

SUBS = {sub_of(user(email)): email.partition("@")[0] for email in (ANA, BOB, EVE, MAX)}


def modify(person: Any, **changes: Any) -> Any:
    """Change a user of the pool now."""
    person.update(changes, UserLastModifiedDate=time.time())
    return person


def read_delays(company: Company) -> list[tuple[Any, ...]]:
    """Who, what, way, and whether the change has a time and an arrival."""
    return [
        (SUBS.get(sub, sub), *others)
        for sub, *others in company.joget.execute(
            "SELECT sub, what, way, happened_at IS NOT NULL, arrived_at IS NOT NULL "
            "FROM directory_sync_delay ORDER BY committed_at, sub"
        )
    ]


@pytest.fixture
def four(company: Company) -> Company:
    """Four users, two of them in a group, after a first run."""
    company.configure(limits={"floor": 10}, policies={"missing_runs": 1})
    company.pool.users = [user(email) for email in (ANA, BOB, EVE, MAX)]
    company.pool.members = {"Sales": company.pool.users[:2]}
    company.run()
    return company


# Writing


def test_a_first_load_and_a_change_of_settings_time_nothing(four: Company) -> None:
    assert read_delays(four) == []
    four.configure(mapping={"first_name": "family_name"})
    assert four.run()["users"]["updated"] == 4
    assert read_delays(four) == []


def test_a_scheduled_run_times_changes_from_the_pools_date_to_the_commit(four: Company) -> None:
    ana, bob, eve, _ = four.pool.users
    modify(ana, Attributes=user(ANA, given_name="Other")["Attributes"])
    modify(bob, Enabled=False)
    modify(eve)  # nothing of hers is Joget's
    four.pool.users = [ana, bob, eve]
    report = four.run()
    assert causes(report) == {}
    assert sorted(read_delays(four)) == [
        ("ana", "change", "scheduled", 1, 0),
        ("bob", "leaver", "scheduled", 1, 0),
        ("max", "leaver", "scheduled", 0, 0),
    ]
    [(committed, run_key)] = four.joget.execute(
        "SELECT DISTINCT d.committed_at = r.committed_at, d.run_sha256 = r.run_sha256 "
        "FROM directory_sync_delay d JOIN directory_sync_run r USING (run_sha256) "
        "WHERE d.happened_at < d.committed_at OR d.happened_at IS NULL"
    )
    assert (committed, run_key) == (1, 1)
    four.run()
    assert len(read_delays(four)) == 3, "each change is timed once"


def test_a_retry_after_the_commit_times_nothing_twice(four: Company) -> None:
    modify(four.pool.users[0], Enabled=False)
    transformed = four.prepare()
    first, second = four.load(transformed), four.load(transformed)
    assert read_delays(four) == [("ana", "leaver", "scheduled", 1, 0)]
    assert first["clock"]["slowest_minutes_of_run"] is not None
    assert first["clock"] == second["clock"]


def test_held_changes_are_not_timed_and_neither_is_what_a_person_approves(four: Company) -> None:
    four.configure(limits={"floor": 0, "disabled_users_percent": 0})
    modify(four.pool.users[0], Enabled=False)
    assert causes(four.run()) == {"disabled_users_percent": 2}, "the user and a membership"
    review_id = four.ask()
    assert review_id
    report = four.answer(review_id, "approve")
    assert report["users"]["deactivated"] == 1
    four.undo(report["run_id"])
    assert read_delays(four) == []


def test_the_ledgers_times_hold_subs_and_no_name(four: Company) -> None:
    modify(four.pool.users[0], Enabled=False)
    report = four.run()
    rows = " ".join(four.joget.contents("directory_sync_delay")["directory_sync_delay"])
    assert sub_of(user(ANA)) in rows
    assert "example.org" not in rows
    assert "example.org" not in str(report["clock"])


def test_times_are_forgotten_after_thirty_days(four: Company) -> None:
    modify(four.pool.users[0], Enabled=False)
    four.run()
    age_delays(four, days=29)
    four.run()
    assert len(read_delays(four)) == 1
    age_delays(four, days=2)
    four.run(dry_run=True)
    assert len(read_delays(four)) == 1
    four.run()
    assert read_delays(four) == []


def age_delays(company: Company, *, days: int) -> None:
    company.joget.execute(
        f"UPDATE directory_sync_delay SET committed_at = committed_at - INTERVAL {days} DAY"
    )


def load_live(company: Company, emails: list[str], arrivals: pd.DataFrame) -> dict[str, Any]:
    """Load what a run for some users found, as events told of it."""
    transformed = company.prepare(users=emails)
    run = store.read_run(transformed)

    def propose(database: Database) -> SnapshotProposal:
        proposal = SnapshotProposal(database, run, transformed)
        proposal.arrivals = arrivals
        return proposal

    company.last = carry_out_proposal(
        store.open_folder(run, attempt("load", run.run_id).name), propose
    )
    report: dict[str, Any] = store.read_json(company.last, "report.json")
    return report


def test_a_live_run_times_its_users_from_the_event_and_from_its_arrival(four: Company) -> None:
    modify(four.pool.users[0], Enabled=False)
    now = pd.Timestamp.now("UTC")
    heard = pd.DataFrame(
        {
            "sub": [sub_of(user(ANA)), sub_of(user(BOB))],
            "happened_at": now - pd.Timedelta(minutes=3),
            "arrived_at": now - pd.Timedelta(minutes=1),
        }
    )
    clock = load_live(four, [ANA, BOB], heard)["clock"]
    assert read_delays(four) == [("ana", "leaver", "live", 1, 1)], "nothing of Bob changed"
    [live] = clock["ways"]
    assert (live["way"], live["changes"], live["undated"]) == ("live", 1, 0)
    assert 180 <= live["median_seconds"] < 240
    assert 60 <= live["median_seconds_since_arrival"] < 120
    assert clock["slowest_leaver"]["sub"] == sub_of(user(ANA))
    assert 3 <= clock["slowest_minutes_of_run"] < 4
    four.run()
    assert len(read_delays(four)) == 1, "the scheduled run finds it done"


def test_a_detached_sync_keeps_no_times(four: Company) -> None:
    from directory_sync.tasks.detach import detach_sync

    modify(four.pool.users[0], Enabled=False)
    four.run()
    detach_sync("default", is_applied=True)
    assert read_delays(four) == []


# Reading


def write_delays(
    company: Company, way: str, seconds: list[float | None], *, run: str = "", **others: Any
) -> None:
    """Write delays into the ledger: the commits were an hour ago, or `hours` ago."""
    [known] = company.joget.column("SELECT MAX(run_sha256) FROM directory_sync_run")
    hours, what = others.get("hours", 1), others.get("what", "change")
    for number, second in enumerate(seconds):
        company.joget.execute(
            "INSERT INTO directory_sync_delay (sync, run_sha256, sub, what, way, happened_at, "
            "arrived_at, committed_at) SELECT %s, %s, %s, %s, %s, "
            "at - INTERVAL %s MICROSECOND, IF(%s = 'live', at - INTERVAL 1 SECOND, NULL), at "
            "FROM (SELECT UTC_TIMESTAMP(6) - INTERVAL %s HOUR AS at) AS t",
            (
                others.get("sync", "default"),
                run or known,
                f"{way}-{what}-{hours}-{number:05}",
                what,
                way,
                None if second is None else int(second * 1e6),
                way,
                hours,
            ),
        )


def read_clock(company: Company, key: str = "") -> Any:
    run = Run(run_id="x", sync=find_sync("default"), dry_run=True)
    with open_session("joget_mysql") as database:
        found = delays.read_clock(database, run, key)
    return found and found.model_dump(mode="json")


def test_the_clock_tells_median_and_95th_percentile_of_the_last_week_by_way(
    four: Company,
) -> None:
    write_delays(four, "live", [float(second) for second in range(1, 101)])
    write_delays(four, "scheduled", [60, None, 120])
    write_delays(four, "scheduled", [999_999], hours=24 * DAYS_COUNTED + 1)
    write_delays(four, "live", [999_999], sync="another", hours=2)
    live, scheduled = read_clock(four)["ways"]
    assert live == {
        "way": "live",
        "changes": 100,
        "undated": 0,
        "median_seconds": 50.5,
        "p95_seconds": 95.0,
        "median_seconds_since_arrival": 1.0,
        "p95_seconds_since_arrival": 1.0,
    }
    assert scheduled == {
        "way": "scheduled",
        "changes": 3,
        "undated": 1,
        "median_seconds": 90.0,
        "p95_seconds": 117.0,
        "median_seconds_since_arrival": None,
        "p95_seconds_since_arrival": None,
    }


def test_the_slowest_leaver_is_named_with_the_run_that_took_the_access(four: Company) -> None:
    write_delays(four, "live", [5_000])
    assert read_clock(four)["slowest_leaver"] is None, "only others changed"
    write_delays(four, "live", [30, None], what="leaver")
    write_delays(four, "scheduled", [250, 20], what="leaver", hours=3)
    write_delays(four, "live", [9_000], what="leaver", hours=24 * DAYS_COUNTED + 1)
    slowest = read_clock(four)["slowest_leaver"]
    assert slowest.pop("committed_at").endswith("Z")
    assert slowest == {
        "sub": "scheduled-leaver-3-00000",
        "run_id": "manual__0+00:00",
        "way": "scheduled",
        "seconds": 250.0,
    }


def test_the_slowest_change_of_a_run_is_told_in_minutes_for_an_alert(four: Company) -> None:
    write_delays(four, "live", [90, 630, None], run="a" * 64)
    write_delays(four, "live", [6_000], run="b" * 64, hours=2)
    write_delays(four, "live", [None], run="c" * 64, hours=3)
    slowest = [read_clock(four, key * 64)["slowest_minutes_of_run"] for key in "abcd"]
    assert slowest == [10.5, 100.0, None, None]


def test_a_change_that_the_pools_clock_puts_after_the_commit_took_no_time(four: Company) -> None:
    write_delays(four, "live", [-5])
    assert read_clock(four)["ways"][0]["median_seconds"] == 0


def test_a_dry_run_over_an_older_ledger_has_no_clock(four: Company) -> None:
    make_older(four.joget)
    assert four.run(dry_run=True)["clock"] is None
    assert four.run()["clock"] == {
        "days": DAYS_COUNTED,
        "ways": [],
        "slowest_leaver": None,
        "slowest_minutes_of_run": None,
    }


def test_the_clock_reads_only_its_own_week_by_the_index(company: Company) -> None:
    company.pool.users = people(2)
    company.run()
    write_delays(company, "live", [1.0] * 300, hours=24 * 20)
    write_delays(company, "live", [1.0] * 5)
    company.joget.execute("ANALYZE TABLE directory_sync_delay")
    [plan] = company.joget.execute(
        "EXPLAIN FORMAT=TRADITIONAL SELECT way FROM directory_sync_delay d "
        "WHERE d.sync = 'default' "
        f"AND d.committed_at > UTC_TIMESTAMP(6) - INTERVAL {DAYS_COUNTED} DAY"
    )
    assert ("range" in plan, "by_commit" in plan) == (True, True), plan
