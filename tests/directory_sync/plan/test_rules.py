"""The design's rules, each tested over a real MariaDB with Joget's tables."""

import hashlib
import itertools
from typing import Any

import pytest

from directory_sync.mapping import MAPPED_COLUMNS
from tests.company import Company, causes, counts
from tests.conftest import BOTH_CHARSETS
from tests.stand_in import sub_of, user

ANA, BOB, EVE = "ana@example.org", "bob@example.org", "eve@example.org"


# 1. New


def test_a_new_user_gets_a_row_a_role_an_employment_and_memberships(company: Company) -> None:
    ana = user(ANA, given_name="Ana", family_name="Lima", zoneinfo="America/Lima", locale="pt-BR")
    company.pool.users = [ana]
    company.pool.members = {"Sales": [ana], "Empty": []}
    report = company.run()
    assert report["outcome"] == "applied"
    assert company.user(ANA) == {
        "firstName": "Ana",
        "lastName": "Lima",
        "email": ANA,
        "active": 1,
        "timeZone": "America/Lima",
        "locale": "pt_BR",
        "password": None,
    }
    assert company.joget.column("SELECT roleId FROM dir_user_role WHERE userId = %s", (ANA,)) == [
        "ROLE_USER"
    ]
    employments = company.joget.execute(
        "SELECT id, organizationId, role FROM dir_employment WHERE userId = %s", (ANA,)
    )
    assert [(len(id_), organization, role) for id_, organization, role in employments] == [
        (32, "ORG-001", None)
    ]
    assert company.memberships() == {(ANA, "Sales")}
    assert company.joget.execute(
        "SELECT id, name, organizationId FROM dir_group WHERE id <> 'managers'"
    ) == [
        ("Empty", "Empty", "ORG-001"),
        ("Sales", "Sales", "ORG-001"),
    ]


