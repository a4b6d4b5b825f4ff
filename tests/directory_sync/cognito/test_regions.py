"""A pool in several Regions: which one is read, and what the sign-in Region has to confirm."""

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest

from directory_sync.cognito import client
from directory_sync.cognito.client import GroupGoneError, UserPool
from directory_sync.cognito.regions import AbsenceUnprovenError, RegionDownError
from directory_sync.cognito.user_listing import UserListing, find_user
from directory_sync.errors import PermanentError
from directory_sync.settings import Proof, Sync
from tests.directory_sync.cognito.test_client import PEOPLE, flatten_pages
from tests.directory_sync.test_settings import sync
from tests.stand_in import POOL_ID, Faults, Pool, StandIn, stand_in, sub_of

NEAR, FAR = "eu-west-1", "ap-south-1"
SIGN_IN = "us-east-1"
GROUPS = {"Sales": PEOPLE[:70]}


@pytest.fixture
def served(
    monkeypatch: pytest.MonkeyPatch, aws_connection: Callable[[str], None]
) -> Iterator[StandIn]:
    """The sign-in Region, with replicas in NEAR and FAR that have caught up."""
    monkeypatch.setattr(client, "ATTEMPTS_OF_A_CALL", 1)
    with stand_in(Pool(list(PEOPLE), dict(GROUPS))) as sign_in:
        for region in (NEAR, FAR):
            sign_in.replicas[region] = StandIn(Pool(list(PEOPLE), dict(GROUPS)), Faults())
        aws_connection(sign_in.endpoint)
        yield sign_in


def open_pool(*read_regions: str, **changes: Any) -> UserPool:
    settings = sync(user_pool_id=POOL_ID, requests_per_second=1000, region=SIGN_IN)
    changes = {"read_regions": list(read_regions), **changes}
    return client.open_user_pool(Sync.model_validate({**settings, **changes}), "listing")


def list_subs(pool: UserPool) -> list[str]:
    """The subs of a whole listing, as `extract_users` makes it."""
    listing = UserListing(pool, lambda _: None)
    listing.list_all(Proof(), None, lambda: pa.array([], pa.string()))
    return [str(sub) for sub in listing.subs.to_pylist()]


def test_the_first_region_of_read_regions_is_read_and_no_other(served: StandIn) -> None:
    pool = open_pool(NEAR, FAR)
    assert list_subs(pool) == [sub_of(person) for person in PEOPLE]
    assert [group["GroupName"] for group in flatten_pages(pool.groups())] == ["Sales"]
    assert len(flatten_pages(pool.members("Sales"))) == 70
    assert pool.estimated_users() == 150
    assert served.replicas[NEAR].calls.total() == pool.progress.calls == 7
    assert served.calls.total() == served.replicas[FAR].calls.total() == 0


def test_without_read_regions_only_the_sign_in_region_is_read(served: StandIn) -> None:
    list_subs(open_pool())
    assert served.calls.total() == 3
    assert served.replicas[NEAR].calls.total() == 0


def test_read_regions_may_begin_with_the_sign_in_region(served: StandIn) -> None:
    pool = open_pool(SIGN_IN, NEAR)
    assert len(list_subs(pool)) == 150
    assert not pool.reads_replica
    served.faults.down_after = 0
    assert len(list_subs(pool)) == 150
    assert pool.reads_replica


