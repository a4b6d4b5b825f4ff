"""Nobody is removed by mistake: proof of completeness, and what happens to missing users, groups
and memberships (rules 5, 9 and 10).
"""

from typing import Any

import pytest

from tests.company import Company, causes, counts, people
from tests.stand_in import sub_of, user

ANA, BOB, EVE = "ana@example.org", "bob@example.org", "eve@example.org"


@pytest.fixture
def staffed(company: Company) -> Company:
    """300 users, some of them in groups, after a first run."""
    company.pool.users = people(300)
    company.pool.members = {"All": company.pool.users, "First": company.pool.users[:120]}
    company.run()
    return company


def check_that_nobody_is_lost(company: Company, runs: int = 3) -> list[dict[str, Any]]:
    """Run several times, and check that no directory row is deleted or deactivated; returns the
    reports.
    """
    before = company.joget.contents()
    reports = [company.run() for _ in range(runs)]
    assert company.joget.contents() == before
    return reports


# Proof


def test_a_listing_that_was_cut_with_status_200_removes_nobody_and_says_why(
    staffed: Company,
) -> None:
    staffed.faults.cut_users_after = 120
    for report in check_that_nobody_is_lost(staffed):
        assert not report["complete"]
        assert report["users"]["missing"] == 0
        assert "120 users were listed, and Cognito estimates 300" in report["incomplete_reasons"][0]
        assert "180 users were seen elsewhere" in report["incomplete_reasons"][1]
    staffed.faults.cut_users_after = 0
    assert staffed.run()["outcome"] == "nothing_to_do"


def test_an_unproven_snapshot_adds_updates_and_disables(staffed: Company) -> None:
    staffed.pool.users[0]["Enabled"] = False
    changed = user("person001@example.org", given_name="New")
    staffed.pool.users = [staffed.pool.users[0], changed, user(ANA), *staffed.pool.users[2:]]
    staffed.pool.members = {"All": staffed.pool.users, "First": [staffed.pool.users[2]]}
    staffed.faults.estimate = "900"
    report = staffed.run()
    assert not report["complete"]
    assert counts(report) == {
        "read": 301,
        "created": 1,
        "updated": 1,
        "deactivated": 1,
        "unchanged": 298,
    }
    assert counts(report, "memberships") == {
        "read": 302,
        "added": 2,
        "removed": 2,
        "unchanged": 299,
    }


def test_an_empty_pool_removes_nobody(staffed: Company) -> None:
    staffed.pool.users, staffed.pool.members = [], {}
    for report in check_that_nobody_is_lost(staffed):
        assert "the pool lists no user" in report["incomplete_reasons"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"estimate": "absent"}, "no estimate"),
        ({"repeated_users": 3}, "3 of 300 listed users came twice"),
        ({"estimate": "250"}, "297 users were listed, and Cognito estimates 250"),
    ],
)
def test_each_doubt_about_the_listing_stops_removals(
    staffed: Company, fault: dict[str, Any], reason: str
) -> None:
    staffed.pool.users = staffed.pool.users[3:]
    staffed.pool.members = {"All": staffed.pool.users, "First": staffed.pool.users[:117]}
    for name, value in fault.items():
        setattr(staffed.faults, name, value)
    for report in check_that_nobody_is_lost(staffed):
        assert reason in " ".join(report["incomplete_reasons"])


def test_a_few_newcomers_among_the_members_are_no_doubt(company: Company) -> None:
    company.configure(proof={"newcomers": 2})
    company.pool.users = people(3)
    newcomers = [user(f"newcomer{at}@example.org", created=None) for at in range(3)]
    company.pool.members = {"All": [*company.pool.users, *newcomers[:2]]}
    assert company.run()["complete"]
    company.pool.members["All"].append(newcomers[2])
    assert not company.run()["complete"]


def test_a_group_listing_that_lacks_a_member_is_repeated_and_one_absence_removes_nothing(
    staffed: Company,
) -> None:
    staffed.cognito.listings.clear()
    staffed.faults.first_listing_lacks = {"All": 150}
    for report in check_that_nobody_is_lost(staffed, runs=1):
        assert counts(report, "memberships") == {"read": 420, "unchanged": 420}
    assert staffed.cognito.listings == {"All": 2, "First": 1}


def test_a_membership_that_both_listings_lack_is_removed(staffed: Company) -> None:
    staffed.cognito.listings.clear()
    staffed.pool.members = {"All": staffed.pool.users[:297], "First": staffed.pool.users[:120]}
    assert counts(staffed.run(), "memberships") == {"read": 417, "removed": 3, "unchanged": 417}
    assert staffed.cognito.listings == {"All": 2, "First": 1}


