"""The task `apply_events`: a real queue, a stand-in for Cognito, and a real Joget database."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from demo.aws import Aws
from directory_sync.errors import PermanentError, TransientError
from directory_sync.run import Attempt
from directory_sync.staging import store
from directory_sync.tasks import live
from tests.company import Company, attempt, counts, people
from tests.conftest import make_aws_connection
from tests.directory_sync.events.conftest import ServedQueue, create_queue
from tests.directory_sync.events.samples import make_envelope, make_record
from tests.stand_in import POOL_ID, get_value, sub_of, user

ANA, BOB, NEW = "ana@example.org", "bob@example.org", "new@example.org"


@pytest.fixture
def queue(company: Company, moto: Aws, monkeypatch: pytest.MonkeyPatch) -> ServedQueue:
    """The queue of a company with Ana and forty others, after a run for everybody."""
    created = create_queue(moto)
    monkeypatch.setenv(
        "AIRFLOW_CONN_COGNITO_AWS",
        make_aws_connection(company.cognito.endpoint, sqs=moto.endpoint),
    )
    company.configure(events={"queue_url": created.url})
    ana, others = user(ANA), people(40)
    company.pool.users = [ana, *others]
    company.pool.members = {"Sales": [ana, *others[:20]], "Everybody": [ana, *others]}
    company.run()
    company.cognito.calls.clear()
    return created


def tell(queue: ServedQueue, event: str, who: Any = None, **request: Any) -> None:
    """Send an event about a user, with what else was requested."""
    request = {"userPoolId": POOL_ID, "username": "HIDDEN_DUE_TO_SECURITY_REASONS", **request}
    about = {"sub": sub_of(who)} if who else None
    record = make_record(event, requestParameters=request, additionalEventData=about)
    queue.send(json.dumps(make_envelope(record)))


def apply(company: Company) -> dict[str, Any]:
    """Do the task; returns the load's report, or what the task returned if it loaded nothing."""
    given: Attempt = attempt("apply_events", f"asset_triggered__{next(company._numbers)}")
    returned = live.apply_events(given, "default")
    if "manifest" not in returned:
        return returned
    company.last = store.read_manifest(returned["manifest"])
    report: dict[str, Any] = store.read_json(company.last, "report.json")
    return report


def leave(company: Company, *logins: str) -> None:
    """Delete users from the pool."""
    for members in (company.pool.users, *company.pool.members.values()):
        members[:] = [member for member in members if get_value(member, "email") not in logins]


def test_a_changed_user_costs_one_call_and_the_pages_of_their_groups(
    company: Company, queue: ServedQueue
) -> None:
    company.pool.users[0] = user(ANA, given_name="Anna")
    tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
    assert counts(apply(company)) == {"read": 1, "updated": 1}
    assert company.cognito.calls == {"ListUsers": 1, "AdminListGroupsForUser": 1}
    assert company.user(ANA)["firstName"] == "Anna"
    assert queue.count() == (0, 0)


def test_a_newcomer_and_a_new_membership_arrive(company: Company, queue: ServedQueue) -> None:
    newcomer, bob = user(NEW), company.pool.users[30]
    company.pool.users.append(newcomer)
    company.pool.members["Sales"] += [newcomer, bob]
    tell(queue, "AdminCreateUser", newcomer)
    tell(queue, "AdminAddUserToGroup", newcomer, groupName="Sales")
    tell(queue, "AdminAddUserToGroup", bob, groupName="Sales")
    report = apply(company)
    assert counts(report) == {"read": 2, "created": 1, "unchanged": 1}
    assert {(NEW, "Sales"), (get_value(bob, "email"), "Sales")} <= company.memberships()


@pytest.mark.parametrize("event", ["AdminDeleteUser", "DeleteUser"])
def test_a_deleted_user_is_deactivated_at_once(
    company: Company, queue: ServedQueue, event: str
) -> None:
    ana = company.pool.users[0]
    leave(company, ANA)
    tell(queue, event, ana)
    assert counts(apply(company)) == {"deactivated": 1, "missing": 1}
    assert company.user(ANA)["active"] == 0


def test_a_user_whom_no_event_calls_deleted_is_left_to_the_runs_for_everybody(
    company: Company, queue: ServedQueue
) -> None:
    ana = company.pool.users[0]
    leave(company, ANA)
    tell(queue, "AdminUpdateUserAttributes", ana)
    apply(company)
    assert company.user(ANA)["active"] == 1


