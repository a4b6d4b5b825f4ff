"""Presence is evidence, wherever it comes from; absence is proven by name (rule 5)."""

import time

import pytest

from directory_sync.cognito import group_listing
from tests.company import Company, causes, counts, people
from tests.stand_in import sub_of, user

STAFF = people(300)


@pytest.fixture
def staffed(company: Company) -> Company:
    company.configure(policies={"missing_runs": 1})
    company.pool.users, company.pool.members = list(STAFF), {"All": list(STAFF)}
    company.run()
    return company


def test_a_group_member_is_present_even_if_the_list_of_users_ended_early(
    staffed: Company,
) -> None:
    staffed.faults.cut_users_after = 286
    for _ in range(3):
        report = staffed.run()
        assert not report["complete"]
        assert (report["users"]["read"], report["users"]["deactivated"]) == (300, 0)
    assert len(staffed.active()) == 300


def test_a_user_seen_only_in_a_group_joins_with_all_attributes(company: Company) -> None:
    ana = user("ana@example.org", given_name="Ana", family_name="Lima")
    company.pool.users, company.pool.members = people(3), {"Sales": [ana]}
    assert counts(company.run())["created"] == 4
    assert company.user("ana@example.org")["lastName"] == "Lima"
    assert company.memberships() == {("ana@example.org", "Sales")}


def test_a_user_hidden_from_the_list_and_in_no_group_is_found_by_name(company: Company) -> None:
    company.configure(policies={"missing_runs": 1}, limits={"floor": 1000})
    company.pool.users = people(1000)
    company.run()
    company.faults.hidden_users = 49
    for _ in range(2):
        report = company.run()
        assert (report["asked_by_name"], report["users"]["read"]) == (49, 1000)
        assert not report["complete"], "the list is disproven"
    assert len(company.active()) == 1000


def test_a_list_of_groups_that_ended_early_removes_no_membership(company: Company) -> None:
    company.configure(policies={"missing_runs": 1}, limits={"floor": 1000})
    company.pool.users = people(40)
    company.pool.members = {f"group-{at:02}": company.pool.users[:4] for at in range(41)}
    company.run()
    before = company.joget.contents()
    company.faults.cut_groups_after = 21
    for _ in range(3):
        report = company.run()
        assert (report["complete"], report["asked_by_name"]) == (False, 20)
        assert counts(report, "groups") == {"read": 41, "unchanged": 41}
    assert company.joget.contents() == before


def test_a_group_is_missing_once_cognito_says_that_it_does_not_exist(company: Company) -> None:
    company.configure(policies={"missing_runs": 1})
    company.pool.users = people(4)
    company.pool.members = {"Sales": company.pool.users, "Board": company.pool.users[:1]}
    company.run()
    del company.pool.members["Board"]
    report = company.run()
    assert (report["complete"], report["asked_by_name"]) == (True, 1)
    assert (report["groups"]["missing"], report["memberships"]["removed"]) == (1, 1)


def test_a_member_who_was_created_before_the_list_disproves_it_and_a_newcomer_never_does(
    staffed: Company,
) -> None:
    staffed.configure(proof={"newcomers": 0})
    newcomers = [user(f"new{at}@example.org", created=time.time() + 60) for at in range(30)]
    staffed.pool.members["All"] += newcomers
    report = staffed.run()
    assert report["complete"]
    assert counts(report)["created"] == 30
    staffed.pool.members["All"].append(user("old@example.org"))
    assert not staffed.run()["complete"]


def test_eleven_listed_of_an_estimated_twelve_are_no_doubt(company: Company) -> None:
    company.pool.users = people(11)
    company.faults.estimate = "12"
    assert company.run()["complete"]


def test_two_runs_within_missing_minutes_count_one_miss(staffed: Company) -> None:
    staffed.configure(policies={"missing_runs": 2, "missing_minutes": 10})
    staffed.pool.users, staffed.pool.members = STAFF[1:], {"All": STAFF[1:]}
    for _ in range(3):
        assert counts(staffed.run()).get("deactivated") is None
    staffed.let_hours_pass(1)
    assert counts(staffed.run())["deactivated"] == 1


def test_too_many_absent_users_are_held_and_asked_for_by_name_when_approved(
    staffed: Company,
) -> None:
    staffed.configure(limits={"removed_users_percent": 100})
    staffed.pool.users, staffed.pool.members = STAFF[:150], {"All": STAFF[:150]}
    staffed.faults.estimate = "150"
    report = staffed.run()
    assert (report["complete"], report["asked_by_name"]) == (True, 0)
    assert causes(report) == {"unproven_absence": 300}, "a deactivation and a membership each"
    assert len(staffed.active()) == 300
    review_id = staffed.ask()
    assert review_id
    staffed.pool.users = STAFF[:151]
    report = staffed.answer(review_id, "approve")
    assert report["users"]["deactivated"] == 149
    assert sorted(staffed.active()) == sorted(f"person{at:03}@example.org" for at in range(151))


def test_within_the_budget_each_absent_user_is_asked_for(
    staffed: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_listing, "count_affordable_questions", lambda _: 4)
    staffed.pool.users, staffed.pool.members = STAFF[4:], {"All": STAFF[4:]}
    staffed.cognito.filters.clear()
    report = staffed.run()
    assert (report["asked_by_name"], report["users"]["deactivated"]) == (4, 4)
    asked = {name for name in staffed.cognito.filters if name}
    assert asked == {f'sub = "{sub_of(person)}"' for person in STAFF[:4]}
