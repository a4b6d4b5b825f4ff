"""Matching users with accounts: renames, new subs, retired logins, administrators, and a change of
the pool (rules 6, 7, 11 and 12).
"""

from typing import Any

import pytest

from directory_sync.errors import PermanentError
from tests.company import Company, causes, counts, people
from tests.conftest import BOTH_CHARSETS
from tests.directory_sync.plan.test_missing import fill_every_table
from tests.stand_in import OTHER_POOL_ID, sub_of, user

ANA, BOB, EVE, NEW = "ana@example.org", "bob@example.org", "eve@example.org", "ana.lima@example.org"


def rename_user(person: Any, login: str, **attributes: Any) -> Any:
    """Make a user with the same sub and another login."""
    return user(login, sub=sub_of(person), **attributes)


# 6. Login changed, same sub


@BOTH_CHARSETS
def test_rename_moves_every_row_of_the_user_and_nothing_else(company: Company) -> None:
    company.configure(policies={"renamed_user": "rename"}, mapping={"email": None})
    company.joget.execute("INSERT INTO dir_role (id, name) VALUES ('LOCAL', 'Local')")
    company.joget.execute("ALTER TABLE dir_user ADD COLUMN `c added` VARCHAR(20) DEFAULT 'kept'")
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    fill_every_table(company, ANA)
    company.joget.execute(
        "UPDATE dir_user SET `c added` = 'mine', password = 'local' WHERE id = %s", (ANA,)
    )
    expected = {
        table: sorted(row.replace(f"'{ANA}'", f"'{NEW}'") for row in rows)
        for table, rows in company.joget.contents().items()
    }
    new = rename_user(ana, NEW)
    company.pool.users, company.pool.members = [new, bob], {"Sales": [new, bob]}
    report = company.run()
    assert counts(report) == {"read": 2, "renamed": 1, "unchanged": 1}
    assert company.joget.contents() == expected
    assert company.run()["outcome"] == "nothing_to_do"


def test_a_rename_and_a_change_of_memberships_are_one(company: Company) -> None:
    company.configure(policies={"renamed_user": "rename"})
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": []}
    company.run()
    new = rename_user(ana, NEW, given_name="Neu")
    company.pool.users, company.pool.members = [new], {"Sales": [], "Board": [new]}
    company.run()
    assert company.memberships() == {(NEW, "Board")}
    assert company.user(NEW)["firstName"] == "Neu"


@pytest.mark.parametrize("policy", ["hold", "rename"])
@BOTH_CHARSETS
def test_swaps_chains_and_occupied_logins_are_always_held_and_no_answer_releases_them(
    company: Company, policy: str
) -> None:
    company.configure(policies={"renamed_user": policy})
    ana, bob, eve = user(ANA), user(BOB), user(EVE)
    company.joget.add_user("local@example.org", password="x")
    company.pool.users = [ana, bob, eve]
    company.run()
    before = company.joget.contents()
    company.pool.users = [
        rename_user(ana, BOB),
        rename_user(bob, ANA),
        rename_user(eve, "local@example.org"),
    ]
    report = company.run()
    assert causes(report) == {"occupied_login": 3}
    assert company.ask() is None
    company.pool.users = [
        rename_user(ana, NEW),
        rename_user(bob, NEW.upper()),
        rename_user(eve, "admin"),
    ]
    assert causes(company.run()) == {"occupied_login": 3}
    assert company.joget.contents() == before