def test_a_second_run_changes_no_byte(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.pool.members = {"Sales": company.pool.users}
    company.run()
    before = company.joget.contents()
    links = company.joget.contents("directory_sync_user_link")
    report = company.run()
    assert report["outcome"] == "nothing_to_do"
    assert counts(report) == {"read": 2, "unchanged": 2}
    assert company.joget.contents() == before
    assert company.joget.contents("directory_sync_user_link") == links


def test_local_users_groups_roles_and_metadata_stay_byte_for_byte(company: Company) -> None:
    company.pool.users = [user(ANA)]
    before = company.joget.contents()
    company.run()
    after = company.joget.contents()
    for table, rows in before.items():
        assert set(rows) <= set(after[table]), table
    assert len(after["dir_user"]) == len(before["dir_user"]) + 1
    assert after["dir_user_meta"] == before["dir_user_meta"]


def test_a_user_disabled_from_the_start_is_created_inactive_and_without_memberships(
    company: Company,
) -> None:
    ana = user(ANA, enabled=False)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    assert company.user(ANA)["active"] == 0
    assert company.memberships() == set()
    ana["Enabled"] = True
    assert counts(company.run()) == {"read": 1, "reactivated": 1}
    assert company.user(ANA)["active"] == 1
    assert company.memberships() == {(ANA, "Sales")}


def test_users_get_random_passwords_if_the_settings_ask_for_them(company: Company) -> None:
    company.configure(policies={"new_password": "random"})
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    passwords = {company.user(ANA)["password"], company.user(BOB)["password"]}
    assert len(passwords) == 2
    assert all(len(password) == 32 for password in passwords)


# 2. Already in Joget, not linked


def test_an_account_from_single_sign_on_is_adopted_and_its_id_keeps_its_bytes(
    company: Company,
) -> None:
    company.joget.add_user("Ana@Example.org")
    company.pool.users = [user(ANA, given_name="Ana", zoneinfo="Europe/Lisbon")]
    report = company.run()
    assert counts(report) == {"read": 1, "adopted": 1}
    assert company.usernames() == ["Ana@Example.org"]
    assert company.user("Ana@Example.org")["firstName"] == "Ana"
    assert company.user("Ana@Example.org")["timeZone"] == "Europe/Lisbon"
    assert company.joget.column(
        "SELECT COUNT(*) FROM dir_employment WHERE userId = 'Ana@Example.org'"
    ) == [1]
    assert company.run()["outcome"] == "nothing_to_do"


def test_a_local_account_with_a_password_is_quarantined_and_stays(company: Company) -> None:
    company.joget.add_user(ANA, password="local")
    company.pool.users = [user(ANA), user(BOB)]
    before = company.joget.contents()
    report = company.run()
    assert counts(report) == {"read": 2, "created": 1, "quarantined": 1}
    assert "password" in company.reasons(report)[sub_of(company.pool.users[0])]
    assert set(before["dir_user"]) <= set(company.joget.contents()["dir_user"])


def test_adopt_takes_local_accounts_too_and_never_writes_the_password(company: Company) -> None:
    company.configure(policies={"existing_user": "adopt"})
    company.joget.add_user(ANA, password="local")
    company.pool.users = [user(ANA)]
    assert counts(company.run()) == {"read": 1, "adopted": 1}
    assert company.user(ANA)["password"] == "local"


@pytest.mark.parametrize("policy", ["adopt_sso", "adopt"])
def test_holders_of_role_admin_and_admin_are_never_adopted(company: Company, policy: str) -> None:
    company.configure(policies={"existing_user": policy})
    company.joget.add_user(ANA, role="ROLE_ADMIN")
    company.pool.users = [user(ANA), user("ADMIN"), user("admin", sub="another")]
    before = company.joget.contents()
    assert counts(company.run()) == {"read": 3, "quarantined": 3}
    assert company.joget.contents() == before


def test_an_adopted_user_deactivated_by_an_administrator_stays_inactive(company: Company) -> None:
    company.joget.add_user(ANA, active=0)
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    assert company.user(ANA)["active"] == 0
    assert company.memberships() == set()
    directory = company.staged("directory.parquet")
    assert directory.loc[directory["sub"] == sub_of(ana), "state"].tolist() == [
        "deactivated in Joget"
    ]


def test_memberships_found_at_adoption_are_the_administrators_until_the_pool_names_them(
    company: Company,
) -> None:
    company.joget.add_user(ANA)
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (ANA,)
    )
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": []}
    assert counts(company.run(), "groups") == {"read": 1, "adopted": 1}
    company.run()
    assert company.memberships() == {(ANA, "Sales")}, "it was found, and never named, so it stays"
    company.pool.members = {"Sales": [ana]}
    company.run()
    company.pool.members = {"Sales": []}
    assert counts(company.run(), "memberships") == {"removed": 1}
    assert company.memberships() == set(), "it was named once, so the pool may take it"


# 3. Changed


def test_only_the_columns_that_differ_change_and_cleared_attributes_are_cleared(
    company: Company,
) -> None:
    company.pool.users = [user(ANA, given_name="ana", family_name="mcdonald", zoneinfo="UTC")]
    company.run()
    company.pool.users = [user(ANA, given_name="ana", family_name="McDonald")]
    report = company.run()
    assert counts(report) == {"read": 1, "updated": 1}
    assert company.user(ANA)["lastName"] == "McDonald", "compared by bytes, not by collation"
    assert company.user(ANA)["timeZone"] == "UTC", "no empty time zone overwrites Joget's"
    change = company.staged("plan.parquet").iloc[0]
    assert (change["before_lastName"], change["after_lastName"]) == ("mcdonald", "McDonald")
    assert change["before_firstName"] == change["after_firstName"] == "ana"
    company.pool.users = [user(ANA, given_name="ana", family_name=None)]
    company.run()
    assert company.user(ANA)["lastName"] == ""


def test_if_the_pool_has_no_time_zone_jogets_stays_unless_the_settings_have_a_default(
    company: Company,
) -> None:
    company.joget.add_user(ANA)
    company.pool.users = [user(ANA), user(BOB)]
    assert counts(company.run()) == {"read": 2, "created": 1, "adopted": 1}
    assert (company.user(ANA)["timeZone"], company.user(BOB)["timeZone"]) == ("0", None)
    assert company.run()["outcome"] == "nothing_to_do"
    company.configure(mapping={"time_zone_default": "Asia/Tokyo"})
    report = company.run()
    assert counts(report) == {"read": 2, "updated": 2}
    assert report["settings_change"]["settings"] == ["mapping.time_zone_default"]
    assert (company.user(ANA)["timeZone"], company.user(BOB)["timeZone"]) == (
        "Asia/Tokyo",
        "Asia/Tokyo",
    )
    company.undo(report["run_id"])
    assert (company.user(ANA)["timeZone"], company.user(BOB)["timeZone"]) == ("0", None)