def test_a_deleted_user_whom_the_pool_has_stays(company: Company, queue: ServedQueue) -> None:
    tell(queue, "AdminDeleteUser", company.pool.users[0])
    assert counts(apply(company)) == {"read": 1, "unchanged": 1}


def test_a_disabled_user_is_deactivated_at_once(company: Company, queue: ServedQueue) -> None:
    company.pool.users[0] = user(ANA, enabled=False)
    tell(queue, "AdminDisableUser", company.pool.users[0])
    assert counts(apply(company)) == {"read": 1, "deactivated": 1}


@pytest.mark.parametrize("event", ["AdminDeleteUser", "AdminDisableUser"])
def test_without_leavers_at_once_the_runs_for_everybody_decide(
    company: Company, queue: ServedQueue, event: str
) -> None:
    company.configure(events={"leavers_at_once": False})
    ana = company.pool.users[0]
    if event == "AdminDeleteUser":
        leave(company, ANA)
    else:
        company.pool.users[0] = user(ANA, enabled=False)
    before = company.joget.contents()
    tell(queue, event, ana)
    apply(company)
    assert company.joget.contents() == before
    company.run()
    company.run()
    assert company.user(ANA)["active"] == 0


def test_many_leavers_at_once_are_held(company: Company, queue: ServedQueue) -> None:
    leavers = company.pool.users[1:9]
    leave(company, *[str(get_value(leaver, "email")) for leaver in leavers])
    company.faults.estimate = "33"
    for leaver in leavers:
        tell(queue, "AdminDeleteUser", leaver)
    # So few users are read sooner one by one than all together.
    company.configure(limits={"floor": 2})
    for _ in range(3):
        report = apply(company)
        if "holds" in report:
            break
    assert report["users"]["held"] == 8
    assert company.user(str(get_value(leavers[0], "email")))["active"] == 1
    review_id = company.ask()
    assert review_id
    assert company.answer(review_id, "approve")["users"]["deactivated"] == 8


def test_a_groups_event_reads_its_members_and_asks_for_those_that_differ(
    company: Company, queue: ServedQueue
) -> None:
    sales, others = company.pool.members["Sales"], company.pool.users[30:31]
    gone = sales.pop(0)
    sales += others
    tell(queue, "AdminAddUserToGroup", groupName="Sales")
    report = apply(company)
    assert counts(report) == {"read": 2, "unchanged": 2}
    assert counts(report, "memberships")["added"] == 1
    assert counts(report, "memberships")["removed"] == 1
    assert (get_value(gone, "email"), "Sales") not in company.memberships()
    assert company.cognito.calls["ListUsersInGroup"] == 1
    assert "ListGroups" not in company.cognito.calls


def test_a_new_group_is_made_and_a_deleted_one_waits(company: Company, queue: ServedQueue) -> None:
    company.pool.members["Pilots"] = []
    del company.pool.members["Everybody"]
    tell(queue, "CreateGroup", groupName="Pilots")
    tell(queue, "DeleteGroup", groupName="Everybody")
    assert counts(apply(company), "groups") == {"read": 1, "created": 1}
    assert (ANA, "Everybody") in company.memberships()


def test_foreign_and_failed_events_are_counted_and_ask_for_nothing(
    company: Company, queue: ServedQueue
) -> None:
    tell(queue, "AdminDeleteUser", company.pool.users[0], userPoolId="us-east-1_Foreign")
    queue.send(json.dumps(make_envelope(make_record("AdminDeleteUser"), source="aws.s3")))
    returned = apply(company)
    assert returned == {"events": {"messages": 2, "skipped": 2, "malformed": 0}}
    assert company.cognito.calls == {}
    assert queue.count() == (0, 0)


def test_an_event_of_a_group_out_of_scope_asks_for_nothing(
    company: Company, queue: ServedQueue
) -> None:
    company.configure(scope={"exclude_groups": ["Sales"]})
    tell(queue, "AdminAddUserToGroup", groupName="Sales")
    assert apply(company)["events"]["messages"] == 1
    assert company.cognito.calls == {}


def test_an_unreadable_message_goes_to_the_dead_letters_and_stops_no_other(
    company: Company, queue: ServedQueue
) -> None:
    company.pool.users[0] = user(ANA, given_name="Anna")
    queue.send("{", "[" * 5000)
    tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
    apply(company)
    assert company.user(ANA)["firstName"] == "Anna"
    assert sorted(queue.read_dead_letters()) == ["[" * 5000, "{"]
    assert queue.count() == (0, 0)


