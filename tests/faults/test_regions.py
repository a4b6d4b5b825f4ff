"""What a run does when a Region is down, or a replica of the pool lags."""

import pytest

from directory_sync.cognito import client
from directory_sync.errors import PermanentError, TransientError
from tests.company import Company, counts, people
from tests.directory_sync.tasks.test_wrong_input import refused
from tests.stand_in import Faults, Pool, StandIn, get_value, user

REPLICA = "eu-west-1"
STAFF = people(20)
REASON = "the sign-in region can't be asked about what the pool's replica lacks"


@pytest.fixture
def company(company: Company, monkeypatch: pytest.MonkeyPatch) -> Company:
    """A company that was synchronised from its sign-in Region, and has a replica that is read from
    now on.
    """
    monkeypatch.setattr(client, "ATTEMPTS_OF_A_CALL", 1)
    company.configure(policies={"missing_runs": 1})
    company.pool.users = list(STAFF)
    company.pool.members = {"All": list(STAFF), "Board": STAFF[:3]}
    company.run()
    company.let_hours_pass(1)
    replica = Pool(list(STAFF), {"All": list(STAFF), "Board": STAFF[:3]})
    company.cognito.replicas[REPLICA] = StandIn(replica, Faults())
    company.cognito.calls.clear()
    company.configure(read_regions=[REPLICA])
    return company


def replica_of(company: Company) -> StandIn:
    return company.cognito.replicas[REPLICA]


def remove(person: object, pool: object) -> None:
    """Take somebody out of a pool and all its groups."""
    assert isinstance(pool, Pool)
    pool.users.remove(person)
    for members in pool.members.values():
        if person in members:
            members.remove(person)


def test_a_run_reads_the_replica_and_asks_the_sign_in_region_nothing(company: Company) -> None:
    new = user("new@example.org")
    replica_of(company).pool.users.append(new)
    report = company.run()
    assert (report["complete"], counts(report)["created"]) == (True, 1)
    assert replica_of(company).calls["ListUsers"] == 1
    assert company.cognito.calls.total() == 0


@pytest.mark.parametrize(
    ("answers", "operation"),
    [(0, "ListUsers"), (4, "ListUsers"), (8, "ListGroups"), (12, "ListUsersInGroup")],
)
def test_a_replica_that_goes_down_costs_a_run_nothing(
    company: Company, answers: int, operation: str
) -> None:
    """Before the first answer, and in the middle of the lists of users, groups and members."""
    faults = Faults(pages=[3], down_after=answers)
    company.cognito.replicas[REPLICA] = StandIn(replica_of(company).pool, faults)
    before = company.joget.contents()
    report = company.run()
    assert (report["complete"], counts(report)) == (True, {"read": 20, "unchanged": 20})
    assert company.joget.contents() == before
    assert replica_of(company).calls.total() == answers
    assert company.cognito.calls[operation] > 0, "the sign-in Region answered in its place"


def test_a_replica_that_lacks_a_user_and_their_memberships_removes_nothing(
    company: Company,
) -> None:
    remove(STAFF[0], replica_of(company).pool)
    before = company.joget.contents()
    report = company.run()
    assert not report["complete"], "the sign-in Region shows that the replica's list lacks a user"
    assert (report["asked_by_name"], counts(report)["read"]) == (1, 20)
    assert company.joget.contents() == before


def test_a_replica_that_lacks_a_membership_removes_nothing(company: Company) -> None:
    replica_of(company).pool.members["All"].pop()
    before = company.joget.contents()
    report = company.run()
    assert (report["complete"], report["memberships"]["removed"]) == (True, 0)
    assert company.cognito.calls == {"ListUsersInGroup": 1}, "listed again where users sign in"
    assert company.joget.contents() == before
    company.pool.members["All"].pop()
    assert company.run()["memberships"]["removed"] == 1, "both say that the user left the group"