def test_the_same_key_in_other_letters_is_no_change(company: Company) -> None:
    company.configure(mapping={"email": None})
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user("ANA@example.org", sub=sub_of(user(ANA)))]
    assert company.run()["outcome"] == "nothing_to_do"
    assert company.usernames() == [ANA]


UNMAPPED = {
    "first_name": None,
    "last_name": None,
    "email": None,
    "time_zone": None,
    "locale": None,
}


def test_an_unmapped_column_is_left_to_joget(company: Company) -> None:
    company.configure(mapping=UNMAPPED)
    company.pool.users = [user(ANA, zoneinfo="UTC", locale="fr"), user(BOB)]
    company.joget.add_user(BOB)
    bob = company.user(BOB)
    assert counts(company.run()) == {"read": 2, "created": 1, "adopted": 1}
    assert company.user(BOB) == bob
    company.joget.execute(
        "UPDATE dir_user SET firstName = 'A', lastName = 'B', email = 'C', timeZone = 'D', "
        "locale = 'E' WHERE id = %s",
        (ANA,),
    )
    assert company.run()["outcome"] == "nothing_to_do"
    company.pool.users = [
        user(ANA, given_name="New", family_name="New", zoneinfo="CET", locale="de", enabled=False),
        user(BOB),
    ]
    assert counts(company.run()) == {"read": 2, "deactivated": 1, "unchanged": 1}
    ana = company.user(ANA)
    assert [ana[column] for column in MAPPED_COLUMNS] == ["A", "B", "C", "D", "E"]


def test_a_new_user_gets_texts_in_unmapped_columns_where_joget_needs_them(
    company: Company,
) -> None:
    company.configure(mapping=UNMAPPED)
    company.pool.users = [user(ANA)]
    company.run()
    made = [ANA, "", "", None, None]
    assert [company.user(ANA)[column] for column in MAPPED_COLUMNS] == made
    for table, column in (
        ("dir_user_role", "userId"),
        ("dir_employment", "userId"),
        ("dir_user", "id"),
    ):
        company.joget.execute(f"DELETE FROM {table} WHERE {column} = %s", (ANA,))
    assert counts(company.run()) == {"read": 1, "recreated": 1}
    assert [company.user(ANA)[column] for column in MAPPED_COLUMNS] == made


def test_a_rename_keeps_jogets_values_in_unmapped_columns(company: Company) -> None:
    company.configure(mapping=UNMAPPED, policies={"renamed_user": "rename"})
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.execute(
        "UPDATE dir_user SET firstName = 'A', lastName = NULL, email = 'C' WHERE id = %s", (ANA,)
    )
    company.pool.users = [user("new@example.org", sub=sub_of(user(ANA)))]
    assert counts(company.run()) == {"read": 1, "renamed": 1}
    new = company.user("new@example.org")
    assert [new[column] for column in MAPPED_COLUMNS] == ["A", None, "C", None, None]


# 4. State


def test_a_disabled_user_is_deactivated_loses_our_memberships_and_gets_them_back(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', %s)", (ANA,)
    )
    ana["Enabled"] = False
    report = company.run()
    assert counts(report) == {"read": 2, "deactivated": 1, "unchanged": 1}
    assert company.user(ANA)["active"] == 0
    assert company.memberships() == {(BOB, "Sales")}
    assert company.joget.column(
        "SELECT COUNT(*) FROM dir_user_group WHERE groupId = 'managers'"
    ) == [2]
    assert company.run()["outcome"] == "nothing_to_do"
    ana["Enabled"] = True
    assert counts(company.run()) == {"read": 2, "reactivated": 1, "unchanged": 1}
    assert company.user(ANA)["active"] == 1
    assert company.memberships() == {(ANA, "Sales"), (BOB, "Sales")}