def test_doubled_and_unordered_events_are_one_reading(company: Company, queue: ServedQueue) -> None:
    company.pool.users[0] = user(ANA, enabled=True, given_name="Last")
    for event in ("AdminEnableUser", "AdminDisableUser", "AdminUpdateUserAttributes") * 5:
        tell(queue, event, company.pool.users[0])
    assert counts(apply(company)) == {"read": 1, "updated": 1}
    assert company.cognito.calls == {"ListUsers": 1, "AdminListGroupsForUser": 1}


def test_a_burst_is_one_run_that_lists_everybody_where_that_costs_fewer_calls(
    company: Company, queue: ServedQueue
) -> None:
    everybody = [
        user(str(get_value(one, "email")), family_name="New") for one in company.pool.users
    ]
    company.pool.users = everybody
    for one in everybody:
        tell(queue, "AdminUpdateUserAttributes", one)
    report = apply(company)
    assert counts(report) == {"read": 41, "updated": 41} or report["users"]["held"] == 41
    assert company.cognito.calls.total() < 10
    assert queue.count() == (0, 0)


def test_before_the_first_run_for_everybody_events_change_nothing(
    company: Company, queue: ServedQueue
) -> None:
    company.joget.execute("DELETE FROM directory_sync_run")
    tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
    assert apply(company)["events"]["messages"] == 1
    assert company.cognito.calls == {}
    assert queue.count() == (0, 0)


def test_a_failed_run_leaves_its_messages_for_the_next_one(
    company: Company, queue: ServedQueue
) -> None:
    company.pool.users[0] = user(ANA, given_name="Anna")
    tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
    company.faults.foreign_answers = True
    with pytest.raises(TransientError):
        apply(company)
    assert queue.count() == (1, 0)
    company.faults.foreign_answers = False
    assert counts(apply(company)) == {"read": 1, "updated": 1}


def test_a_run_that_a_run_for_everybody_overtook_reads_again(
    company: Company, queue: ServedQueue
) -> None:
    ana = company.pool.users[0]
    company.run()
    leave(company, ANA)
    tell(queue, "AdminDeleteUser", ana)
    company.joget.execute(
        "UPDATE directory_sync_run SET snapshot_at = snapshot_at + INTERVAL 1 MINUTE"
    )
    with pytest.raises(TransientError, match="Reading again"):
        apply(company)
    assert queue.count() == (1, 0)
    company.let_hours_pass(1)
    assert counts(apply(company)) == {"deactivated": 1, "missing": 1}


def test_messages_wait_where_a_person_has_to_change_something(
    company: Company, queue: ServedQueue
) -> None:
    tell(queue, "AdminUpdateUserAttributes", company.pool.users[0])
    company.faults.denied = "AdminListGroupsForUser"
    with pytest.raises(PermanentError, match="cognito-idp:AdminListGroupsForUser"):
        apply(company)
    assert queue.count() == (0, 1)


def test_the_ledger_times_what_events_told(company: Company, queue: ServedQueue) -> None:
    ana = company.pool.users[0]
    leave(company, ANA)
    tell(queue, "AdminDeleteUser", ana)
    clock = apply(company)["clock"]
    assert [(way["way"], way["changes"]) for way in clock["ways"]] == [("live", 1)]


def test_an_events_user_that_nobody_knows_is_nobody(company: Company, queue: ServedQueue) -> None:
    tell(queue, "AdminDeleteUser", user("stranger@example.org"))
    assert apply(company) == {"events": {"messages": 1, "skipped": 0, "malformed": 0}}


USERNAMES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "sub": lambda ana: {"username": ana["Username"]},
    "federated": lambda _: {"username": "okta_ana"},
}


@pytest.mark.parametrize("kind", [*USERNAMES])
def test_a_user_is_found_by_the_username_where_the_event_has_no_sub(
    company: Company, queue: ServedQueue, kind: str
) -> None:
    company.pool.users[0] = user(ANA, given_name="Anna")
    if kind == "federated":
        company.pool.users[0]["Username"] = "okta_ana"
    tell(queue, "AdminUpdateUserAttributes", None, **USERNAMES[kind](company.pool.users[0]))
    assert counts(apply(company)) == {"read": 1, "updated": 1}
