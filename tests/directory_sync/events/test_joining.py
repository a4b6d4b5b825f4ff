"""Joining messages into questions: order, doubles and delays change nothing."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from directory_sync.events.joining import Changes, NamedBy, NamedUser, Times, join_messages
from directory_sync.events.messages import (
    Flaw,
    Malformed,
    ParsedMessage,
    PoolEvent,
    Skipped,
    SkipReason,
)

AT = datetime(2026, 11, 30, 10, tzinfo=UTC)
LATER = AT + timedelta(minutes=5)
ANA, BEN = NamedUser(NamedBy.SUB, "sub-ana"), NamedUser(NamedBy.USERNAME, "ben")


def join(*messages: ParsedMessage) -> Changes:
    return join_messages((message, LATER) for message in messages)


def test_a_sub_wins_over_a_username() -> None:
    changes = join(PoolEvent("AdminEnableUser", AT, sub="sub-ana", username="ana"))
    assert changes.subs == {"sub-ana"}
    assert not changes.usernames
    assert join(PoolEvent("AdminEnableUser", AT, username="ben")).usernames == {"ben"}


def test_a_username_isnt_taken_for_the_sub_that_another_event_had_with_it() -> None:
    changes = join(
        PoolEvent("AdminDeleteUser", AT, sub="sub-ana", username="ana"),
        PoolEvent("AdminCreateUser", AT, username="ana"),
    )
    assert changes.subs == {"sub-ana"}
    assert changes.usernames == {"ana"}


def test_a_membership_asks_for_the_user_and_not_for_the_whole_group() -> None:
    changes = join(PoolEvent("AdminAddUserToGroup", AT, sub="sub-ana", group_name="Sales"))
    assert changes.subs == {"sub-ana"}
    assert not changes.groups


def test_a_membership_without_a_readable_user_asks_for_the_group() -> None:
    changes = join(PoolEvent("AdminRemoveUserFromGroup", AT, group_name="Sales"))
    assert set(changes.groups) == {"Sales"}
    assert changes.removed_members == frozenset()


def test_leavers_disabled_users_and_removed_members_are_known_and_asked_for_too() -> None:
    changes = join(
        PoolEvent("AdminDeleteUser", AT, sub="sub-ana"),
        PoolEvent("AdminDisableUser", AT, username="ben"),
        PoolEvent("AdminRemoveUserFromGroup", AT, sub="sub-ana", group_name="Sales"),
    )
    assert changes.leavers == {ANA}
    assert changes.disabled == {BEN}
    assert changes.removed_members == {(ANA, "Sales")}
    assert set(changes.users) == {ANA, BEN}


def test_times_are_those_of_the_earliest_event() -> None:
    minute = timedelta(minutes=1)
    changes = join_messages(
        [
            (PoolEvent("AdminEnableUser", AT + minute, sub="sub-ana"), LATER),
            (PoolEvent("AdminDisableUser", AT, sub="sub-ana"), LATER + minute),
            (PoolEvent("CreateGroup", AT, group_name="Sales"), LATER),
        ]
    )
    assert changes.users == {ANA: Times(AT, LATER)}
    assert changes.groups == {"Sales": Times(AT, LATER)}


def test_no_event_happened_after_its_arrival() -> None:
    changes = join(PoolEvent("SignUp", LATER + timedelta(days=1), sub="sub-ana"))
    assert changes.users[ANA] == Times(LATER, LATER)


def test_what_asks_for_nothing_is_counted_by_reason() -> None:
    changes = join(
        Skipped(SkipReason.READS_ONLY),
        Skipped(SkipReason.READS_ONLY),
        Skipped(SkipReason.FOREIGN_POOL),
        Malformed(Flaw.NO_RECORD),
    )
    assert changes.skips == {SkipReason.READS_ONLY: 2, SkipReason.FOREIGN_POOL: 1}
    assert changes.malformed == {Flaw.NO_RECORD: 1}
    assert not changes.users
    assert not changes.groups


MOMENTS = st.timedeltas(timedelta(days=-300), timedelta(days=300)).map(lambda since: AT + since)
EVENTS = st.builds(
    PoolEvent,
    st.sampled_from(["AdminDeleteUser", "AdminDisableUser", "AdminRemoveUserFromGroup", "SignUp"]),
    MOMENTS,
    sub=st.none() | st.sampled_from(["sub-1", "sub-2"]),
    username=st.none() | st.sampled_from(["ana", "ben"]),
    group_name=st.none() | st.sampled_from(["Sales", "IT"]),
)
ARRIVALS = st.lists(st.tuples(EVENTS, MOMENTS), max_size=8)


@given(arrivals=ARRIVALS, data=st.data())
def test_order_and_doubles_change_no_question(
    arrivals: list[tuple[PoolEvent, datetime]], data: st.DataObject
) -> None:
    doubled = data.draw(st.lists(st.sampled_from(arrivals), max_size=4)) if arrivals else []
    mixed = data.draw(st.permutations([*arrivals, *doubled]))
    assert join_messages(mixed) == join_messages(arrivals)


@given(arrivals=ARRIVALS)
def test_no_event_is_lost(arrivals: list[tuple[PoolEvent, datetime]]) -> None:
    changes = join_messages(arrivals)
    for event, _ in arrivals:
        assert (
            event.sub in changes.subs
            or event.username in changes.usernames
            or event.group_name in changes.groups
            or not (event.sub or event.username or event.group_name)
        )


def test_users_show_no_name_where_they_are_printed() -> None:
    assert "ben" not in repr(BEN)
