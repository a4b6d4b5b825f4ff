"""Reading the queue's messages: what an event names, what asks for nothing, and what nobody can
read.
"""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from directory_sync.events.messages import (
    LONGEST_BODY_BYTES,
    Flaw,
    Malformed,
    PoolEvent,
    Skipped,
    SkipReason,
    parse_message,
)
from tests.directory_sync.events.samples import (
    HIDDEN,
    POOL_ID,
    SUB,
    make_body,
    make_envelope,
    make_group_body,
    make_record,
)

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)

USER_CALLS = (
    "AdminConfirmSignUp",
    "AdminCreateUser",
    "AdminDeleteUser",
    "AdminDeleteUserAttributes",
    "AdminDisableProviderForUser",
    "AdminDisableUser",
    "AdminEnableUser",
    "AdminLinkProviderForUser",
    "AdminUpdateUserAttributes",
    "ConfirmSignUp",
    "DeleteUser",
    "DeleteUserAttributes",
    "SignUp",
    "UpdateUserAttributes",
)
GROUP_CALLS = ("CreateGroup", "UpdateGroup", "DeleteGroup")


def parse(body: str) -> Any:
    return parse_message(body, POOL_ID)


# What an event names


@pytest.mark.parametrize("name", USER_CALLS)
def test_a_call_on_a_user_names_the_user_by_sub(name: str) -> None:
    assert parse(make_body(name)) == PoolEvent(name, AT, sub=SUB)


@pytest.mark.parametrize("name", GROUP_CALLS)
def test_a_call_on_a_group_names_the_group(name: str) -> None:
    body = make_group_body(name, "Sales", additionalEventData=None)
    assert parse(body) == PoolEvent(name, AT, group_name="Sales")


def test_a_membership_names_its_user_and_its_group() -> None:
    removed = parse(make_group_body("AdminRemoveUserFromGroup", "Sales"))
    assert (removed.sub, removed.group_name) == (SUB, "Sales")
    assert removed.removes_member
    assert not parse(make_group_body("AdminAddUserToGroup", "Sales")).removes_member


def test_an_event_tells_deletions_and_disablings() -> None:
    events = [parse(make_body(name)) for name in USER_CALLS]
    assert {event.event_name for event in events if event.is_removal} == {
        "AdminDeleteUser",
        "DeleteUser",
    }
    assert {event.event_name for event in events if event.is_disabling} == {"AdminDisableUser"}


def test_a_username_that_isnt_hidden_is_read() -> None:
    requested = {"userPoolId": POOL_ID, "username": "ana"}
    event = parse(make_body(requestParameters=requested, additionalEventData={}))
    assert (event.sub, event.username) == (None, "ana")


def test_the_sub_of_a_new_user_may_stand_in_the_response() -> None:
    answer = {"userConfirmed": False, "userSub": SUB}
    body = make_body(
        "SignUp",
        requestParameters={"clientId": "client", "username": HIDDEN},
        responseElements=answer,
        additionalEventData=None,
    )
    assert parse(body) == PoolEvent("SignUp", AT, sub=SUB)


@pytest.mark.parametrize("place", ["additionalEventData", "responseElements"])
def test_the_pools_id_may_stand_elsewhere_where_a_user_changes_themselves(place: str) -> None:
    parts = {"requestParameters": {"accessToken": HIDDEN}, "additionalEventData": {"sub": SUB}}
    parts[place] = parts.get(place, {}) | {"userPoolId": POOL_ID}
    assert parse(make_body("DeleteUser", **parts)).sub == SUB
    parts[place] |= {"userPoolId": "us-east-1_Other"}
    assert parse(make_body("DeleteUser", **parts)) == Skipped(SkipReason.FOREIGN_POOL)


def test_an_unknown_call_that_names_a_user_or_a_group_is_a_change() -> None:
    assert parse(make_body("AdminMoveUser")).sub == SUB
    assert parse(make_group_body("MergeGroup", "Sales", additionalEventData=None)).group_name


def test_the_time_is_cloudtrails_or_else_eventbridges() -> None:
    assert parse(make_body(eventTime="2026-11-30T10:00:00.25Z")).happened_at == AT.replace(
        microsecond=250_000
    )
    assert parse(make_body(eventTime=None)).happened_at == AT.replace(second=1)


# What asks for nothing


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (make_body("AdminGetUser"), "reads_only"),
        (make_body("ListUsers"), "reads_only"),
        (make_body("AdminListGroupsForUser"), "reads_only"),
        (make_body("DescribeUserPool"), "reads_only"),
        (make_body("InitiateAuth"), "reads_only"),
        (make_body("AdminPeek", readOnly=True), "reads_only"),
        (make_body(errorCode="UserNotFoundException"), "failed_call"),
        (make_body(additionalEventData=None), "names_nobody"),
        (make_body(additionalEventData={"sub": HIDDEN}), "names_nobody"),
        (make_body("CreateUserImportJob", additionalEventData=None), "names_nobody"),
        (
            make_body(requestParameters={"username": "ana"}, additionalEventData=None),
            "names_nobody",
        ),
        (
            make_body(requestParameters={"userPoolId": "us-east-1_Other", "username": "ana"}),
            "foreign_pool",
        ),
        (make_body(eventSource="cognito-identity.amazonaws.com"), "foreign_source"),
        (json.dumps(make_envelope({"any": "thing"}, source="aws.s3")), "foreign_source"),
        (
            json.dumps(
                make_envelope(
                    make_record("Login_GET", requestParameters=None),
                    **{"detail-type": "AWS Service Event via CloudTrail"},
                )
            ),
            "no_api_call",
        ),
    ],
)
def test_a_message_that_asks_for_nothing_is_skipped_with_its_reason(body: str, reason: str) -> None:
    assert parse(body) == Skipped(SkipReason(reason))