@pytest.mark.parametrize("status", ["ARCHIVED", "COMPROMISED"])
def test_an_archived_or_compromised_user_is_deactivated_and_a_new_one_is_not_created(
    company: Company, status: str
) -> None:
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    ana["UserStatus"] = status
    company.pool.users.append(user(BOB, status=status))
    assert counts(company.run()) == {"read": 2, "deactivated": 1, "frozen": 1}
    assert company.usernames() == [ANA]


@pytest.mark.parametrize("status", ["ARCHIVED", "COMPROMISED"])
def test_an_archived_or_compromised_user_is_neither_created_nor_adopted_whatever_the_scope_says(
    company: Company, status: str
) -> None:
    company.configure(scope={"statuses": ["CONFIRMED", status]})
    company.joget.add_user(BOB)
    before = company.joget.contents()
    company.pool.users = [user(ANA, status=status), user(BOB, status=status)]
    assert counts(company.run()) == {"read": 2, "frozen": 2}
    assert company.joget.contents() == before
    reasons = company.staged("directory.parquet")["reason"]
    assert set(reasons) == {"archived or compromised: neither created nor adopted"}


def test_a_user_deactivated_in_joget_stays_so_and_is_reported(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": []}
    company.run()
    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    company.pool.members = {"Sales": [ana]}
    assert company.run()["outcome"] == "nothing_to_do"
    assert company.user(ANA)["active"] == 0
    assert company.memberships() == set()
    directory = company.staged("directory.parquet")
    assert directory.loc[directory["sub"] == sub_of(ana), "state"].tolist() == [
        "deactivated in Joget"
    ]


def test_a_user_reactivated_in_joget_while_disabled_in_the_pool_is_left_alone(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    ana["Enabled"] = False
    company.run()
    company.joget.execute("UPDATE dir_user SET active = 1 WHERE id = %s", (ANA,))
    assert company.run()["outcome"] == "nothing_to_do"
    assert company.user(ANA)["active"] == 1


# Renamed: see test_matching for what a person may decide


def test_a_changed_login_is_held_and_holds_nothing_else(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": []}
    company.run()
    renamed = user("ana.lima@example.org", sub=sub_of(ana))
    company.pool.users, company.pool.members = [renamed], {"Sales": [], "Board": [renamed]}
    report = company.run()
    assert counts(report) == {"read": 1, "held": 1}
    assert report["holds"] == [{"cause": "renamed_user", "limit": None, "figure": None, "rows": 1}]
    assert counts(report, "memberships") == {"read": 1, "added": 1, "removed": 1}
    assert report["held_sha256"]
    assert company.memberships() == {(ANA, "Board")}


def test_keep_leaves_the_username_and_changes_the_rest(company: Company) -> None:
    company.configure(policies={"renamed_user": "keep"})
    company.pool.users = [user(ANA)]
    company.run()
    company.pool.users = [user("ana.lima@example.org", sub=sub_of(user(ANA)))]
    assert counts(company.run()) == {"read": 1, "updated": 1}
    assert company.usernames() == [ANA]
    assert company.user(ANA)["email"] == "ana.lima@example.org"


# 8. Can't be mapped


def test_records_that_cannot_be_mapped_are_quarantined_and_never_stop_the_run(
    company: Company,
) -> None:
    good = user(ANA)
    long_name, no_login = user(BOB, family_name="x" * 2048), user("", sub="no-login")
    long_login, blank = user("y" * 101, sub="long-login"), user("   ", sub="blank")
    spaced, tabbed = user(" eve@example.org", sub="spaced"), user("e\tve@example.org", sub="tabbed")
    half = user(EVE, sub="half", given_name="\ud83d")
    company.pool.users = [long_name, no_login, good, long_login, blank, spaced, tabbed, half]
    report = company.run()
    assert counts(report) == {"read": 8, "created": 1, "quarantined": 7}
    assert company.reasons(report) == {
        sub_of(long_name): "family_name is longer than 255 characters",
        "no-login": "no login: email is missing or blank",
        "long-login": "the login is longer than 100 characters",
        "blank": "no login: email is missing or blank",
        "spaced": "the login begins or ends with white space",
        "tabbed": "the login has a control character",
        "half": "attribute given_name is no Unicode text",
    }
    assert company.usernames() == [ANA]


def test_two_new_users_with_one_key_are_both_quarantined(company: Company) -> None:
    company.pool.users = [user("STRASSE@x.org", sub="a"), user("straße@x.org", sub="b"), user(BOB)]
    report = company.run()
    assert counts(report) == {"read": 3, "created": 1, "quarantined": 2}
    assert set(company.reasons(report)) == {"a", "b"}


def test_a_self_sign_up_that_is_out_of_scope_blocks_nobody(company: Company) -> None:
    company.pool.users = [user(ANA), user(ANA, sub="impostor", status="UNCONFIRMED")]
    assert counts(company.run()) == {"read": 2, "created": 1, "frozen": 1}


@pytest.mark.parametrize(
    "value",
    [
        'O\'Brien "x" \\ `',
        "a\tb\nc",
        "\\N",
        "100 % %s {} $1",
        "日本語 🎉👩‍👩‍👧",
        "é" * 255,
        "x'); DROP TABLE dir_user; --",
        "NULL",
        " ",
    ],
)
def test_odd_values_arrive_exactly(company: Company, value: str) -> None:
    company.pool.users = [user(ANA, family_name=value)]
    company.run()
    assert company.user(ANA)["lastName"] == value
    assert company.run()["outcome"] == "nothing_to_do"


@pytest.mark.parametrize(
    "login", ["o'brien@x.org", "50%@x.org", "back\\slash", "a/b:c", "用户@x.org", "x" * 100]
)
def test_odd_logins_arrive_exactly(company: Company, login: str) -> None:
    someone = user(login)
    company.pool.users, company.pool.members = [someone], {"Sales": [someone]}
    company.run()
    assert company.usernames() == [login]
    assert company.memberships() == {(login, "Sales")}
    assert company.run()["outcome"] == "nothing_to_do"


# 9. Groups


def test_a_group_name_that_the_console_refuses_gets_a_readable_id_for_ever(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Équipe/Ventes;1": [ana], "部": [ana]}
    company.run()
    groups = dict(company.joget.execute("SELECT name, id FROM dir_group WHERE id <> 'managers'"))
    assert groups["Équipe/Ventes;1"].startswith("Equipe-Ventes-1-")
    assert groups["部"].startswith("group-")
    assert company.memberships() == {(ANA, group_id) for group_id in groups.values()}
    assert company.run()["outcome"] == "nothing_to_do"


@BOTH_CHARSETS
def test_if_two_group_names_have_one_key_the_linked_group_keeps_it_and_the_other_gets_a_hash(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana]}
    company.run()
    company.pool.members = {"SALES": [bob], "Sales": [ana]}
    company.run()
    groups = dict(company.joget.execute("SELECT name, id FROM dir_group WHERE id <> 'managers'"))
    hashed = next(name for name in groups if name.startswith("SALES-"))
    assert groups == {"Sales": "Sales", hashed: hashed}, (
        "Joget finds groups by name: the first one wins"
    )
    assert company.memberships() == {(ANA, "Sales"), (BOB, hashed)}
    assert company.run()["outcome"] == "nothing_to_do"


def test_groups_of_federation_and_excluded_ones_are_left_out(company: Company) -> None:
    ana = user(ANA)
    company.configure(scope={"include_groups": ["app-*"], "exclude_groups": ["*-test"]})
    names = ["us-east-1_StandIn_Google", "app-one", "app-test", "other"]
    company.pool.users, company.pool.members = [ana], {name: [ana] for name in names}
    company.run()
    assert company.memberships() == {(ANA, "app-one")}
    assert company.cognito.calls["ListUsersInGroup"] == 1, (
        "nobody asks for the members of a group that is left out"
    )


def test_a_local_group_of_the_same_id_is_adopted_only_without_strangers(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Managers": [ana]}
    report = company.run()
    assert counts(report, "groups") == {"read": 1, "held": 1}
    assert causes(report) == {"existing_group": 2}, "the adoption, and the membership that needs it"
    assert company.memberships() == set()
    company.configure(policies={"existing_group": "adopt"})
    assert counts(company.run(), "groups") == {"read": 1, "adopted": 1}
    members = company.joget.execute("SELECT userId, groupId FROM dir_user_group ORDER BY userId")
    assert members == [(ANA, "managers"), ("cat", "managers")], (
        "the stored id's bytes; the local member stays"
    )


def test_a_group_of_another_organization_is_adopted_only_if_a_person_approves_it(
    company: Company,
) -> None:
    company.joget.execute("INSERT INTO dir_organization (id, name) VALUES ('ORG-2', 'Other')")
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-2')"
    )
    company.pool.members = {"Sales": []}
    assert causes(company.run()) == {"existing_group": 1}
    directory = company.staged("directory.parquet")
    assert (
        "another organization"
        in directory.loc[directory["group_name"] == "Sales", "reason"].iloc[0]
    )


# 10. Memberships


def test_a_membership_that_the_pool_no_longer_names_is_removed_for_a_listed_user(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob], "Board": []}
    company.run()
    company.pool.members = {"Sales": [bob], "Board": [ana]}
    report = company.run()
    assert counts(report, "memberships") == {"read": 2, "added": 1, "removed": 1, "unchanged": 1}
    assert company.memberships() == {(BOB, "Sales"), (ANA, "Board")}


def test_local_members_of_a_synced_group_and_local_groups_of_a_synced_user_stay(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', 'cat'), ('managers', %s)",
        (ANA,),
    )
    company.run()
    rows = company.joget.execute("SELECT userId, groupId FROM dir_user_group")
    assert {(ANA, "Sales"), ("cat", "Sales"), (ANA, "managers"), ("cat", "managers")} == set(rows)


def test_memberships_of_frozen_users_stay(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.configure(scope={"exclude_users": ["ANA@example.org"]})
    company.pool.users, company.pool.members = (
        [user(ANA, enabled=False, given_name="New")],
        {"Sales": []},
    )
    before = company.joget.contents()
    assert counts(company.run()) == {"read": 1, "frozen": 1}
    assert company.joget.contents() == before


# 12. Somebody changed Joget


def test_a_user_deleted_in_joget_is_made_again_under_the_same_id(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    for table in ("dir_user_group", "dir_user_role", "dir_employment"):
        company.joget.execute(f"DELETE FROM {table} WHERE userId = %s", (ANA,))
    company.joget.execute("DELETE FROM dir_user WHERE id = %s", (ANA,))
    assert counts(company.run()) == {"read": 1, "recreated": 1}
    assert company.memberships() == {(ANA, "Sales")}
    assert company.run()["outcome"] == "nothing_to_do"


def test_a_group_deleted_in_joget_is_made_again_under_the_same_id(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"A/B": [ana]}
    company.run()
    before = company.joget.contents()
    company.joget.execute("DELETE FROM dir_user_group WHERE userId = %s", (ANA,))
    company.joget.execute("DELETE FROM dir_group WHERE name = 'A/B'")
    company.run()
    assert company.joget.contents() == before


def test_local_changes_to_role_and_employment_are_not_repaired(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.execute("DELETE FROM dir_employment WHERE userId = %s", (ANA,))
    company.joget.execute("DELETE FROM dir_user_role WHERE userId = %s", (ANA,))
    assert company.run()["outcome"] == "nothing_to_do"


def test_every_change_of_a_linked_user_who_got_role_admin_is_held(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": []}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)", (ANA,)
    )
    assert company.run()["outcome"] == "nothing_to_do"
    ana["Enabled"] = False
    before = company.joget.contents()
    report = company.run()
    assert counts(report) == {"read": 1, "held": 1}
    assert [hold["cause"] for hold in report["holds"]] == ["role_admin"]
    assert company.joget.contents() == before


# The run as a whole


def test_a_dry_run_writes_nothing_and_plans_what_the_run_then_does(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    everything = company.joget.contents(prefix="")
    dry = company.run(dry_run=True)
    assert dry["outcome"] == "dry_run"
    assert company.joget.contents(prefix="") == everything, "not even a ledger"
    real = company.run()
    assert dry["plan_sha256"] == real["plan_sha256"]
    assert counts(dry) == counts(real)


def test_another_organization_by_parameter_is_a_dry_run(company: Company) -> None:
    company.joget.execute("INSERT INTO dir_organization (id, name) VALUES ('ORG-2', 'Other')")
    company.pool.users = [user(ANA)]
    report = company.run(organization="ORG-2")
    assert (report["outcome"], report["organization"]) == ("dry_run", "ORG-2")
    assert company.usernames() == []


def test_a_run_for_some_users_touches_nobody_else(company: Company) -> None:
    ana, bob = user(ANA, given_name="Ana"), user(BOB)
    company.pool.users, company.pool.members = [ana, bob, user(EVE)], {"Sales": [ana, bob]}
    report = company.run(users=["ANA@EXAMPLE.ORG", sub_of(bob)])
    assert counts(report) == {"read": 2, "created": 2}
    company.pool.users = [user(ANA, given_name="Neu"), user(BOB, given_name="Neu")]
    report = company.run(users=[ANA])
    assert counts(report) == {"read": 1, "updated": 1}
    assert company.user(BOB)["firstName"] == "Given"


def test_433_users_in_70_groups_through_short_and_empty_pages_arrive_with_every_membership(
    company: Company,
) -> None:
    people = [user(f"person{number:03}@example.org") for number in range(433)]
    groups = {
        f"group-{number:02}": [p for at, p in enumerate(people) if (at * 7 + number) % 23 < 4]
        for number in range(70)
    }
    company.pool.users, company.pool.members = people, groups
    company.cognito._lengths = _cycle(20, 0, 60, 7, 0, 0, 33)
    report = company.run()
    expected = {
        (f"person{people.index(p):03}@example.org", name)
        for name, members in groups.items()
        for p in members
    }
    assert counts(report) == {"read": 433, "created": 433}
    assert counts(report, "memberships") == {"read": len(expected), "added": len(expected)}
    assert company.memberships() == expected
    before = company.joget.contents()
    assert company.run()["outcome"] == "nothing_to_do"
    assert company.joget.contents() == before


@pytest.mark.parametrize("joget", ["utf8mb3"], indirect=True)
def test_users_with_emoji_are_quarantined_if_joget_cannot_store_them(company: Company) -> None:
    party = user(BOB, given_name="🎉")
    company.pool.users, company.pool.members = (
        [user(ANA, given_name="日本"), party],
        {"🎉": [party], "Sales": [party]},
    )
    report = company.run()
    assert counts(report) == {"read": 2, "created": 1, "quarantined": 1}
    assert "utf8" in company.reasons(report)[sub_of(party)]
    assert "utf8" in company.reasons(report)["🎉"]
    assert company.user(ANA)["firstName"] == "日本"
    assert company.run()["outcome"] == "nothing_to_do"


def _cycle(*lengths: int) -> Any:
    return itertools.cycle(lengths)


def make_employment_id(user_id: str, choice: int) -> str:
    """The id that every release gives the employment of this user in ORG-001."""
    digest = hashlib.sha256(f"ORG-001\0{user_id}\0{choice}".encode()).hexdigest()
    return user_id.encode()[:8].hex().ljust(16, "0") + digest[:16]


@pytest.mark.parametrize(
    "login", ["ana@example.org", "bo", "élodie@example.org", "名前です@example.org"]
)
def test_an_employment_gets_the_next_id_if_joget_uses_the_first_one_elsewhere(
    company: Company, login: str
) -> None:
    company.pool.users = [user(login)]
    first, second = make_employment_id(login, 0), make_employment_id(login, 1)
    company.joget.execute("INSERT INTO dir_employment (id, userId) VALUES (%s, 'cat')", (first,))
    assert company.run()["users"]["created"] == 1
    assert company.joget.column("SELECT id FROM dir_employment WHERE userId = %s", (login,)) == [
        second
    ]


def test_an_adopted_users_employment_id_follows_from_the_stored_user_id(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.joget.add_user("Ana@Example.org")
    first = make_employment_id("Ana@Example.org", 0)
    company.joget.execute("INSERT INTO dir_employment (id, userId) VALUES (%s, 'cat')", (first,))
    assert company.run()["users"]["adopted"] == 1
    assert company.joget.column(
        "SELECT COUNT(*) FROM dir_employment WHERE userId = 'Ana@Example.org'"
    ) == [1]
