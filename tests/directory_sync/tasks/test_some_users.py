"""Runs for some users: only these are read, from the pool, from Joget and from the ledger."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from directory_sync.errors import PermanentError
from directory_sync.tasks import extract, transform
from tests.company import Company, attempt, causes, counts, people
from tests.directory_sync.tasks.test_history import back_up, restore
from tests.stand_in import POOL_ID, get_value, sub_of, user

ANA, BOB, EVE, NEW = "ana@example.org", "bob@example.org", "eve@example.org", "new@example.org"


@pytest.fixture
def staffed(company: Company) -> Company:
    """A company with Ana and forty others in two groups, after a run for everybody."""
    ana, others = user(ANA), people(40)
    company.pool.users = [ana, *others]
    company.pool.members = {"Sales": [ana, *others[:20]], "Everybody": [ana, *others]}
    company.run()
    company.cognito.calls.clear()
    return company


def leave(company: Company, *logins: str) -> None:
    """Delete users from the pool."""
    for members in (company.pool.users, *company.pool.members.values()):
        members[:] = [one for one in members if get_value(one, "email") not in logins]


@pytest.mark.parametrize("name", [ANA, ANA.upper(), sub_of(user(ANA))])
def test_one_linked_user_costs_one_call_and_the_pages_of_their_groups(
    staffed: Company, name: str
) -> None:
    staffed.pool.users[0] = user(ANA, given_name="Anna")
    report = staffed.run(users=[name])
    assert counts(report) == {"read": 1, "updated": 1}
    assert staffed.cognito.calls == {"ListUsers": 1, "AdminListGroupsForUser": 1}
    assert staffed.user(ANA)["firstName"] == "Anna"


@pytest.mark.parametrize("named_by", ["email", "username", "sub"])
def test_a_newcomer_is_found_by_each_of_their_names(staffed: Company, named_by: str) -> None:
    newcomer = user(NEW) | {"Username": "okta_new"}
    staffed.pool.users.append(newcomer)
    staffed.pool.members["Sales"].append(newcomer)
    name = {"email": NEW, "username": "okta_new", "sub": sub_of(newcomer)}[named_by]
    assert counts(staffed.run(users=[name])) == {"read": 1, "created": 1}
    assert (NEW, "Sales") in staffed.memberships()


def test_a_newcomer_may_bring_a_group_that_joget_lacks(staffed: Company) -> None:
    newcomer = user(NEW)
    staffed.pool.users.append(newcomer)
    staffed.pool.members["Pilots"] = [newcomer]
    report = staffed.run(users=[NEW])
    assert counts(report, "groups") == {"read": 1, "created": 1}
    assert (NEW, "Pilots") in staffed.memberships()


@pytest.mark.parametrize("stranger", [False, True])
def test_a_group_of_jogets_is_adopted_only_if_every_member_is_linked(
    staffed: Company, stranger: bool
) -> None:
    staffed.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Pilots', 'Pilots', 'ORG-001')"
    )
    members = ["person007@example.org", *(["cat"] if stranger else [])]
    for member in members:
        staffed.joget.execute(
            "INSERT INTO dir_user_group (groupId, userId) VALUES ('Pilots', %s)", (member,)
        )
    staffed.pool.members["Pilots"] = [staffed.pool.users[0]]
    report = staffed.run(users=[ANA])
    assert set(causes(report)) == ({"existing_group"} if stranger else set())
    assert ((ANA, "Pilots") in staffed.memberships()) is not stranger


def test_a_named_user_who_is_gone_is_deactivated_at_once(staffed: Company) -> None:
    leave(staffed, ANA)
    report = staffed.run(users=[ANA])
    assert counts(report) == {"deactivated": 1, "missing": 1}
    assert staffed.user(ANA)["active"] == 0
    assert not [group for login, group in staffed.memberships() if login == ANA]
    assert counts(staffed.run())["missing"] == 1


def test_nobody_is_gone_on_one_answer(staffed: Company) -> None:
    ana = staffed.pool.users[0]
    find = staffed.pool.find_by_sub
    answers: Iterator[list[Any]] = iter([[]])
    staffed.pool.find_by_sub = (  # type: ignore[method-assign]
        lambda value, *, prefix: next(answers, find(value, prefix=prefix))
    )
    assert counts(staffed.run(users=[sub_of(ana)])) == {"read": 1, "unchanged": 1}


def test_many_named_leavers_are_held_by_the_limits(staffed: Company) -> None:
    leavers = [f"person{number:03}@example.org" for number in range(8)]
    leave(staffed, *leavers)
    report = staffed.run(users=leavers)
    assert causes(report)["removed_users_percent"] == 24
    assert [
        hold["figure"] for hold in report["holds"] if hold["cause"] == "removed_users_percent"
    ] == [pytest.approx(100 * 8 / 41, abs=0.01)]
    assert staffed.user(leavers[0])["active"] == 1


def test_what_a_run_for_some_users_held_is_applied_once_a_person_approves_it(
    staffed: Company,
) -> None:
    leavers = [f"person{number:03}@example.org" for number in range(8)]
    leave(staffed, *leavers)
    staffed.run(users=leavers)
    review_id = staffed.ask()
    assert review_id
    report = staffed.answer(review_id, "approve")
    assert report["review"]["applied"] == 24
    assert staffed.active() == sorted({*staffed.usernames()} - {*leavers})


def test_the_limits_are_shares_of_everybody_not_of_the_users_that_were_read(
    staffed: Company,
) -> None:
    movers = [f"person{number:03}@example.org" for number in range(7)]
    del staffed.pool.members["Sales"][1:8]
    report = staffed.run(users=movers)
    assert causes(report) == {}
    assert counts(report, "memberships")["removed"] == 7


def test_a_membership_goes_only_if_the_users_list_lacks_it_twice(staffed: Company) -> None:
    staffed.faults.first_listing_lacks_groups_of = frozenset({sub_of(user(ANA))})
    assert "removed" not in counts(staffed.run(users=[ANA]), "memberships")
    assert staffed.cognito.calls["AdminListGroupsForUser"] == 2
    staffed.pool.members["Sales"].pop(0)
    assert counts(staffed.run(users=[ANA]), "memberships")["removed"] == 1
    assert (ANA, "Sales") not in staffed.memberships()


def test_memberships_that_are_not_ours_stay(staffed: Company) -> None:
    staffed.configure(scope={"exclude_groups": ["Sales"]})
    staffed.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('managers', %s)", (ANA,)
    )
    for members in staffed.pool.members.values():
        members.pop(0)
    staffed.run(users=[ANA])
    kept = staffed.joget.column("SELECT groupId FROM dir_user_group WHERE userId = %s", (ANA,))
    assert sorted(kept) == ["Sales", "managers"]


def test_names_that_nobody_has_fail_before_anything_is_staged(company: Company) -> None:
    company.pool.users = [user(ANA)]
    with pytest.raises(PermanentError) as refusal:
        company.run(users=[ANA, "nobody@example.org", 'odd" name'])
    assert "line 2: nobody in the pool or in Joget; line 3: nobody" in str(refusal.value)
    assert "nobody@" not in str(refusal.value)
    assert list(company.staging_folder.rglob("*.parquet")) == []


def test_the_heir_of_a_leavers_login_waits_for_a_person(staffed: Company) -> None:
    leave(staffed, ANA)
    staffed.pool.users.append(user(ANA, sub="heir", given_name="Heir"))
    assert set(causes(staffed.run(users=["heir"]))) == {"new_sub"}
    assert staffed.user(ANA)["firstName"] == "Given"


def test_a_newcomer_with_the_login_of_somebody_listed_is_quarantined(staffed: Company) -> None:
    staffed.pool.users.append(user(ANA, sub="twin", given_name="Twin"))
    assert counts(staffed.run(users=["twin"])) == {"read": 1, "quarantined": 1}
    assert staffed.user(ANA)["firstName"] == "Given"


def test_a_disabled_user_is_deactivated(staffed: Company) -> None:
    staffed.pool.users[0] = user(ANA, enabled=False)
    assert counts(staffed.run(users=[ANA])) == {"read": 1, "deactivated": 1}


@pytest.mark.parametrize("policy", ["deactivate", "delete"])
def test_an_older_listing_never_brings_a_named_leaver_back(staffed: Company, policy: str) -> None:
    staffed.configure(policies={"missing_user": policy})
    older = staffed.prepare()
    leave(staffed, ANA)
    staffed.run(users=[ANA])
    before = staffed.joget.contents()
    assert counts(staffed.load(older))["frozen"] == 1
    assert staffed.joget.contents() == before


def test_a_named_user_whom_the_pool_still_had_keeps_what_an_older_listing_says_otherwise(
    staffed: Company,
) -> None:
    staffed.pool.users[0] = user(ANA, enabled=False)
    older = staffed.prepare()
    staffed.pool.users[0] = user(ANA)
    assert counts(staffed.run(users=[ANA])) == {"read": 1, "unchanged": 1}
    assert counts(staffed.load(older))["frozen"] == 1
    assert staffed.user(ANA)["active"] == 1


def test_a_named_leaver_is_deactivated_first_even_where_leavers_are_deleted(
    staffed: Company,
) -> None:
    staffed.configure(policies={"missing_user": "delete"})
    leave(staffed, ANA)
    assert counts(staffed.run(users=[ANA]))["deactivated"] == 1
    assert counts(staffed.run())["deleted"] == 1


def test_a_leaver_with_an_heir_keeps_their_account_until_a_person_decides(
    staffed: Company,
) -> None:
    staffed.configure(policies={"missing_user": "delete", "missing_runs": 1})
    leave(staffed, ANA)
    staffed.pool.users.append(user(ANA, sub="heir"))
    old = sub_of(user(ANA))
    for _ in range(3):
        staffed.run(users=[old])
    assert staffed.user(ANA)["active"] == 0


def test_nobody_named_is_removed_after_the_ledger_was_lost(staffed: Company) -> None:
    backup = back_up(staffed.joget)
    staffed.pool.users.append(user(NEW))
    staffed.run()
    restore(staffed.joget, backup)
    leave(staffed, ANA)
    before = staffed.joget.contents()
    report = staffed.run(users=[ANA])
    assert "was lost" in report["incomplete_reasons"][0]
    assert staffed.joget.contents() == before


def test_the_members_of_a_group_that_was_just_deleted_stay_for_now(staffed: Company) -> None:
    del staffed.pool.members["Sales"]
    staffed.run(users=[ANA])
    assert (ANA, "Sales") in staffed.memberships()


def test_local_members_of_a_group_dont_hide_that_it_is_emptied(staffed: Company) -> None:
    for number in range(100):
        local = f"local{number:03}"
        staffed.joget.add_user(local, password="hash")
        staffed.joget.execute(
            "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (local,)
        )
    movers = [f"person{number:03}@example.org" for number in range(12)]
    del staffed.pool.members["Sales"][1:13]
    assert set(causes(staffed.run(users=movers))) == {"emptied_group_percent"}


def test_a_user_deleted_while_they_are_read_keeps_what_they_have(staffed: Company) -> None:
    users = extract.extract_users(attempt("extract_users", "r"), "default", {"users": [ANA]}, {})
    leave(staffed, ANA)
    groups = extract.extract_groups(attempt("extract_groups", "r"), users.url)
    report = staffed.load(
        transform.transform_snapshot(attempt("transform", "r"), users.url, groups.url)
    )
    assert counts(report) == {"read": 1, "unchanged": 1}


def test_no_second_account_is_made_under_the_username_of_another(staffed: Company) -> None:
    for table, column in (
        ("dir_user_role", "userId"), ("dir_user_group", "userId"), ("dir_employment", "userId"),
        ("dir_user", "id"),
    ):  # fmt: skip
        staffed.joget.execute(f"DELETE FROM {table} WHERE {column} = %s", (ANA,))
    staffed.joget.execute(
        "INSERT INTO dir_user (id, username, active, password) VALUES ('U77', %s, 1, 'hash')",
        (ANA,),
    )
    assert counts(staffed.run(users=[ANA])) == {"read": 1, "quarantined": 1}
    assert staffed.usernames().count(ANA) == 1


def test_a_pool_that_takes_no_filter_says_so(staffed: Company) -> None:
    staffed.faults.filter = "refused"
    with pytest.raises(PermanentError, match="can't be asked for a user by sub"):
        staffed.run(users=[ANA])


def _change_nobody(_: Company) -> None:
    pass


def _change_many(company: Company) -> None:
    company.configure(policies={"renamed_user": "rename"})
    users, members = company.pool.users, company.pool.members
    users[1] = user("person000@example.org", given_name="Other")
    users[2] = user("renamed@example.org", sub=sub_of(users[2]))
    users[3] = user("person002@example.org", enabled=False)
    users[4] = user("a,b@example.org", sub=sub_of(users[4]))
    users += [user(NEW), user("twin@example.org", sub="a"), user("twin@example.org", sub="b")]
    members["Pilots"] = [users[0], users[1]]
    members["Sales"] = members["Sales"][5:]


@pytest.mark.parametrize("change", [_change_nobody, _change_many])
def test_a_run_that_names_everybody_does_what_a_run_for_everybody_would_do(
    staffed: Company, change: Callable[[Company], None]
) -> None:
    change(staffed)
    wanted = staffed.run(dry_run=True)
    report = staffed.run(users=[sub_of(member) for member in staffed.pool.users])
    for entity in ("users", "memberships"):
        assert counts(report, entity) == counts(wanted, entity)
    assert report["holds"] == wanted["holds"]
    assert counts(staffed.run())["unchanged"] == counts(staffed.run())["unchanged"]
    assert staffed.settings["user_pool_id"] == POOL_ID