# 5. Missing


def test_three_of_300_gone_are_counted_once_and_then_deactivated(staffed: Company) -> None:
    staffed.pool.users = staffed.pool.users[3:]
    staffed.pool.members = {"All": staffed.pool.users, "First": staffed.pool.users[:117]}
    assert counts(staffed.run()) == {"read": 297, "unchanged": 297, "missing": 3}
    assert len(staffed.active()) == 300
    assert counts(staffed.run()) == {"read": 297, "unchanged": 297, "missing": 3, "deactivated": 3}
    assert len(staffed.active()) == 297
    assert len(staffed.usernames()) == 300, "nobody is deleted"
    assert {user_id for user_id, _ in staffed.memberships()} == set(staffed.active())
    report = staffed.run()
    assert (report["outcome"], counts(report)) == (
        "nothing_to_do",
        {"read": 297, "unchanged": 297, "missing": 3},
    )


def test_40_of_300_gone_are_held_while_a_newcomer_and_a_change_are_applied(
    staffed: Company,
) -> None:
    staffed.pool.users = [
        user("person040@example.org", given_name="New"),
        *staffed.pool.users[41:],
        user(ANA),
    ]
    staffed.pool.members = {"All": staffed.pool.users, "First": staffed.pool.users[:80]}
    staffed.run()
    before = staffed.joget.contents()
    report = staffed.run()
    assert staffed.joget.contents() == before
    assert report["holds"] == [
        {"cause": "removed_users_percent", "limit": 5, "figure": 13.29, "rows": 120}
    ]
    assert report["users"]["held"] == 40
    assert report["users"]["deactivated"] == 0
    assert staffed.user(ANA)["active"] == 1
    assert staffed.user("person040@example.org")["firstName"] == "New"


def test_a_user_who_comes_back_is_restored_with_their_memberships(company: Company) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    before = company.joget.contents()
    company.pool.users, company.pool.members = [bob], {"Sales": [bob]}
    company.run()
    company.run()
    assert company.active() == [BOB]
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    assert counts(company.run()) == {"read": 2, "reactivated": 1, "unchanged": 1}
    assert company.joget.contents() == before


