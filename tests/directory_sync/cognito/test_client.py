"""Listing a pool: every page, inside the quota, with retries that keep to the rate."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from demo.aws import REGION, Aws
from directory_sync.cognito import client as cognito
from directory_sync.cognito.client import UserPool
from directory_sync.cognito.rate_limit import ProgressLine, RateLimiter
from directory_sync.errors import TransientError
from directory_sync.settings import Sync
from tests.directory_sync.test_settings import sync
from tests.stand_in import POOL_ID, Faults, Pool, stand_in, sub_of, user

PEOPLE = [user(f"user{number}@example.org") for number in range(150)]


def connect_to_pool(
    aws_connection: Callable[[str], None], endpoint: str, pool_id: str = POOL_ID
) -> UserPool:
    aws_connection(endpoint)
    return cognito.open_user_pool(
        Sync.model_validate(sync(user_pool_id=pool_id, requests_per_second=1000)), "listing"
    )


def flatten_pages(pages: Any) -> list[Any]:
    return [found for page in pages for found in page]


@pytest.mark.parametrize("lengths", [(60,), (1, 0, 0, 59), (0, 60, 7), (20,)])
def test_only_a_missing_token_ends_a_listing(
    aws_connection: Callable[[str], None], lengths: tuple[int, ...]
) -> None:
    pool = Pool(PEOPLE, {f"g{number}": PEOPLE[:number] for number in range(70)})
    with stand_in(pool, Faults(pages=lengths)) as served:
        listed = connect_to_pool(aws_connection, served.endpoint)
        assert [sub_of(found) for found in flatten_pages(listed.users())] == [
            sub_of(person) for person in PEOPLE
        ]
        assert {group["GroupName"] for group in flatten_pages(listed.groups())} == set(pool.members)
        assert len(flatten_pages(listed.members("g69"))) == 69
        assert flatten_pages(listed.members("g0")) == []
        assert listed.estimated_users() == 150


def test_every_attempt_and_every_retry_waits_for_the_limiter(
    aws_connection: Callable[[str], None],
) -> None:
    with stand_in(Pool(PEOPLE), Faults(throttled_calls=2)) as served:
        listed = connect_to_pool(aws_connection, served.endpoint)
        flatten_pages(listed.users())
        assert served.calls["ListUsers"] == 5, "two throttled, three pages"
        assert listed.progress.calls == 5


def test_a_call_is_tried_six_times_and_no_more(aws_connection: Callable[[str], None]) -> None:
    with stand_in(Pool(PEOPLE), Faults(broken_calls=100)) as served:
        listed = connect_to_pool(aws_connection, served.endpoint)
        with pytest.raises(TransientError, match="InternalErrorException"):
            flatten_pages(listed.users())
        assert served.calls["ListUsers"] == 6


def test_a_page_that_is_throttled_for_long_is_asked_for_again_and_nothing_before_it(
    aws_connection: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cognito, "ATTEMPTS_OF_A_CALL", 1)
    faults = Faults()
    with stand_in(Pool(PEOPLE), faults) as served:
        pages = connect_to_pool(aws_connection, served.endpoint).users()
        found = next(pages)
        faults.throttled_calls = served.calls.total() + 20
        found += flatten_pages(pages)
        assert [sub_of(one) for one in found] == [sub_of(person) for person in PEOPLE]
        assert served.calls["ListUsers"] == 23


def test_the_limiter_spaces_calls_of_all_threads_evenly() -> None:
    now, waits, lock = [0.0], [], threading.Lock()

    def sleep(seconds: float) -> None:
        with lock:
            waits.append(round(seconds, 6))

    limiter = RateLimiter(10, clock=lambda: now[0], sleep=sleep)
    threads = [threading.Thread(target=limiter.take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [0.1, 0.2, 0.3, 0.4]
    now[0] = 100.0
    limiter.take()
    assert len(waits) == 4, "unused time isn't saved up, and nobody waits for it"


def test_progress_is_a_line_of_counts_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    progress = ProgressLine("listing users", every=0)
    with caplog.at_level(logging.INFO):
        progress.call()
        progress.add("users", 60)
        progress.add("users", 60)
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        "listing users: 60 users",
        "listing users: 120 users",
    ]


def test_the_stand_in_answers_as_moto_does(
    aws_connection: Callable[[str], None], moto: Aws
) -> None:
    """A contract of both, so that the stand-in can't drift away from Cognito as others know it."""
    client = moto.client("cognito-idp")
    pool_id = client.create_user_pool(PoolName="contract")["UserPool"]["Id"]
    for number in range(65):
        attributes = [
            {"Name": "email", "Value": f"u{number}@example.org"},
            {"Name": "given_name", "Value": "Given"},
        ]
        client.admin_create_user(
            UserPoolId=pool_id, Username=f"u{number}", UserAttributes=attributes
        )
        if number < 61:
            client.create_group(UserPoolId=pool_id, GroupName=f"g{number}")
        client.admin_add_user_to_group(UserPoolId=pool_id, GroupName="g0", Username=f"u{number}")
    people = [user(f"u{number}@example.org") for number in range(65)]
    with stand_in(
        Pool(people, {f"g{number}": people if number == 0 else [] for number in range(61)})
    ) as served:
        seen = []
        for endpoint, pool in ((moto.endpoint, pool_id), (served.endpoint, POOL_ID)):
            listed = connect_to_pool(aws_connection, endpoint, pool)
            users, members = flatten_pages(listed.users()), flatten_pages(listed.members("g0"))
            seen.append(
                {
                    "keys": {key for found in users for key in found} - {"MFAOptions"},
                    "emails": sorted(_attribute(found, "email") for found in users),
                    "members": sorted(_attribute(found, "email") for found in members),
                    "subs": {_attribute(found, "sub") for found in users}
                    == {_attribute(m, "sub") for m in members},
                    "groups": sorted(
                        group["GroupName"] for group in flatten_pages(listed.groups())
                    ),
                    "dates": {type(found["UserCreateDate"]) for found in users},
                }
            )
    assert seen[0] == seen[1]


def _attribute(found: dict[str, Any], name: str) -> str:
    return next(str(pair["Value"]) for pair in found["Attributes"] if pair["Name"] == name)


def test_the_region_of_the_settings_wins_over_the_connections(
    aws_connection: Callable[[str], None],
) -> None:
    aws_connection("http://127.0.0.1:9")
    pool = cognito.open_user_pool(Sync.model_validate(sync(region="eu-west-1")), "listing")
    assert pool._client.meta.region_name == "eu-west-1" != REGION
    assert pool._client.meta.config.retries["mode"] == "standard"
