"""What a run may change without asking a person."""

from typing import Any

import pytest

from tests.company import Company, causes, counts, people
from tests.stand_in import user


def let_users_leave(company: Company, count: int) -> dict[str, Any]:
    """Let so many users leave; returns the report of the run that would deactivate them."""
    company.pool.users = company.pool.users[count:]
    company.run()
    return company.run()


@pytest.fixture
def hundred(company: Company) -> Company:
    company.pool.users = people(100)
    company.run()
    return company


@pytest.mark.parametrize(("gone", "held"), [(5, False), (6, True)])
def test_up_to_the_floor_and_the_percentage_nothing_is_held(
    hundred: Company, gone: int, held: bool
) -> None:
    report = let_users_leave(hundred, gone)
    assert causes(report) == ({"removed_users_percent": gone} if held else {})
    assert len(hundred.active()) == (100 if held else 100 - gone)


def test_disabled_and_missing_users_have_limits_of_their_own(hundred: Company) -> None:
    hundred.configure(limits={"disabled_users_percent": 3, "floor": 2})
    hundred.pool.users = hundred.pool.users[6:]
    hundred.run()
    for person in hundred.pool.users[:3]:
        person["Enabled"] = False
    assert causes(hundred.run()) == {"removed_users_percent": 6}, "three are still out"
    assert len(hundred.active()) == 97
    hundred.pool.users[3]["Enabled"] = False
    report = hundred.run()
    assert causes(report) == {"removed_users_percent": 6, "disabled_users_percent": 1}
    figures = {hold["cause"]: hold["figure"] for hold in report["holds"]}
    assert figures["disabled_users_percent"] == 4, "of the hundred before 24 hours"
    assert figures["removed_users_percent"] == 6.19, "of the 97 who are active"


def test_a_slow_leak_trips_the_sum_over_24_hours(hundred: Company) -> None:
    assert causes(let_users_leave(hundred, 4)) == {}
    assert causes(let_users_leave(hundred, 2)) == {"removed_users_percent": 2}
    assert hundred.run()["holds"][0]["figure"] == 6.0, "of the hundred that were active before both"
    assert len(hundred.active()) == 96
    hundred.let_hours_pass(25)
    assert causes(hundred.run()) == {}
    assert len(hundred.active()) == 94


@pytest.mark.parametrize(("limits", "gone", "held"), [
    ({"removed_users_percent": 0, "floor": 0}, 1, True),
    ({"removed_users_percent": 0, "floor": 5}, 5, False),
    ({"removed_users_percent": 0, "floor": 5}, 6, True),
    ({"removed_users_percent": 100, "floor": 0}, 99, False),
    ({"removed_users_percent": 5, "floor": 1000}, 99, False),
])  # fmt: skip
def test_limits_mean_what_they_say_at_their_edges(
    hundred: Company, limits: dict[str, int], gone: int, held: bool
) -> None:
    hundred.configure(limits=limits)
    assert causes(let_users_leave(hundred, gone)) == (
        {"removed_users_percent": gone} if held else {}
    )


def test_a_mass_change_is_held_and_a_newcomer_is_not(hundred: Company) -> None:
    hundred.pool.users = [
        user(f"person{number:03}@example.org", given_name="New") for number in range(51)
    ] + [
        *hundred.pool.users[51:],
        user("ana@example.org"),
    ]
    report = hundred.run()
    assert report["holds"] == [
        {"cause": "changed_users_percent", "limit": 50.0, "figure": 51.0, "rows": 51}
    ]
    assert counts(report) == {"read": 101, "created": 1, "unchanged": 49, "held": 51}