def test_only_misses_in_a_row_count(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    for _ in range(3):
        company.pool.users = [user(BOB)]
        company.run()
        company.pool.users = [user(ANA), user(BOB)]
        company.run()
    assert company.active() == [ANA, BOB]


def test_a_miss_counts_once_for_each_snapshot(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    company.pool.users = [user(BOB)]
    transformed = company.prepare()
    for _ in range(3):
        company.load(transformed)
    company.run(dry_run=True)
    company.run(users=[BOB])
    assert company.active() == [ANA, BOB]
    assert company.joget.column("SELECT misses FROM directory_sync_user_link ORDER BY user_id") == [
        1,
        0,
    ]


def test_a_missing_user_deactivated_by_an_administrator_stays_inactive_when_listed_again(
    company: Company,
) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    company.pool.users = [user(BOB)]
    company.run()
    company.run()
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    assert company.user(ANA)["active"] == 0


def test_the_directory_shows_a_frozen_user_as_active(company: Company) -> None:
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    company.configure(scope={"exclude_users": [ANA]})
    company.run()
    directory = company.staged("directory.parquet")
    assert directory[["outcome", "state"]].values.tolist() == [["frozen", "active"]]


def test_an_excluded_user_is_never_missing(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    company.configure(scope={"exclude_users": [ANA]})
    company.pool.users = [user(BOB)]
    for _ in range(3):
        assert counts(company.run()) == {"read": 1, "unchanged": 1, "frozen": 1}
    assert company.active() == [ANA, BOB]


def test_keep_leaves_missing_users_as_they_are(company: Company) -> None:
    company.configure(policies={"missing_user": "keep"})
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana, user(BOB)], {"Sales": [ana]}
    company.run()
    company.pool.users, company.pool.members = [user(BOB)], {"Sales": []}
    before = company.joget.contents()
    for _ in range(3):
        assert counts(company.run()) == {"read": 1, "unchanged": 1, "missing": 1}
    assert company.joget.contents() == before


def fill_every_table(company: Company, login: str) -> None:
    """Give a user one row in every table that Joget has for users."""
    rows = company.joget.execute
    employment = company.joget.column("SELECT id FROM dir_employment WHERE userId = %s", (login,))[
        0
    ]
    rows("INSERT INTO dir_employment (id, userId) VALUES ('boss', 'cat'), ('more', %s)", (login,))
    rows(
        "INSERT INTO dir_employment_report_to (employmentId, reportToId, id) VALUES ('boss', %s, "
        "'a')",
        (employment,),
    )
    rows(
        "INSERT INTO dir_employment_report_to (employmentId, reportToId, id) VALUES (%s, 'boss', "
        "'b')",
        (employment,),
    )
    rows("INSERT INTO dir_department (id, name, hod) VALUES ('D', 'D', %s)", (employment,))
    rows("INSERT INTO dir_user_role (roleId, userId) VALUES ('LOCAL', %s)", (login,))
    rows("INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', %s)", (login,))
    rows(
        "INSERT INTO dir_user_meta (username, meta_key, meta_value) VALUES (%s, 'k', 'v')", (login,)
    )
    rows("INSERT INTO dir_user_extra (username) VALUES (%s)", (login,))
    rows("INSERT INTO dir_user_password_history (id, username) VALUES ('h', %s)", (login,))
    rows(
        "INSERT INTO dir_user_replacement (id, username, replacementUser) VALUES ('r', %s, 'cat')",
        (login,),
    )
    rows(
        "INSERT INTO dir_user_replacement (id, username, replacementUser) VALUES ('s', 'cat', %s)",
        (login,),
    )


def test_delete_leaves_nothing_of_the_user_and_everything_of_the_others(company: Company) -> None:
    company.configure(policies={"missing_user": "delete"})
    company.joget.execute("INSERT INTO dir_role (id, name) VALUES ('LOCAL', 'Local')")
    ana = user(ANA)
    company.pool.users, company.pool.members = [user(BOB)], {"Sales": [user(BOB)]}
    company.run()
    before = company.joget.contents()
    company.pool.users, company.pool.members = [ana, user(BOB)], {"Sales": [ana, user(BOB)]}
    company.run()
    fill_every_table(company, ANA)
    company.pool.users, company.pool.members = [user(BOB)], {"Sales": [user(BOB)]}
    assert counts(company.run()) == {"read": 1, "unchanged": 1, "missing": 1}
    assert counts(company.run()) == {"read": 1, "unchanged": 1, "missing": 1, "deleted": 1}
    company.joget.execute("DELETE FROM dir_department WHERE id = 'D' AND hod IS NULL")
    company.joget.execute("DELETE FROM dir_employment WHERE id = 'boss'")
    assert company.joget.contents() == before
    assert company.run()["outcome"] == "nothing_to_do"
    company.pool.users = [ana, user(BOB)]
    assert counts(company.run()) == {"read": 2, "created": 1, "unchanged": 1}, (
        "the same sub may come back"
    )


def test_delete_waits_for_its_days_and_deactivates_meanwhile(company: Company) -> None:
    company.configure(policies={"missing_user": "delete", "delete_after_days": 2})
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    company.pool.users = [user(BOB)]
    company.run()
    assert counts(company.run())["deactivated"] == 1
    company.let_hours_pass(47)
    company.run()
    assert company.usernames() == [ANA, BOB]
    company.let_hours_pass(2)
    assert counts(company.run())["deleted"] == 1
    assert company.usernames() == [BOB]


def test_a_user_missing_in_joget_too_is_unlinked(company: Company) -> None:
    company.pool.users = [user(ANA), user(BOB)]
    company.run()
    for table, column in (
        ("dir_user_role", "userId"),
        ("dir_employment", "userId"),
        ("dir_user", "id"),
    ):
        company.joget.execute(f"DELETE FROM {table} WHERE {column} = %s", (ANA,))
    company.pool.users = [user(BOB)]
    company.run()
    company.run()
    assert counts(company.run()) == {"read": 1, "unchanged": 1}


# 9. Vanished groups


def test_a_vanished_group_loses_our_memberships_after_two_misses_and_stays(
    company: Company,
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob], "Board": [ana]}
    company.run()
    company.joget.execute("INSERT INTO dir_user_group (groupId, userId) VALUES ('Board', 'cat')")
    company.pool.members = {"Sales": [ana, bob]}
    report = company.run()
    assert counts(report, "groups") == {"read": 1, "unchanged": 1, "missing": 1}
    assert (ANA, "Board") in company.memberships()
    assert counts(company.run(), "memberships") == {"read": 2, "removed": 1, "unchanged": 2}
    assert company.memberships() == {(ANA, "Sales"), (BOB, "Sales"), ("cat", "Board")}
    company.pool.members["Board"] = [ana]
    assert counts(company.run(), "memberships") == {"read": 3, "added": 1, "unchanged": 2}


def test_a_vanished_group_is_deleted_only_where_asked_and_without_local_members(
    company: Company,
) -> None:
    company.configure(policies={"missing_group": "delete"})
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": [ana]}
    company.run()
    company.joget.execute("INSERT INTO dir_user_group (groupId, userId) VALUES ('Board', 'cat')")
    company.pool.members = {}
    company.run()
    report = company.run()
    assert counts(report, "groups") == {"missing": 2, "deleted": 1}
    assert company.joget.column("SELECT id FROM dir_group WHERE id <> 'managers'") == ["Board"]
    assert company.memberships() == {("cat", "Board")}
    assert company.run()["outcome"] == "nothing_to_do"
    company.pool.members = {"Sales": [ana]}
    assert counts(company.run(), "groups") == {"read": 1, "created": 1, "missing": 1}


def test_a_group_deleted_while_it_is_listed_counts_as_one_miss(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": [ana]}
    company.run()
    company.faults.vanishing_group = "Sales"
    assert company.run()["groups"]["missing"] == 1
    company.faults.vanishing_group = ""
    company.run()
    company.faults.vanishing_group = "Sales"
    company.run()
    assert company.memberships() == {(ANA, "Sales"), (ANA, "Board")}


@pytest.mark.parametrize("why", ["excluded", "kept"])
def test_a_vanished_group_with_a_member_who_takes_no_part_is_kept(
    company: Company, why: str
) -> None:
    company.configure(policies={"missing_group": "delete", "missing_user": "keep"})
    ana, bob = user(ANA), user(BOB)
    company.pool.users, company.pool.members = [ana, bob], {"Sales": [ana, bob]}
    company.run()
    if why == "excluded":
        company.configure(scope={"exclude_users": [ANA]})
    else:
        company.pool.users = [bob]
    company.pool.members = {}
    company.run()
    report = company.run()
    assert counts(report, "groups") == {"missing": 1}
    assert company.memberships() == {(ANA, "Sales")}


def test_presence_ends_a_row_of_misses_even_for_frozen_and_held_users(company: Company) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob, user(EVE)]
    company.run()
    company.pool.users = [user(EVE)]
    company.run()
    company.configure(scope={"exclude_users": [ANA]})
    company.pool.users = [ana, user("bob.2@example.org", sub=sub_of(bob)), user(EVE)]
    company.run()
    assert company.joget.column("SELECT misses FROM directory_sync_user_link") == [0, 0, 0]
    company.configure(scope={"exclude_users": []})
    company.pool.users = [user(EVE)]
    company.run()
    assert company.active() == [ANA, BOB, EVE]


# 10. Memberships


def test_memberships_of_a_frozen_user_found_at_a_groups_adoption_stay_the_administrators(
    company: Company,
) -> None:
    ana = user(ANA)
    company.pool.users = [ana]
    company.run()
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (ANA,)
    )
    company.configure(scope={"exclude_users": [ANA]})
    company.pool.members = {"Sales": []}
    assert counts(company.run(), "groups") == {"read": 1, "adopted": 1}
    company.configure(scope={"exclude_users": []})
    company.run()
    assert company.memberships() == {(ANA, "Sales")}