def test_an_empty_error_code_is_no_failure() -> None:
    assert parse(make_body(errorCode="")).sub == SUB


# What nobody can read


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "null",
        "[]",
        "17",
        "{}",
        "\x00",
        "[" * 100_000,
        '{"detail":' * 20_000,
        "9" * 10_000,
        json.dumps({"Type": "Notification", "Message": make_body()}),
        json.dumps(make_envelope(make_record("X"), source=None)),
        json.dumps(make_envelope({}, detail="text")),
        make_body()[:-1],
    ],
)
def test_what_is_no_envelope_belongs_among_the_dead_letters(body: str) -> None:
    assert parse(body) == Malformed(Flaw.NO_ENVELOPE)


@pytest.mark.parametrize(
    "changed",
    [
        {"eventName": None},
        {"eventName": 7},
        {"eventName": "Admin\nDeleteUser"},
        {"eventTime": "yesterday"},
        {"eventTime": 1_700_000_000},
        {"eventTime": "9999-12-31T23:59:59Z"},
        {"eventTime": "0001-01-01T00:00:00Z"},
        {"eventTime": "2026-02-30T00:00:00Z"},
        {"eventTime": "2026-11-30T10:00:00+14:00"},
        {"errorCode": 1},
        {"requestParameters": "text"},
        {"requestParameters": {"userPoolId": 1}},
        {"requestParameters": {"userPoolId": POOL_ID, "username": ["ana"]}},
        {"requestParameters": {"userPoolId": POOL_ID, "username": "ana\x00"}},
        {"requestParameters": {"userPoolId": POOL_ID, "username": "a" * 129}},
        {"requestParameters": {"userPoolId": POOL_ID, "groupName": "Sa\nles"}},
        {"responseElements": []},
        {"additionalEventData": {"sub": 12}},
        {"additionalEventData": {"sub": '" or sub ^= "'}},
        {"additionalEventData": {"sub": f"{SUB}\n"}},
        {"additionalEventData": {"sub": "a" * 129}},
    ],
)
def test_a_record_with_values_that_cognito_never_writes_belongs_among_the_dead_letters(
    changed: dict[str, Any],
) -> None:
    record = make_record("AdminDeleteUser") | changed
    assert parse(json.dumps(make_envelope(record))) == Malformed(Flaw.NO_RECORD)


def test_a_record_without_any_time_belongs_among_the_dead_letters() -> None:
    record = make_record("AdminDeleteUser", eventTime=None)
    assert parse(json.dumps(make_envelope(record, time=None))) == Malformed(Flaw.NO_RECORD)


def test_a_body_over_256_kib_belongs_among_the_dead_letters() -> None:
    body = make_body(padding="é" * (LONGEST_BODY_BYTES // 2))
    assert len(body) > LONGEST_BODY_BYTES
    assert parse(body) == Malformed(Flaw.TOO_LONG)
    in_bytes = json.dumps(
        make_envelope(make_record("X", padding="é" * 140_000)), ensure_ascii=False
    )
    assert len(in_bytes) < LONGEST_BODY_BYTES
    assert parse(in_bytes) == Malformed(Flaw.TOO_LONG)


# Any input

TEXTS = st.text(st.characters(codec=None, categories=None), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just(HIDDEN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
NAMES = ("userPoolId", "username", "groupName", "sub", "userSub")
PARTS = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([POOL_ID, SUB, "ana", HIDDEN]) | VALUES
)


@st.composite
def build_bodies(draw: st.DrawFn) -> str:
    """Envelopes in which any member may be anything, or missing."""
    record = make_record(draw(st.sampled_from([*USER_CALLS, *GROUP_CALLS, "ListUsers"])))
    record |= {
        name: draw(PARTS)
        for name in ("requestParameters", "responseElements", "additionalEventData")
    }
    envelope = make_envelope(record)
    for part in (record, envelope):
        for name in draw(st.lists(st.sampled_from(sorted(part)), max_size=2)):
            part[name] = draw(VALUES)
    body = json.dumps(envelope, ensure_ascii=draw(st.booleans()))
    return (
        body[: draw(st.integers(min_value=0, max_value=len(body)))]
        if draw(st.integers(min_value=0, max_value=9)) == 0
        else body
    )


@given(body=build_bodies() | TEXTS | VALUES.map(json.dumps))
@example(body="\ud800")
@example(body=json.dumps(make_envelope(make_record("\ud800"))))
def test_no_body_raises_an_error_and_every_event_names_something_that_can_be_asked_for(
    body: str,
) -> None:
    parsed = parse(body)
    assert isinstance(parsed, PoolEvent | Skipped | Malformed)
    if isinstance(parsed, PoolEvent):
        assert parsed.sub or parsed.username or parsed.group_name
        assert parsed.happened_at.tzinfo is UTC
        assert not set(parsed.sub or "") & set("\"\\'\n\x00")
        named = f"{parsed.sub}{parsed.username}{parsed.group_name}"
        assert named.isprintable() or not named.isascii()
        assert HIDDEN not in (parsed.sub, parsed.username, parsed.group_name)


def test_an_event_shows_no_name_where_it_is_printed() -> None:
    requested = {"userPoolId": POOL_ID, "username": "ana", "groupName": "Sales"}
    shown = repr(parse(make_body("AdminAddUserToGroup", requestParameters=requested)))
    assert "ana" not in shown
    assert "Sales" not in shown