def test_a_late_replica_takes_back_nothing_that_was_just_applied(company: Company) -> None:
    leaver, changed = STAFF[0], str(get_value(STAFF[1], "email"))
    company.pool.users[1] = user(changed, given_name="New")
    remove(leaver, company.pool)
    report = company.run(users=[str(get_value(leaver, "email")), changed])
    assert counts(report) == {"read": 1, "updated": 1, "deactivated": 1, "missing": 1}
    before = company.joget.contents()
    assert counts(company.run())["frozen"] == 2, "the replica knows neither change"
    assert company.joget.contents() == before


def test_a_replica_that_lacks_a_group_removes_nothing(company: Company) -> None:
    del replica_of(company).pool.members["Board"]
    before = company.joget.contents()
    report = company.run()
    assert (report["complete"], report["groups"]["missing"]) == (False, 0)
    assert company.joget.contents() == before
    del company.pool.members["Board"]
    report = company.run()
    assert (report["complete"], report["groups"]["missing"]) == (True, 1)
    assert report["memberships"]["removed"] == 3


def test_a_group_that_a_replica_still_lists_keeps_its_members(company: Company) -> None:
    replica_of(company).pool.members["Board"].pop()
    del company.pool.members["Board"]
    before = company.joget.contents()
    report = company.run()
    assert (report["groups"]["missing"], report["memberships"]["removed"]) == (0, 0)
    assert company.joget.contents() == before


def test_a_user_that_both_regions_lack_is_missing(company: Company) -> None:
    remove(STAFF[0], company.pool)
    report = company.run()
    assert (report["complete"], counts(report).get("deactivated")) == (True, None), (
        "a replica that still lists the user is evidence"
    )
    remove(STAFF[0], replica_of(company).pool)
    report = company.run()
    assert (report["complete"], counts(report)["deactivated"]) == (True, 1)
    assert len(company.active()) == 19


def test_while_the_sign_in_region_is_down_nobody_is_missing_and_the_report_says_why(
    company: Company,
) -> None:
    for pool in (company.pool, replica_of(company).pool):
        assert isinstance(pool, Pool)
        remove(STAFF[0], pool)
        pool.members["All"].remove(STAFF[1])
        del pool.members["Board"]
    replica_of(company).pool.users.append(user("new@example.org"))
    company.faults.down_after = 0
    report = company.run()
    assert report["incomplete_reasons"] == [f"{REASON}: 1 users, and 2 groups or members of them"]
    assert counts(report)["created"] == 1, "newcomers don't wait"
    assert (report["users"]["deactivated"], report["groups"]["missing"]) == (0, 0)
    assert report["memberships"]["removed"] == 0
    assert len(company.active()) == 21
    company.faults.down_after = None
    report = company.run()
    assert report["complete"]
    assert (report["users"]["deactivated"], report["groups"]["missing"]) == (1, 1)


def test_while_the_sign_in_region_is_down_a_replica_that_lacks_nobody_is_complete(
    company: Company,
) -> None:
    company.faults.down_after = 0
    report = company.run()
    assert (report["complete"], counts(report)["unchanged"]) == (True, 20)


def test_an_approved_removal_waits_until_the_sign_in_region_can_be_asked(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "directory_sync.cognito.group_listing.count_affordable_questions", lambda _: 0
    )
    replica = replica_of(company).pool
    for pool in (company.pool, replica):
        pool.members["All"].remove(STAFF[9])
    company.run()
    remove(STAFF[9], replica)
    company.run()
    review_id = company.ask()
    assert review_id
    company.faults.down_after = 0
    with pytest.raises(TransientError, match="The sign-in region us-east-1 can't be asked"):
        company.answer(review_id, "approve")
    company.faults.down_after = None
    assert company.load_held(review_id)["users"]["deactivated"] == 0, "the user was only late"
    assert len(company.active()) == 20


def test_a_replica_without_a_right_or_without_the_pool_is_said_and_not_passed_over(
    company: Company,
) -> None:
    replica = replica_of(company)
    replica.faults.allowed = frozenset()
    assert f"in region {REPLICA}" in refused(company, PermanentError)
    replica.faults.allowed = None
    replica.pool_ids.clear()
    assert f"doesn't exist in region {REPLICA}" in refused(company, PermanentError)
    assert company.cognito.calls.total() == 0
