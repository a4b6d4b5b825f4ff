"""Joget asks for groups by name (rule 9), and takes the first one with that name, in any
organization.
"""

import pytest

from directory_sync.mapping import hash_group_id
from tests.company import Company, causes, counts
from tests.stand_in import user

ANA, BOB, CLARK = "ana@example.org", "bob@example.org", "clark@example.org"


def add_group(
    company: Company, group_id: str, name: str, *members: str, organization: str = "ORG-001"
) -> None:
    """Add one of Joget's own groups."""
    company.joget.execute(
        "INSERT IGNORE INTO dir_organization (id, name) VALUES (%s, %s)", (organization,) * 2
    )
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES (%s, %s, %s)",
        (group_id, name, organization),
    )
    for member in members:
        company.joget.execute(
            "INSERT INTO dir_user_group (groupId, userId) VALUES (%s, %s)", (group_id, member)
        )


def find_first_group(company: Company, name: str) -> str:
    """Find the group that Joget takes for a name (isUserInGroup, getGroupByName)."""
    ids = company.joget.column("SELECT id FROM dir_group WHERE name = %s ORDER BY id", (name,))
    assert len(ids) == 1, "no other group has the name's key"
    return str(ids[0])


@pytest.mark.parametrize("group_id", ["Z-9", "A-1"])
@pytest.mark.parametrize("organization", ["ORG-001", "ORG-2"])
def test_no_group_of_the_pool_gets_a_name_that_a_local_group_has(
    company: Company, group_id: str, organization: str
) -> None:
    company.joget.add_user(CLARK, password="local")
    add_group(company, group_id, "Finance", CLARK, organization=organization)
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Finance": [ana]}
    assert causes(company.run())["existing_group"] == 2, "a person decides: that group, or none"
    assert find_first_group(company, "finance") == group_id
    assert company.memberships() == {(CLARK, group_id)}
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "approve")
    assert company.memberships() == {(CLARK, group_id), (ANA, group_id)}
    assert find_first_group(company, "Finance") == group_id
    assert company.run()["outcome"] == "nothing_to_do"


def test_two_groups_of_the_pool_with_one_key_both_get_their_hash_as_name(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Case": [ana], "case": [bob]}
    company.run()
    names = company.joget.column("SELECT name FROM dir_group WHERE id <> 'managers'")
    assert sorted(names) == sorted({hash_group_id("Case"), hash_group_id("case")})
    assert len(company.memberships()) == 2


def test_a_second_group_with_the_key_of_a_linked_one_is_named_with_its_hash(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Case": [ana]}
    company.run()
    company.pool.members = {"Case": [ana], "case": [bob]}
    company.run()
    assert find_first_group(company, "Case") == "Case"
    assert company.memberships() == {(ANA, "Case"), (BOB, hash_group_id("case"))}
    assert company.run()["outcome"] == "nothing_to_do"


def test_the_raw_name_is_tried_as_an_existing_id_even_if_the_console_would_refuse_it(
    company: Company,
) -> None:
    company.joget.add_user(ANA)
    add_group(company, "Sales Team", "Sales Team", ANA)
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales Team": [ana, bob]}
    report = company.run()
    assert counts(report, "groups") == {"read": 1, "adopted": 1}
    assert company.memberships() == {(ANA, "Sales Team"), (BOB, "Sales Team")}


@pytest.mark.parametrize("members", [(), (CLARK,)], ids=["empty", "with a local member"])
def test_the_adoption_of_a_group_with_members_from_outside_the_pool_waits_for_a_person(
    company: Company, members: tuple[str, ...]
) -> None:
    company.joget.add_user(CLARK, password="local")
    add_group(company, "Finance", "Finance", *members)
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Finance": [ana]}
    report = company.run()
    assert causes(report) == {"existing_group": 2}
    assert counts(report, "groups") == {"read": 1, "held": 1}
    assert (ANA, "Finance") not in company.memberships()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "approve")
    assert company.memberships() == {(ANA, "Finance"), *((member, "Finance") for member in members)}


def test_existing_group_adopt_does_not_ask(company: Company) -> None:
    company.configure(policies={"existing_group": "adopt"})
    add_group(company, "Finance", "Finance")
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Finance": [ana]}
    assert causes(company.run()) == {}
    assert company.memberships() == {(ANA, "Finance")}


@pytest.mark.parametrize("policy", ["keep", "sync"])
def test_existing_memberships_decides_who_owns_the_memberships_found_at_an_adoption(
    company: Company, policy: str
) -> None:
    company.configure(policies={"existing_memberships": policy})
    company.joget.add_user(ANA)
    company.joget.add_user(BOB)
    add_group(company, "Sales", "Sales", ANA, BOB)
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana]}
    company.run()
    company.run()
    left_over = {(BOB, "Sales")} if policy == "keep" else set()
    assert company.memberships() == {(ANA, "Sales")} | left_over


def test_a_linked_group_that_was_renamed_or_deleted_in_joget_gets_its_name_back(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.joget.execute("UPDATE dir_group SET name = 'Verkauf' WHERE id = 'Sales'")
    assert counts(company.run(), "groups") == {"read": 1, "updated": 1}
    assert find_first_group(company, "Sales") == "Sales"
    company.joget.execute("DELETE FROM dir_user_group WHERE groupId = 'Sales'")
    company.joget.execute("DELETE FROM dir_group WHERE id = 'Sales'")
    assert counts(company.run(), "groups") == {"read": 1, "created": 1}
    assert company.memberships() == {(ANA, "Sales")}


@pytest.mark.parametrize("login", ["x,admin@example.org", "x;admin@example.org"])
def test_a_login_at_which_joget_splits_lists_of_users_is_quarantined(
    company: Company, login: str
) -> None:
    company.pool.users = [user(login), user(ANA)]
    report = company.run()
    assert counts(report) == {"read": 2, "created": 1, "quarantined": 1}
    assert "comma or semicolon" in next(iter(company.reasons(report).values()))


def test_an_enabled_user_is_not_quarantined_for_a_disabled_twin(company: Company) -> None:
    company.pool.users = [user(ANA), user(ANA.upper(), enabled=False)]
    assert counts(company.run()) == {"read": 2, "created": 1, "quarantined": 1}
    assert company.active() == [ANA]
