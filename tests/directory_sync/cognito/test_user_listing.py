"""Listing a large pool in parts: they add up to the whole, or the pool is listed in one chain of
pages.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from directory_sync.cognito import user_listing
from directory_sync.cognito.rate_limit import RateLimiter
from directory_sync.cognito.user_listing import count_parallel_parts
from tests.company import Company, causes, counts
from tests.conftest import JogetDatabase, new_company
from tests.stand_in import Bucket, Faults, sub_of, user

PEOPLE = [user(f"user{number}@example.org") for number in range(300)]
PART = 'sub ^= "{}"'


@pytest.fixture
def company(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """A company with a pool that is large enough for parts."""
    monkeypatch.setattr(user_listing, "SMALLEST_POOL_IN_PARTS", 100)
    company.pool.users = list(PEOPLE)
    company.pool.members = {"Everyone": list(PEOPLE), "Few": PEOPLE[:7]}
    return company


def was_listed_in_one_chain(company: Company) -> bool:
    return company.cognito.filters[""] > 0


def assert_whole(report: dict[str, Any]) -> None:
    assert report["complete"]
    assert report["users"]["read"] == len(PEOPLE)
    assert (report["memberships"]["read"], report["quarantine"]) == (len(PEOPLE) + 7, [])


def test_a_large_pool_is_listed_in_sixteen_parts(company: Company) -> None:
    assert_whole(company.run())
    assert sorted(company.cognito.filters) == [PART.format(digit) for digit in "0123456789abcdef"]


def test_a_small_pool_is_listed_in_one_chain_and_costs_no_extra_call(company: Company) -> None:
    company.pool.users, company.pool.members = PEOPLE[:99], {}
    company.run()
    assert dict(company.cognito.filters) == {"": 1}
    assert company.cognito.calls["ListUsers"] == 2


@pytest.mark.parametrize("estimate", ["absent", "250"])
def test_without_a_fitting_estimate_the_pool_is_listed_in_one_chain(
    company: Company, estimate: str
) -> None:
    company.faults.estimate = estimate
    report = company.run()
    assert was_listed_in_one_chain(company)
    assert report["users"]["read"] == len(PEOPLE)
    assert not report["complete"], "and the estimate still doesn't fit"


@pytest.mark.parametrize("fault", ["refused", "ignored"])
def test_if_the_filter_does_not_work_the_pool_is_listed_in_one_chain(
    company: Company, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    company.faults.filter = fault
    assert_whole(company.run())
    assert was_listed_in_one_chain(company)
    assert "in one chain of pages, since" in caplog.text


def test_parts_that_lack_more_than_the_tolerance_are_not_believed(company: Company) -> None:
    company.faults.parts_lack = dict.fromkeys("0123456789abcdef", 2)
    assert_whole(company.run())
    assert was_listed_in_one_chain(company)


def test_parts_that_lack_one_user_that_joget_knows_are_not_believed(company: Company) -> None:
    company.run()
    company.cognito.filters.clear()
    company.faults.parts_lack = {"a": 1}
    assert_whole(company.run())
    assert was_listed_in_one_chain(company)


def test_a_user_who_is_really_gone_is_asked_for_by_name_and_is_missing(company: Company) -> None:
    company.configure(policies={"missing_runs": 1})
    company.run()
    company.cognito.filters.clear()
    gone = company.pool.users.pop()
    for members in company.pool.members.values():
        members[:] = [member for member in members if member is not gone]
    report = company.run()
    assert (report["users"]["missing"], report["users"]["deactivated"]) == (1, 1)
    assert company.cognito.filters[f'sub = "{gone["Username"]}"'] == 2, (
        "for the parts, and after all lists"
    )
    company.cognito.filters.clear()
    company.run()
    assert len(company.cognito.filters) == 16, (
        "a user who has been missing for long isn't asked for in every run"
    )


def remove_users(company: Company, gone: list[Any]) -> None:
    company.pool.users = [one for one in PEOPLE if one not in gone]
    company.pool.members = {
        name: [member for member in members if member not in gone]
        for name, members in company.pool.members.items()
    }


def test_each_of_many_absent_users_is_asked_for(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_listing, "USERS_IN_A_PAGE", 10)
    company.run()
    company.cognito.filters.clear()
    remove_users(company, PEOPLE[:20])
    assert counts(company.run())["missing"] == 20
    assert not was_listed_in_one_chain(company)
    assert len(company.cognito.filters) == 16 + 20


def test_one_user_that_the_parts_lack_is_found_among_many_who_are_gone(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_listing, "USERS_IN_A_PAGE", 10)
    company.run()
    remove_users(company, PEOPLE[:20])
    company.faults.parts_lack = {"a": 1}
    assert counts(company.run())["missing"] == 20
    assert was_listed_in_one_chain(company)


def test_if_more_users_are_absent_than_a_list_has_pages_one_chain_is_listed_first(
    company: Company,
) -> None:
    company.run()
    company.cognito.filters.clear()
    remove_users(company, PEOPLE[:6])
    assert counts(company.run())["missing"] == 6
    by_name = {f'sub = "{sub_of(person)}"' for person in PEOPLE[:6]}
    parts = {PART.format(digit) for digit in "0123456789abcdef"}
    assert set(company.cognito.filters) - {""} == parts | by_name
    assert all(company.cognito.filters[name] == 1 for name in by_name)
    assert was_listed_in_one_chain(company)


def test_after_parts_that_failed_the_next_runs_list_in_one_chain_alone(company: Company) -> None:
    company.faults.estimate = "306"
    for expected in (16 + 1, 1):
        company.cognito.filters.clear()
        company.run()
        assert len(company.cognito.filters) == expected


def test_a_listing_outlives_the_connections_to_joget(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.run()
    listed = user_listing.UserListing._list_parts

    def cut_off(self: Any, at_once: int) -> None:
        listed(self, at_once)
        for number in company.joget.column(
            "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> "
            "CONNECTION_ID()"
        ):
            company.joget.execute(f"KILL {number}")

    monkeypatch.setattr(user_listing.UserListing, "_list_parts", cut_off)
    assert_whole(company.run())
    assert_whole(company.load(company.prepare_backfill("backfill__2026-11-01", datetime.now(UTC))))


def test_if_one_user_cannot_be_asked_for_the_pool_is_listed_in_one_chain(company: Company) -> None:
    company.run()
    remove_users(company, PEOPLE[:1])
    company.faults.filter = "prefix"
    report = company.run()
    assert (report["users"]["missing"], causes(report)) == (1, {"unproven_absence": 3})
    assert was_listed_in_one_chain(company)


def test_parts_must_fit_the_estimate_closely(company: Company) -> None:
    company.faults.parts_lack = {"a": 4}
    assert_whole(company.run())
    assert was_listed_in_one_chain(company)


def test_if_groups_have_members_that_the_parts_lacked_the_next_runs_list_in_one_chain(
    company: Company,
) -> None:
    company.configure(proof={"newcomers": 1})
    company.faults.parts_lack = {"a": 2}
    report = company.run()
    assert (report["complete"], report["users"]["read"]) == (False, len(PEOPLE)), (
        "they are in their groups"
    )
    assert not was_listed_in_one_chain(company)
    assert_whole(company.run())
    assert was_listed_in_one_chain(company)


@pytest.mark.parametrize("nth", [3, 11])
def test_a_part_begins_again_after_its_token_died_and_nobody_is_left_out(
    company: Company, nth: int
) -> None:
    company.faults.pages = ()
    company.cognito._lengths = iter([5] * 10_000)
    company.faults.dying_token = nth
    assert_whole(company.run())
    assert not was_listed_in_one_chain(company)
    assert sum(company.cognito.filters.values()) + company.cognito.listings.total() == 16 + 2 + 1


def test_users_without_a_hexadecimal_sub_are_in_no_part_and_found_nevertheless(
    company: Company,
) -> None:
    company.pool.users += [
        user(f"odd{number}@example.org", sub=f"zz-{number}") for number in range(20)
    ]
    report = company.run()
    assert was_listed_in_one_chain(company)
    assert report["users"]["read"] == len(PEOPLE) + 20


def test_a_failure_in_one_part_stops_the_others(company: Company) -> None:
    company.faults.filter = "ignored"
    company.cognito._lengths = iter([1] * 100_000)
    company.run()
    assert company.cognito.calls["ListUsers"] < len(PEOPLE) + 100, (
        "not sixteen listings of everybody"
    )


@pytest.mark.parametrize(
    ("estimated", "rate", "at_once"),
    [(100_000, 30, 16), (1_000_000, 15, 16), (4_000_000, 15, 8), (40_000_000, 1, 1)],
)
def test_no_part_takes_longer_than_a_token_lives(estimated: int, rate: float, at_once: int) -> None:
    assert count_parallel_parts(estimated, rate) == at_once


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def count_calls(limiter: RateLimiter, clock: Clock, seconds: float) -> int:
    until, made = clock.now + seconds, 0
    while clock.now < until:
        limiter.take()
        made += 1
    return made


def test_the_limiter_keeps_its_rate_exactly(clock: Clock) -> None:
    assert count_calls(RateLimiter(30, clock, clock.sleep), clock, 10) in range(300, 306)


def test_a_throttled_limiter_slows_down_and_recovers(clock: Clock) -> None:
    limiter = RateLimiter(30, clock, clock.sleep)
    assert limiter.throttled()
    assert limiter.per_second == pytest.approx(24)
    assert not limiter.throttled(), "calls that were under way with it don't count again"
    count_calls(limiter, clock, 2)
    assert 28 < limiter.per_second < 30
    count_calls(limiter, clock, 10)
    assert limiter.per_second == 30


@pytest.mark.parametrize(("left", "most_throttled"), [(15, 0.03), (6, 0.06), (3, 0.1), (1, 0.4)])
def test_the_rest_of_the_quota_is_used_and_few_calls_are_throttled(
    clock: Clock, left: float, most_throttled: float
) -> None:
    limiter, served, throttled = RateLimiter(30, clock, clock.sleep), 0, 0
    bucket = Bucket(left, clock)
    while clock.now < 1000 + 600:
        limiter.take()
        if bucket.take():
            served += 1
        else:
            throttled += 1
            limiter.throttled()
    assert served > 0.7 * 600 * left
    assert throttled < most_throttled * (served + throttled)


def test_a_pool_is_listed_whole_even_if_others_use_its_quota(
    joget: JogetDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_listing, "SMALLEST_POOL_IN_PARTS", 100)
    with new_company(
        joget, tmp_path, monkeypatch, Faults(quotas={"UserList": 10}, pages=[7])
    ) as company:
        company.configure(requests_per_second=60)
        company.pool.users, company.pool.members = (
            list(PEOPLE),
            {"Everyone": list(PEOPLE), "Few": PEOPLE[:7]},
        )
        assert_whole(company.run())
        assert company.cognito.throttled > 0