def test_a_held_rename_is_applied_when_a_person_approves_it(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": []}
    company.run()
    new = rename_user(ana, NEW)
    company.pool.users, company.pool.members = [new], {"Sales": [], "Board": [new]}
    company.run()
    review_id = company.ask()
    assert review_id
    report = company.answer(review_id, "approve")
    assert counts(report) == {"read": 1, "renamed": 1}
    assert company.memberships() == {(NEW, "Board")}
    assert company.run()["outcome"] == "nothing_to_do"


@pytest.mark.parametrize("policy", ["hold", "rename"])
def test_a_second_account_from_single_sign_on_is_deleted_when_a_person_approves_it(
    company: Company, policy: str
) -> None:
    company.configure(policies={"renamed_user": policy})
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.joget.add_user(NEW.upper())
    company.joget.execute(
        "INSERT INTO dir_user_extra (username, loginAttempt) VALUES (%s, 1)", (NEW.upper(),)
    )
    before = company.joget.contents()
    new = rename_user(ana, NEW, given_name="Ana")
    company.pool.users, company.pool.members = [new], {"Sales": [new], "Board": []}
    report = company.run()
    assert (causes(report), counts(report)) == ({"occupied_by_sso": 2}, {"read": 1, "held": 1})
    review_id = company.ask()
    assert review_id
    answered = company.answer(review_id, "approve")
    assert counts(answered) == {"read": 1, "renamed": 1}
    assert (company.usernames(), company.memberships()) == ([NEW], {(NEW, "Sales")})
    assert company.joget.column("SELECT username FROM dir_user_extra") == []
    assert company.run()["outcome"] == "nothing_to_do"
    report = company.undo(answered["run_id"])
    assert causes(report) == {}
    after = company.joget.contents()
    assert after["dir_user_extra"] == [], "what Joget recorded about its logins is gone"
    kept = [table for table in before if table not in ("dir_user_extra", "dir_group")]
    assert {table: after[table] for table in kept} == {table: before[table] for table in kept}


@pytest.mark.parametrize(
    "use",
    [
        "UPDATE dir_user SET password = 'x' WHERE id = %s",
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', %s)",
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)",
        "INSERT INTO dir_employment (id, userId, organizationId) VALUES ('e', %s, 'ORG-001')",
        "INSERT INTO dir_user_meta (username, meta_key) VALUES (%s, 'theme')",
        "INSERT INTO dir_user_replacement (id, username) VALUES ('r', %s)",
    ],
)
def test_an_account_that_has_more_than_single_sign_on_makes_is_never_taken_away(
    company: Company, use: str
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.add_user(NEW)
    company.joget.execute(use, (NEW,))
    company.pool.users = [rename_user(user(ANA), NEW)]
    assert causes(company.run()) == {"occupied_login": 1}
    assert company.ask() is None


def test_a_second_account_with_a_retired_login_is_held_as_retired_login(company: Company) -> None:
    company.configure(policies={"renamed_user": "rename"})
    company.pool.users = [user(ANA), user(NEW)]
    company.run()
    company.pool.users = [user(ANA), rename_user(user(NEW), EVE)]
    company.run()
    company.joget.add_user(NEW)
    company.pool.users = [rename_user(user(ANA), NEW), rename_user(user(NEW), EVE)]
    report = company.run()
    assert causes(report) == {"retired_login": 2}
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "approve")
    assert company.usernames() == [NEW, EVE]


def test_a_rejected_second_account_stays_and_nobody_is_asked_again(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.add_user(NEW)
    company.pool.users = [rename_user(user(ANA), NEW)]
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "reject")
    assert causes(company.run()) == {"rejected": 2}
    assert company.ask() is None
    assert company.usernames() == [NEW, ANA]


@pytest.mark.parametrize("policy", ["hold", "rename"])
def test_a_user_who_is_renamed_and_disabled_is_deactivated_at_once_within_the_limits(
    company: Company, policy: str
) -> None:
    company.configure(policies={"renamed_user": policy}, limits={"floor": 1})
    staff = people(4)
    company.pool.users, company.pool.members = staff, {"All": staff}
    company.run()
    company.pool.users = [rename_user(staff[0], NEW, enabled=False), *staff[1:]]
    assert counts(company.run()) == {"read": 4, "deactivated": 1, "unchanged": 3}
    assert len(company.memberships()) == 3
    company.pool.users = [
        rename_user(person, f"new.{at}@example.org", enabled=False)
        for at, person in enumerate(staff)
    ]
    assert causes(company.run())["disabled_users_percent"] == 6


def test_a_held_rename_adds_no_memberships_for_a_user_deactivated_by_an_administrator(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": []}
    company.run()
    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    new = rename_user(ana, NEW)
    company.pool.users, company.pool.members = [new], {"Sales": [new]}
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "approve")
    assert company.usernames() == [NEW]
    assert company.memberships() == set()


# 7. A new sub with an old login


def test_while_both_are_listed_the_linked_user_keeps_the_account(company: Company) -> None:
    first, second = user(ANA), user(ANA, sub="0000-second")
    company.pool.users = [first]
    company.run()
    before = company.joget.contents()
    company.pool.users = [second, first]
    report = company.run()
    assert counts(report) == {"read": 2, "unchanged": 1, "quarantined": 1}
    assert company.reasons(report) == {
        "0000-second": f"its login belongs to the linked user {sub_of(first)}"
    }
    assert company.joget.contents() == before


