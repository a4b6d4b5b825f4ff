"""Rules in combination: nobody loses or keeps access by mistake, and no fault reaches beyond its
own row.
"""

import itertools
from typing import Any

import pytest

from directory_sync.joget import database
from directory_sync.tasks import review
from tests.company import Company, causes, counts, people
from tests.directory_sync.joget.test_writing import interfere
from tests.directory_sync.plan.test_matching import rename_user
from tests.stand_in import OTHER_POOL_ID, sub_of, user

ANA, BOB, EVE, NEW = "ana@example.org", "bob@example.org", "eve@example.org", "ana.lima@example.org"

REFUSE_SALES = (
    "CREATE TRIGGER no_sales BEFORE INSERT ON dir_user_group FOR EACH ROW "
    "BEGIN IF NEW.groupId = 'Sales' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF; "
    "END"
)


# One record never stops a run (rule 8)


@pytest.mark.parametrize("members", [1, 2])
def test_a_group_that_the_database_keeps_from_deletion_stops_nobody(
    company: Company, members: int
) -> None:
    company.configure(policies={"missing_runs": 1, "missing_group": "delete"}, limits={"floor": 50})
    staff = people(4)
    company.pool.users, company.pool.members = staff, {"Sales": staff, "Old": staff[:members]}
    company.run()
    company.joget.execute(
        "CREATE TABLE app_fd (id INT PRIMARY KEY, g VARCHAR(255), FOREIGN KEY (g) REFERENCES "
        "dir_group (id))"
    )
    company.joget.execute("INSERT INTO app_fd VALUES (1, 'Old')")
    company.pool.users.append(user(NEW))
    staff[0]["Enabled"] = False
    del company.pool.members["Old"]
    company.run()
    report = company.run()
    assert NEW in company.usernames()
    assert "person000@example.org" not in company.active()
    assert counts(report, "groups")["deferred"] == 1
    assert ("person000@example.org", "Sales") not in company.memberships()


def test_one_of_two_users_is_left_out_if_only_both_together_are_refused(company: Company) -> None:
    company.joget.execute("ALTER TABLE dir_user ADD UNIQUE KEY one_email (email)")
    company.configure(mapping={"username": "sub"})
    company.pool.users = [user(ANA, sub="aaa1"), user(ANA, sub="aaa2"), user(BOB, sub="aaa3")]
    assert counts(company.run()) == {"read": 3, "created": 2, "deferred": 1}
    assert "aaa3" in company.usernames()


def test_refused_memberships_of_a_group_cost_nobody_other_memberships(
    company: Company,
) -> None:
    company.configure(limits={"floor": 500})
    staff = people(60)
    company.pool.users, company.pool.members = staff, {"Sales": [], "Other": []}
    company.run()
    company.joget.execute(REFUSE_SALES)
    company.pool.members = {"Sales": staff, "Other": staff[:2]}
    report = company.run()
    assert company.memberships() == {
        ("person000@example.org", "Other"),
        ("person001@example.org", "Other"),
    }
    assert report["memberships"]["deferred"] == 60


@pytest.mark.parametrize(
    "lock",
    [
        "UPDATE dir_group SET description = 'x' WHERE id = 'Sales'",
        "UPDATE dir_user SET email = 'x' WHERE id = 'person000@example.org'",
        "DELETE FROM dir_user_group WHERE userId = 'person000@example.org' AND groupId = 'Left'",
    ],
    ids=["group", "user", "membership"],
)
def test_locked_rows_around_a_membership_keep_no_disabled_user_in(
    company: Company, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 1)
    staff = people(3)
    company.pool.users, company.pool.members = staff, {"Sales": [], "Other": [], "Left": staff[:1]}
    company.run()
    console = company.joget.server.connect(company.joget.name)
    console.autocommit(False)
    console.cursor().execute(lock)
    staff[2]["Enabled"] = False
    company.pool.members = {"Sales": staff[:1], "Other": staff[1:2], "Left": []}
    try:
        company.run()
    finally:
        console.rollback()
    assert "person002@example.org" not in company.active()
    assert ("person001@example.org", "Other") in company.memberships()
    company.run()
    assert company.memberships() == {
        ("person000@example.org", "Sales"),
        ("person001@example.org", "Other"),
    }