def test_a_group_that_is_adopted_a_second_time_is_no_conflict(company: Company) -> None:
    company.joget.add_user(ANA)
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (ANA,)
    )
    company.pool.users, company.pool.members = [user(ANA)], {"Sales": []}
    for _ in range(2):
        run_id = company.run()["run_id"]
        company.undo(run_id)
        company.joget.execute("DELETE FROM directory_sync_decision")
    company.run()
    company.run()
    assert company.memberships() == {(ANA, "Sales")}


def test_a_users_memberships_are_held_together(company: Company) -> None:
    staff = people(40)
    company.pool.users, company.pool.members = staff, {"Old": staff[:30], "New": []}
    company.run()
    company.pool.members = {"Old": [], "New": staff[:30] + staff[35:]}
    report = company.run()
    assert causes(report) == {"removed_memberships_percent": 60}
    assert counts(report, "memberships") == {"read": 35, "added": 5, "held": 60}
    assert {user_id for user_id, group in company.memberships() if group == "New"} == {
        f"person{number:03}@example.org" for number in range(35, 40)
    }


def test_the_hold_names_no_login(company: Company) -> None:
    company.pool.users = people(20)
    company.run()
    gone = [sub_of(person) for person in company.pool.users[:19]]
    company.pool.users = company.pool.users[19:]
    company.run()
    company.run()
    review_id = company.ask()
    assert review_id
    from directory_sync.tasks import review

    question = review.read_question("default", review_id, by_hand=False)
    assert question
    assert "19 changes, 19 of 20 users; 95 is beyond the limit of 5" in question.body
    assert all(f"`{sub}`" in question.body for sub in gone)
    assert "@example.org" not in question.subject + question.body