def test_a_stranger_with_an_old_login_inherits_nothing_without_approval(
    company: Company,
) -> None:
    company.configure(policies={"missing_user": "delete"})
    ana, stranger = user(ANA), user(ANA, sub="stranger", given_name="Stranger")
    company.pool.users, company.pool.members = [ana, user(BOB)], {"Sales": [ana]}
    company.run()
    company.pool.users, company.pool.members = [stranger, user(BOB)], {"Sales": [stranger]}
    assert counts(company.run()) == {"read": 2, "unchanged": 1, "held": 1, "missing": 1}
    assert company.ask() is None, "a person is asked when nothing else changes the account any more"
    report = company.run()
    assert counts(report) == {"read": 2, "unchanged": 1, "held": 1, "missing": 1, "deactivated": 1}
    assert company.user(ANA)["firstName"] == "Given", "the old row isn't deleted meanwhile"
    assert company.memberships() == set()
    report = company.run()
    assert set(causes(report)) == {"new_sub"}
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "approve")
    assert company.user(ANA)["firstName"] == "Stranger"
    assert company.user(ANA)["active"] == 1
    company.run()
    assert company.memberships() == {(ANA, "Sales")}
    assert company.run()["outcome"] == "nothing_to_do"


def test_a_login_that_was_linked_once_stays_retired(company: Company) -> None:
    company.configure(policies={"missing_user": "delete", "renamed_user": "rename"})
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob, user(EVE)]
    company.run()
    company.pool.users = [rename_user(ana, NEW), user(EVE)]
    company.run()
    company.run()
    assert company.usernames() == [NEW, EVE]
    company.pool.users = [
        rename_user(ana, NEW),
        user(EVE),
        user(ANA.upper(), sub="one"),
        user(BOB, sub="two"),
    ]
    report = company.run()
    assert causes(report) == {"retired_login": 6}
    assert company.usernames() == [NEW, EVE]
    company.pool.users = [rename_user(ana, NEW), user(EVE), bob]
    assert counts(company.run())["created"] == 1, "the former user may have it again"


# 11. The pool changed in the settings


@pytest.fixture
def moved(company: Company) -> Company:
    """Twenty users in two groups, then the settings name another pool with the same people under
    new subs.
    """
    company.pool.users = people(20)
    company.pool.members = {"All": company.pool.users, "Few": company.pool.users[:3]}
    company.run()
    company.configure(user_pool_id=OTHER_POOL_ID)
    company.pool.users = [
        user(f"person{number:03}@example.org", sub=f"new-{number:03}") for number in range(20)
    ]
    company.pool.members = {"All": company.pool.users, "Few": company.pool.users[:3]}
    return company


def test_the_same_logins_in_another_pool_are_linked_to_their_new_subs(moved: Company) -> None:
    before = moved.joget.contents()
    report = moved.run()
    assert counts(report) == {"read": 20, "updated": 20}
    assert counts(report, "groups") == {"read": 2, "unchanged": 2}
    assert moved.joget.contents() == before
    links = moved.joget.execute(
        "SELECT user_pool_id, COUNT(*), COUNT(user_id_sha256) FROM directory_sync_user_link GROUP "
        "BY 1 ORDER BY 1"
    )
    assert links == [(OTHER_POOL_ID, 20, 20), ("us-east-1_StandIn", 20, 0)]
    assert moved.run()["outcome"] == "nothing_to_do"


def test_changing_back_links_by_sub_again(moved: Company) -> None:
    moved.run()
    before = moved.joget.contents()
    moved.configure(user_pool_id="us-east-1_StandIn")
    moved.pool.users = people(20)
    moved.pool.members = {"All": moved.pool.users, "Few": moved.pool.users[:3]}
    assert counts(moved.run()) == {"read": 20, "updated": 20}
    assert moved.joget.contents() == before


def test_with_fewer_than_half_of_the_logins_everything_is_held(moved: Company) -> None:
    before = moved.joget.contents()
    moved.pool.users = [*moved.pool.users[:9], *people(11, "other")]
    moved.pool.members = {"All": moved.pool.users}
    for _ in range(3):
        report = moved.run()
        assert set(causes(report)) == {"pool_change"}
        assert counts(report) == {"read": 20, "held": 20}
        assert moved.joget.contents() == before
    review_id = moved.ask()
    assert review_id
    moved.answer(review_id, "approve")
    assert len(moved.usernames()) == 31
    assert len(moved.active()) == 31, (
        "users that only the old pool had are missing, and the limits apply"
    )
    moved.run()
    assert causes(moved.run())["removed_users_percent"] == 22


def test_users_that_only_the_old_pool_had_are_missing(moved: Company) -> None:
    moved.pool.users = moved.pool.users[2:]
    moved.pool.members = {"All": moved.pool.users, "Few": moved.pool.users[:1]}
    assert counts(moved.run()) == {"read": 18, "updated": 18, "missing": 2}
    assert len(moved.active()) == 20
    assert counts(moved.run()) == {"read": 18, "unchanged": 18, "missing": 2, "deactivated": 2}
    assert len(moved.active()) == 18