def test_a_region_that_is_down_at_the_beginning_is_passed_over_and_not_tried_again(
    served: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    near = served.replicas[NEAR].faults
    near.down_after = 0
    pool = open_pool(NEAR, FAR)
    assert len(list_subs(pool)) == 150
    assert f"address of region {NEAR}? Going on in region {FAR}" in caplog.text
    near.down_after = None
    assert len(list_subs(pool)) == 150
    assert served.replicas[NEAR].calls.total() == served.calls.total() == 0


def test_a_list_whose_region_goes_down_begins_again_in_the_next_one(served: StandIn) -> None:
    served.replicas[NEAR].faults.down_after = 2
    served.replicas[FAR].faults.down_after = 1
    pool = open_pool(NEAR, FAR)
    assert list_subs(pool) == [sub_of(person) for person in PEOPLE], "each is listed once"
    calls = [one.calls["ListUsers"] for one in (*served.replicas.values(), served)]
    assert calls == [2, 1, 3], "no token of one Region was shown to another"


def test_if_all_regions_are_down_the_listing_is_tried_again_later(served: StandIn) -> None:
    for region in (served, *served.replicas.values()):
        region.faults.down_after = 0
    with pytest.raises(RegionDownError, match=f"address of region {SIGN_IN}"):
        list_subs(open_pool(NEAR, FAR))


def test_a_region_that_answers_with_server_errors_is_down_too(served: StandIn) -> None:
    served.replicas[NEAR].faults.broken_calls = 100
    assert len(list_subs(open_pool(NEAR))) == 150
    assert served.calls["ListUsers"] == 3


def test_a_region_that_throttles_is_not_down_and_slows_down_no_other(
    served: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    served.replicas[NEAR].faults.throttled_calls = served.faults.throttled_calls = 1
    pool = open_pool(NEAR)
    with caplog.at_level(logging.INFO):
        assert len(list_subs(pool)) == 150
        assert served.calls.total() == 0, "the replica is asked again"
        with pool.confirming() as sign_in:
            assert len(flatten_pages(sign_in.users())) == 150
    # From 1,000 calls a second down to 800, in both: the second would go on from the first's rate.
    assert len(re.findall(r"going on with [89]\d\d\.\d calls", caplog.text)) == 2
    assert pool.progress.throttled == 2


def test_a_user_that_a_replica_lacks_is_asked_for_in_the_sign_in_region(served: StandIn) -> None:
    late = served.replicas[NEAR].pool.users.pop()
    pool = open_pool(NEAR)
    assert find_user(pool, sub_of(late)), "the sign-in Region has the user"
    served.pool.users.remove(late)
    assert find_user(pool, sub_of(late)) == [], "both say that there is no such user"
    served.replicas[NEAR].pool.users.append(late)
    asked = served.calls.total()
    assert find_user(pool, sub_of(late)), "presence in either Region is evidence"
    assert served.calls.total() == asked


def test_an_absence_is_not_proven_while_the_sign_in_region_is_down(served: StandIn) -> None:
    late = served.replicas[NEAR].pool.users.pop()
    served.faults.down_after = 0
    pool = open_pool(NEAR)
    for _ in range(2):
        with pytest.raises(AbsenceUnprovenError, match=SIGN_IN):
            find_user(pool, sub_of(late))
    assert find_user(pool, sub_of(PEOPLE[0]))


def test_a_group_is_gone_only_where_the_sign_in_region_lacks_it_too(served: StandIn) -> None:
    pool = open_pool(NEAR)
    del served.replicas[NEAR].pool.members["Sales"]
    assert len(flatten_pages(pool.members("Sales"))) == 70
    del served.pool.members["Sales"]
    with pytest.raises(GroupGoneError):
        flatten_pages(pool.members("Sales"))
    served.faults.down_after = 0
    with pytest.raises(AbsenceUnprovenError):
        flatten_pages(open_pool(NEAR).members("Sales"))


def test_a_region_without_the_pool_does_not_say_that_a_group_is_gone(served: StandIn) -> None:
    """Cognito has one code for a pool and for a group that it doesn't have."""
    served.pool_ids.clear()
    del served.replicas[NEAR].pool.members["Sales"]
    with pytest.raises(PermanentError, match=f"doesn't exist in region {SIGN_IN}"):
        flatten_pages(open_pool(NEAR).members("Sales"))
    served.replicas[NEAR].faults.down_after = 0
    with pytest.raises(PermanentError, match=f"doesn't exist in region {SIGN_IN}"):
        flatten_pages(open_pool(NEAR).members("Sales"))


def test_parts_of_a_replica_are_compared_with_the_replica_alone(
    served: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who is late in the replica doesn't show that its filter skips users."""
    monkeypatch.setattr("directory_sync.cognito.user_listing.SMALLEST_POOL_IN_PARTS", 1)
    late = served.replicas[NEAR].pool.users.pop()
    listing = UserListing(open_pool(NEAR), lambda _: None)
    listing.list_all(Proof(), 150, lambda: pa.array([sub_of(late)]))
    assert listing.in_parts
    assert not listing.parts_failed
    assert served.calls.total() == 0


def test_a_pool_may_live_in_another_region_than_its_id_begins_with(served: StandIn) -> None:
    pool = open_pool(region=NEAR)
    assert len(list_subs(pool)) == 150
    assert POOL_ID.startswith(SIGN_IN)
    assert served.calls.total() == 0
    served.pool_ids.clear()
    with pytest.raises(PermanentError, match="region or read_regions") as caught:
        list_subs(open_pool())
    assert "begins with" not in str(caught.value)


def test_an_inactive_replica_lacks_no_right(served: StandIn) -> None:
    served.replicas[NEAR].faults.not_served = "ListUsers"
    with pytest.raises(PermanentError, match="OperationNotEnabledException") as caught:
        list_subs(open_pool(NEAR))
    text = str(caught.value)
    assert f"Region {NEAR} doesn't serve ListUsers" in text
    assert "take this one out of read_regions" in text
    assert "iam-policy" not in text