def test_a_membership_that_an_administrator_removes_during_the_load_is_no_fault(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.joget.add_user(ANA)
    company.pool.users, company.pool.members = [user(BOB)], {"Sales": [user(BOB)]}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (ANA,)
    )
    company.pool.users = [user(ANA), user(BOB), user(EVE)]
    remove = "DELETE FROM dir_user_group WHERE userId = %s"
    interfere(monkeypatch, iter([lambda: company.joget.execute(remove, (ANA,))]))
    assert counts(company.run()) == {"read": 3, "created": 1, "adopted": 1, "unchanged": 1}


def test_a_second_account_that_was_used_during_the_load_is_not_taken_away(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.add_user(NEW)
    company.pool.users = [rename_user(user(ANA), NEW)]
    company.run()
    review_id = company.ask()
    assert review_id
    grant = "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)"
    interfere(monkeypatch, iter([lambda: company.joget.execute(grant, (NEW,))]))
    company.answer(review_id, "approve")
    assert company.usernames() == [NEW, ANA]


# Enabled again, disabled, excluded (rule 4)


@pytest.mark.parametrize("occupied", [False, True])
def test_a_user_who_is_enabled_again_with_another_login_is_let_in_under_the_old_one(
    company: Company, occupied: bool
) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    ana["Enabled"] = False
    company.run()
    if occupied:
        company.joget.add_user(NEW, password="local")
    new = rename_user(ana, NEW)
    company.pool.users, company.pool.members = [new], {"Sales": [new]}
    report = company.run()
    assert causes(report) == ({"occupied_login": 1} if occupied else {"renamed_user": 1})
    assert ANA in company.active()
    assert company.memberships() == {(ANA, "Sales")}
    if not occupied:
        review_id = company.ask()
        assert review_id
        company.answer(review_id, "approve")
        assert (company.active(), company.memberships()) == ([NEW], {(NEW, "Sales")})


def test_a_login_changed_to_an_excluded_one_protects_nobody(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    company.configure(
        scope={"exclude_users": ["ceo@example.org"]}, policies={"renamed_user": "rename"}
    )
    new = rename_user(ana, "ceo@example.org")
    company.pool.users, company.pool.members = [new], {"Sales": [new]}
    assert causes(company.run()) == {"occupied_login": 1}
    new["Enabled"] = False
    company.run()
    assert (company.active(), company.memberships()) == ([], set())


# Answers (rule 13)


@pytest.mark.parametrize("answer", ["undone", "rejected"])
def test_an_answer_about_a_membership_that_is_no_longer_named_keeps_no_disabled_user_in_it(
    company: Company, answer: str
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.configure(
        limits={"floor": 0, "removed_memberships_percent": 0 if answer == "rejected" else 100}
    )
    company.pool.users = [ana, bob]
    company.pool.members = {"Sales": [ana, bob], "Board": [ana, bob]}
    company.run()
    company.pool.members = {"Sales": [ana, bob], "Board": [bob]}
    run_id = company.run()["run_id"]
    if answer == "undone":
        company.undo(run_id)
    else:
        review_id = company.ask()
        assert review_id
        company.answer(review_id, "reject")
    company.configure(limits={"floor": 10, "removed_memberships_percent": 100})
    assert causes(company.run()) == {answer: 1}
    ana["Enabled"] = False
    company.run()
    company.run()
    assert company.memberships() == {(BOB, "Sales"), (BOB, "Board")}


def test_no_answer_releases_a_rename_to_a_login_that_two_users_want(company: Company) -> None:
    ana, bob, eve = user(ANA), user(BOB), user(EVE)
    company.pool.users = [ana, bob, eve]
    company.run()
    company.pool.users = [rename_user(ana, NEW), bob, eve]
    company.run()
    first = company.ask()
    assert first
    company.answer(first, "reject")
    company.pool.users = [
        rename_user(ana, NEW),
        rename_user(bob, NEW),
        rename_user(eve, "eve.x@example.org"),
    ]
    company.run()
    mine = review.get_review_id("manual__1", {})
    assert review.read_question("default", mine, by_hand=True)
    company.answer(mine, "approve")
    assert company.usernames() == [ANA, BOB, "eve.x@example.org"]


# Undo


def test_an_undo_keeps_what_somebody_edits_meanwhile(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.configure(limits={"changed_users_percent": 100})
    company.pool.users = people(4)
    company.run()
    company.configure(user_pool_id=OTHER_POOL_ID)
    company.pool.users = [
        user(f"person{at:03}@example.org", sub=f"new-{at:03}", family_name="New") for at in range(4)
    ]
    run_id = company.run()["run_id"]
    numbers = itertools.count()

    def edit() -> None:
        login = f"person{next(numbers):03}@example.org"
        company.joget.execute("UPDATE dir_user SET lastName = 'admin' WHERE id = %s", (login,))

    interfere(monkeypatch, iter([edit, edit]))
    company.undo(run_id)
    assert company.user("person001@example.org")["lastName"] == "admin"


def test_an_undo_of_a_run_id_applied_twice_leaves_another_runs_rename(company: Company) -> None:
    company.configure(policies={"renamed_user": "rename"})
    ana = user(ANA)
    company.pool.users = [ana, user(BOB)]
    company.run()
    company.pool.users = [user(ANA, given_name="X"), user(BOB)]
    run_id = company.run()["run_id"]
    company.pool.users = [rename_user(ana, NEW, given_name="X"), user(BOB)]
    company.run()
    company._numbers = itertools.count(1)
    company.pool.users = [rename_user(ana, NEW, given_name="Y"), user(BOB)]
    assert company.run()["run_id"] == run_id
    company._numbers = itertools.count(50)
    company.undo(run_id)
    assert company.usernames() == [NEW, BOB]
    assert company.user(NEW)["firstName"] == "X"


def test_an_undo_changes_nothing_of_a_user_who_got_role_admin(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    ana["Enabled"] = False
    company.run()
    ana["Enabled"] = True
    run_id = company.run()["run_id"]
    company.joget.execute(
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)", (ANA,)
    )
    assert set(causes(company.undo(run_id))) == {"changed_since"}
    assert (company.active(), company.memberships()) == ([ANA], {(ANA, "Sales")})


@pytest.mark.parametrize("lost", ["group", "user"])
def test_an_undo_brings_back_no_membership_of_a_user_or_group_that_is_out(
    company: Company, lost: str
) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob]
    company.pool.members = {"Sales": [ana, bob], "Old": [ana, bob]}
    company.run()
    company.pool.members = {"Sales": [ana, bob], "Old": []}
    run_id = company.run()["run_id"]
    if lost == "group":
        company.joget.execute("DELETE FROM dir_group WHERE id = 'Old'")
    else:
        ana["Enabled"] = False
        company.run()
    report = company.undo(run_id)
    assert causes(report) == {"changed_since": 2 if lost == "group" else 1}
    assert (ANA, "Old") not in company.memberships()


# Runs for some users


@pytest.mark.parametrize("policy", ["keep", "sync"])
def test_a_membership_that_the_pool_names_is_ours_even_if_the_adoption_leaves_the_user_alone(
    company: Company, policy: str
) -> None:
    company.configure(policies={"existing_memberships": policy})
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob]
    company.run()
    company.pool.members = {"Sales": [ana, bob]}
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('Sales', 'Sales', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (groupId, userId) VALUES ('Sales', %s)", (BOB,)
    )
    company.run(users=[ANA])
    company.pool.members = {"Sales": [ana]}
    company.run()
    company.run()
    assert company.memberships() == {(ANA, "Sales")}


@pytest.mark.parametrize("others", ["rename", "twin", "stranger"])
def test_a_run_for_some_users_gives_no_login_that_another_user_wants(
    company: Company, others: str
) -> None:
    company.configure(policies={"renamed_user": "rename"})
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob]
    company.run()
    asked: Any = sub_of(ana)
    if others == "rename":
        company.pool.users = [rename_user(ana, NEW), rename_user(bob, NEW)]
    elif others == "twin":
        company.pool.users, asked = [ana, bob, user(NEW), user(NEW, sub="other")], "other"
    else:
        company.pool.users, asked = (
            [rename_user(ana, NEW), bob, user(NEW, sub="stranger")],
            "stranger",
        )
    before = company.joget.contents()
    company.run(users=[asked])
    assert company.joget.contents() == before