def test_a_stranger_who_comes_long_after_the_change_with_an_old_pools_login_is_held(
    moved: Company,
) -> None:
    everybody = moved.pool.users
    moved.pool.users, moved.pool.members = (
        everybody[1:],
        {"All": everybody[1:], "Few": everybody[1:3]},
    )
    moved.run()
    moved.run()
    assert moved.user("person000@example.org")["active"] == 0
    moved.pool.users = [
        user("person000@example.org", sub="stranger", given_name="Stranger"),
        *everybody[1:],
    ]
    for _ in range(2):
        assert set(causes(moved.run())) == {"new_sub"}
    assert moved.user("person000@example.org")["active"] == 0
    assert moved.user("person000@example.org")["firstName"] == "Given"


def test_a_run_for_everybody_takes_a_changed_pool_over(moved: Company) -> None:
    with pytest.raises(PermanentError, match="for everybody once"):
        moved.run(users=["new-001"])
    assert counts(moved.run()) == {"read": 20, "updated": 20}


def test_another_pool_by_parameter_is_a_dry_run(company: Company) -> None:
    company.pool.users = people(3)
    company.run()
    before = company.joget.contents(prefix="")
    report = company.run(user_pool_id=OTHER_POOL_ID)
    assert (report["outcome"], report["user_pool_id"]) == ("dry_run", OTHER_POOL_ID)
    assert company.joget.contents(prefix="") == before


def test_local_memberships_survive_a_change_of_the_pool(company: Company) -> None:
    company.joget.add_user(ANA)
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (ANA,)
    )
    company.pool.users, company.pool.members = [user(ANA)], {"Sales": []}
    company.run()
    company.configure(user_pool_id=OTHER_POOL_ID)
    company.pool.users = [user(ANA, sub="new")]
    company.run()
    company.run()
    assert company.memberships() == {(ANA, "Sales")}


# 12. Somebody changed Joget


def test_a_linked_user_who_got_role_admin_is_neither_deactivated_nor_deleted_when_missing(
    company: Company,
) -> None:
    company.configure(policies={"missing_user": "delete"})
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)", (ANA,)
    )
    before = company.joget.contents()
    company.pool.users = [user(BOB)]
    company.run()
    assert causes(company.run()) == {"role_admin": 1}
    assert company.joget.contents() == before


def test_recreated_users_are_behind_the_limits(company: Company) -> None:
    company.pool.users = people(20)
    company.run()
    for table, column in (
        ("dir_user_role", "userId"),
        ("dir_employment", "userId"),
        ("dir_user", "id"),
    ):
        company.joget.execute(f"DELETE FROM {table} WHERE {column} LIKE 'person%'")
    report = company.run()
    assert causes(report) == {"changed_users_percent": 60}
    assert company.usernames() == []


def test_an_employment_that_was_moved_to_another_organization_stops_nobody(
    company: Company,
) -> None:
    company.joget.execute("INSERT INTO dir_organization (id, name) VALUES ('ORG-2', 'Other')")
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    company.joget.execute(
        "UPDATE dir_employment SET organizationId = 'ORG-2' WHERE userId = %s", (ANA,)
    )
    ana["Enabled"] = False
    company.run()
    ana["Enabled"] = True
    assert counts(company.run()) == {"read": 1, "reactivated": 1}
    organizations = company.joget.column(
        "SELECT organizationId FROM dir_employment WHERE userId = %s", (ANA,)
    )
    assert sorted(organizations) == ["ORG-001", "ORG-2"]


def test_a_login_can_be_given_again_after_its_employment_moved_with_a_rename(
    company: Company,
) -> None:
    company.configure(policies={"renamed_user": "rename"})
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    company.pool.users = [rename_user(ana, NEW), user(ANA, sub="second")]
    assert counts(company.run()) == {"read": 2, "renamed": 1, "quarantined": 1}
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "approve")
    assert company.usernames() == [NEW, ANA]
    assert company.run()["outcome"] == "nothing_to_do"


def test_if_all_users_of_a_pool_get_new_subs_a_person_answers_in_two_steps(
    company: Company,
) -> None:
    company.pool.users = people(20)
    company.pool.members = {"All": company.pool.users}
    company.run()
    company.pool.users = [
        user(f"person{at:03}@example.org", sub=f"second-{at:03}") for at in range(20)
    ]
    company.pool.members = {"All": company.pool.users}
    company.run()
    assert set(causes(company.run())) == {"removed_users_percent", "new_sub"}
    first = company.ask()
    assert first
    assert company.answer(first, "approve")["review"]["changed_since"] == 0
    assert company.active() == []
    company.run()
    second = company.ask()
    assert second
    company.answer(second, "approve")
    company.run()
    assert len(company.active()) == 20
    assert len(company.memberships()) == 20
    assert company.run()["outcome"] == "nothing_to_do"