def test_creations_count_against_their_own_limits_only(company: Company) -> None:
    company.configure(limits={"created_users": 7})
    staff = people(9)
    company.pool.users, company.pool.members = staff[:7], {"Sales": staff[:7]}
    assert causes(company.run()) == {}
    company.configure(limits={"created_users": 1, "floor": 1})
    company.pool.users, company.pool.members = staff, {"Sales": staff}
    report = company.run()
    assert report["holds"] == [{"cause": "created_users", "limit": 1.0, "figure": 2.0, "rows": 8}]
    assert counts(report, "memberships") == {"read": 9, "unchanged": 7, "held": 2}
    assert len(company.usernames()) == 7, (
        "a held creation holds its role, employment and memberships"
    )


def test_no_user_is_created_beyond_the_seats(company: Company) -> None:
    company.configure(limits={"max_users": 5})
    company.joget.add_user("person000@example.org")
    company.pool.users = people(3)
    assert causes(company.run()) == {}, "adopting takes no seat: admin, cat, and three"
    company.pool.users = people(4)
    report = company.run()
    assert report["holds"] == [{"cause": "max_users", "limit": 5.0, "figure": 6.0, "rows": 3}]
    assert counts(report) == {"read": 4, "unchanged": 3, "held": 1}


def test_a_group_that_loses_most_members_is_held_and_others_are_not(company: Company) -> None:
    staff = people(60)
    company.pool.users = staff
    company.pool.members = {"All": staff, "Big": staff[:12], "Small": staff[:9]}
    company.run()
    company.pool.members = {"All": staff, "Big": staff[:5], "Small": staff[:3]}
    report = company.run()
    assert report["holds"][0] | {"rows": 0} == {
        "cause": "emptied_group_percent",
        "limit": 50.0,
        "figure": 58.33,
        "rows": 0,
    }
    groups = [group for _, group in company.memberships()]
    assert groups.count("Big") == 12
    assert groups.count("Small") == 7, (
        "four of the six leavers lose Big as well, and keep both for now"
    )


def test_a_group_that_empties_slowly_trips_the_sum_over_24_hours(company: Company) -> None:
    staff = people(60)
    company.pool.users, company.pool.members = staff, {"All": staff, "Big": staff[:12]}
    company.run()
    company.pool.members["Big"] = staff[:6]
    assert causes(company.run()) == {}
    company.pool.members["Big"] = staff[:4]
    assert causes(company.run()) == {"emptied_group_percent": 2}


def test_memberships_that_a_deactivated_user_loses_are_not_counted_again(company: Company) -> None:
    staff = people(20)
    company.pool.users, company.pool.members = staff, {"All": staff}
    company.run()
    for person in staff[:5]:
        person["Enabled"] = False
    report = company.run()
    assert causes(report) == {}
    assert counts(report, "memberships") == {"read": 20, "removed": 5, "unchanged": 15}


def test_approved_removals_do_not_count_for_the_next_24_hours(hundred: Company) -> None:
    let_users_leave(hundred, 40)
    review_id = hundred.ask()
    assert review_id
    hundred.answer(review_id, "approve")
    assert causes(let_users_leave(hundred, 3)) == {}
    assert len(hundred.active()) == 57


def test_deletions_of_users_deactivated_before_are_limited_too(hundred: Company) -> None:
    let_users_leave(hundred, 40)
    review_id = hundred.ask()
    assert review_id
    hundred.answer(review_id, "approve")
    hundred.configure(policies={"missing_user": "delete"})
    assert hundred.run()["holds"][0] | {"figure": 0} == {
        "cause": "removed_users_percent", "limit": 5.0, "figure": 0, "rows": 40,
    }  # fmt: skip
    assert len(hundred.usernames()) == 100


def test_a_held_removal_frees_no_seat(hundred: Company) -> None:
    hundred.configure(
        policies={"missing_user": "delete", "missing_runs": 1}, limits={"max_users": 102}
    )
    hundred.pool.users = [*hundred.pool.users[10:], *people(10, "new")]
    assert set(causes(hundred.run())) == {"removed_users_percent", "max_users"}
    assert len(hundred.usernames()) == 100
