"""Disabled comes first (rule 4): whatever else is wrong with the record, a disabled user loses
access.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.company import Company, causes, counts, people
from tests.stand_in import sub_of, user

ANA, BOB = "ana@example.org", "bob@example.org"


def without_email(person: Any) -> Any:
    return {
        **person,
        "Attributes": [pair for pair in person["Attributes"] if pair["Name"] != "email"],
    }


@pytest.mark.parametrize(
    "broken",
    [
        lambda _: without_email(user(ANA, enabled=False)),
        lambda _: user(ANA, enabled=False, given_name="x" * 300),
        lambda _: user(ANA, enabled=False, status="UNKNOWN"),
        lambda ana: user("ana,admin@example.org", enabled=False, sub=sub_of(ana)),
        lambda ana: user(BOB, enabled=False, sub=sub_of(ana)),
    ],
    ids=["no email", "long name", "unknown status", "login with comma", "another's login"],
)
def test_a_disabled_user_is_deactivated_whatever_else_is_wrong_with_the_record(
    company: Company, broken: Callable[[Any], Any]
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    now = broken(ana)
    company.pool.users, company.pool.members = [now, bob], {"Sales": [now, bob]}
    report = company.run()
    assert counts(report)["deactivated"] == 1
    assert company.active() == [BOB]
    assert company.memberships() == {(BOB, "Sales")}
    assert company.run()["outcome"] == "nothing_to_do"


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "incomplete"])
def test_a_disabled_user_leaves_a_group_that_the_pool_no_longer_lists_and_the_others_stay(
    company: Company, complete: bool
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob, *people(6)]
    company.pool.members = {"Sales": [ana, bob]}
    company.run()
    del company.pool.members["Sales"]
    ana["Enabled"] = False
    company.faults.cut_users_after = 0 if complete else 2
    assert company.run()["complete"] == complete
    assert ANA not in company.active()
    assert company.memberships() == {(BOB, "Sales")}, "the group isn't due yet"


def test_a_disabled_user_out_of_scope_is_deactivated(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.configure(scope={"statuses": ["CONFIRMED"]})
    ana["UserStatus"], ana["Enabled"] = "RESET_REQUIRED", False
    assert counts(company.run())["deactivated"] == 1
    assert (company.active(), company.memberships()) == ([], set())


def test_only_exclude_users_protects_a_disabled_user(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.configure(scope={"exclude_users": [ANA]})
    ana["Enabled"] = False
    assert counts(company.run()) == {"read": 1, "frozen": 1}
    assert (company.active(), company.memberships()) == ([ANA], {(ANA, "Sales")})


def test_an_unanswered_mass_removal_keeps_no_disabled_user_in(company: Company) -> None:
    staff = people(100)
    company.configure(policies={"missing_runs": 1})
    company.pool.users, company.pool.members = staff, {"All": staff}
    company.run()
    staff[50]["Enabled"] = False
    company.pool.users, company.pool.members = staff[40:], {"All": staff[40:]}
    report = company.run()
    assert causes(report) == {"removed_users_percent": 80}
    assert counts(report)["deactivated"] == 1
    assert "person050@example.org" not in company.active()


def test_a_rejected_absence_does_not_silence_a_later_disabling(company: Company) -> None:
    staff = people(30)
    company.configure(policies={"missing_runs": 1})
    company.pool.users, company.pool.members = staff, {"All": staff}
    company.run()
    company.pool.users, company.pool.members = staff[20:], {"All": staff[20:]}
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "reject")
    staff[0]["Enabled"] = False
    company.pool.users, company.pool.members = staff, {"All": staff}
    report = company.run()
    assert (causes(report), counts(report)["deactivated"]) == ({}, 1)
    assert "person000@example.org" not in company.active()


def test_a_user_deactivated_in_joget_keeps_our_memberships_until_a_snapshot_is_complete(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    company.faults.estimate = "300"
    assert not company.run()["complete"]
    assert company.memberships() == {(ANA, "Sales"), (BOB, "Sales")}
    company.faults.estimate = "true"
    assert company.run()["complete"]
    assert company.memberships() == {(BOB, "Sales")}


def test_a_user_deactivated_by_an_administrator_of_joget_loses_our_memberships(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', %s)", (ANA,)
    )
    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    company.run()
    assert company.memberships() == {(BOB, "Sales")}
    assert (
        company.joget.column("SELECT userId FROM dir_user_group WHERE groupId = 'managers'").count(
            ANA
        )
        == 1
    )
    company.joget.execute("UPDATE dir_user SET active = 1 WHERE id = %s", (ANA,))
    company.run()
    assert company.memberships() == {(ANA, "Sales"), (BOB, "Sales")}
