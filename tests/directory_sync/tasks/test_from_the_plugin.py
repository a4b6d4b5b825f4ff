"""Moving in from the Joget plugin: the way that docs/from-the-plugin.md describes."""

import re
from typing import Any

import pytest

from directory_sync.pages import run_summary
from directory_sync.report import Report
from tests.company import Company, causes, counts, people
from tests.conftest import ROOT
from tests.plugin_directory import PluginDirectory
from tests.stand_in import sub_of, user

FIRST = {"existing_group": "adopt", "existing_memberships": "sync", "left_over": "ask"}
BACK = {"existing_group": "careful", "existing_memberships": "keep"}

GUIDE = ROOT / "docs/from-the-plugin.md"

LOCAL_TABLES = (
    "dir_department",
    "dir_employment",
    "dir_employment_report_to",
    "dir_grade",
    "dir_user_meta",
)
EVE, ANA = "eve@example.org", "ana@example.org"


class Movers:
    """A company of 500, of which 450 people stayed: 20 left, 29 never confirmed, and one has no
    email.
    """

    def __init__(self, company: Company) -> None:
        self.company, self.plugin = company, PluginDirectory(company.joget)
        self.stayed = people(450)
        self.leavers = people(20, "leaver")
        self.unconfirmed = [
            user(f"waiting{number:02}@example.org", status="UNCONFIRMED") for number in range(29)
        ]
        self.nameless = user("", given_name=None)
        self.members: dict[str, list[Any]] = {
            f"Team{number}" if number else "Sales Team": self.stayed[number::8]
            for number in range(8)
        }
        self.members["Drivers"] = self.stayed[::5]
        self.members["Team1"] += self.leavers + self.unconfirmed[:5]

    def fill(self) -> None:
        """Do the plugin's last run, then an administrator's work, then changes in the pool."""
        everybody = [*self.stayed, *self.leavers, *self.unconfirmed, self.nameless]
        self.plugin.sync(everybody, self.members)
        for statement in (
            "INSERT INTO dir_group (id, name) VALUES ('Chess', 'Chess')",
            "INSERT INTO dir_user_group SELECT 'Chess', id FROM dir_user WHERE id LIKE "
            "'%0@example.org'",
            "INSERT INTO dir_department (id, name, organizationId, hod) SELECT CONCAT('D', u.id), "
            "'D', 'ORG-001', "
            "MIN(e.id) FROM dir_user u JOIN dir_employment e ON e.userId = u.id WHERE u.id LIKE "
            "'%5@example.org' "
            "GROUP BY u.id",
            "UPDATE dir_employment e JOIN dir_department d ON d.hod = e.id SET e.departmentId = "
            "d.id",
            "INSERT INTO dir_employment_report_to (employmentId, reportToId) SELECT a.id, "
            "MIN(b.id) FROM "
            "dir_employment a JOIN dir_employment b ON b.userId = 'person005@example.org' "
            "WHERE a.userId LIKE '%7@example.org' GROUP BY a.id",
            "INSERT INTO dir_user_meta SELECT id, 'theme', 'dark' FROM dir_user WHERE id LIKE "
            "'person%'",
        ):
            self.company.joget.execute(statement)
        pool = self.company.pool
        pool.users = [*self.stayed, *self.unconfirmed, self.nameless]
        leaving = {sub_of(one) for one in self.leavers}
        pool.members = {
            name: [one for one in inside if sub_of(one) not in leaving]
            for name, inside in self.members.items()
        }
        pool.members["Team2"] = pool.members["Team2"][10:]

    def read_local_rows(self) -> dict[str, list[str]]:
        """Read what no sync may touch, to compare byte for byte."""
        contents = self.company.joget.contents()
        chess = [row for row in contents["dir_user_group"] if "Chess" in row]
        return {"Chess": chess, **{table: contents[table] for table in LOCAL_TABLES}}

    def list_named_memberships(self) -> set[tuple[str, str]]:
        """List the memberships that the pool names for users in scope: pairs of login and group."""
        subs = {sub_of(one): one["Attributes"][1]["Value"] for one in self.stayed}
        pairs = (
            (sub_of(one), name)
            for name, inside in self.company.pool.members.items()
            for one in inside
        )
        return {(subs[sub], name) for sub, name in pairs if sub in subs}


@pytest.fixture
def movers(company: Company) -> Movers:
    movers = Movers(company)
    movers.fill()
    return movers


def test_the_whole_way_from_the_plugin_loses_nothing_local_and_asks_about_the_leavers(
    movers: Movers,
) -> None:
    company = movers.company
    company.configure(policies=FIRST)
    start, local = company.joget.contents(), movers.read_local_rows()

    dry = company.run(dry_run=True)
    assert company.joget.contents() == start
    assert counts(dry) == {"read": 480, "adopted": 450, "frozen": 29, "quarantined": 1, "held": 20}
    assert dry["left_over"] == {
        "leavers": 20,
        "out_of_scope": 29,
        "without_login": 1,
        "employed_twice": 90,
    }
    assert counts(dry, "groups") == {"read": 9, "adopted": 9}
    assert causes(dry) == {"left_over": 40}, "an account and a membership of each"

    first = company.run()
    same = ("users", "groups", "memberships", "left_over", "holds", "quarantine", "plan_sha256")
    assert {key: first[key] for key in same} == {key: dry[key] for key in same}
    second = company.run()
    assert counts(second, "memberships")["removed"] == 10, (
        "the memberships that the pool doesn't name any more"
    )
    company.configure(policies=BACK)
    assert company.run()["outcome"] == "nothing_to_do"
    in_pool_groups = {
        pair
        for pair in company.memberships()
        if pair[0].startswith("person") and pair[1] != "Chess"
    }
    assert in_pool_groups == movers.list_named_memberships()
    assert movers.read_local_rows() == local
    assert len(company.active()) == 500
    zones = company.joget.column(
        "SELECT DISTINCT timeZone FROM dir_user WHERE id NOT IN ('admin', 'cat')"
    )
    assert zones == ["0"]
    assert company.joget.column("SELECT id FROM dir_group WHERE name = 'Sales Team'") == [
        "Sales Team"
    ]


def test_left_over_accounts_are_deactivated_when_a_person_approves_and_an_undo_gives_them_back(
    movers: Movers,
) -> None:
    company = movers.company
    company.configure(policies=FIRST)
    company.run()
    before, local = company.joget.contents(), movers.read_local_rows()
    review_id = company.ask()
    assert review_id
    answered = company.answer(review_id, "approve")
    assert (counts(answered)["deactivated"], answered["left_over"]["leavers"]) == (20, 0)
    assert not [login for login in company.active() if login.startswith("leaver")]
    assert [
        pair
        for pair in company.memberships()
        if pair[0].startswith("leaver") and pair[1] != "Chess"
    ] == []
    assert movers.read_local_rows() == local
    assert "waiting00@example.org" in company.active(), "a user in the pool is no leaver"
    company.configure(policies={"missing_user": "delete", "missing_runs": 1})
    company.run()
    assert causes(company.run()) == {}
    assert company.user("leaver001@example.org")["active"] == 0, "nobody approved a deletion"
    company.undo(answered["run_id"])
    after = company.joget.contents()
    kept = [table for table in before if table != "dir_user_group"]
    assert {table: after[table] for table in kept} == {table: before[table] for table in kept}
    assert {row for row in before["dir_user_group"] if "leaver" in row} <= set(
        after["dir_user_group"]
    )
    assert causes(company.run()) == {"undone": 40}
    assert company.ask() is None


def test_a_plugin_that_still_runs_shows_in_the_memberships_and_an_emptied_organization_is_held(
    movers: Movers,
) -> None:
    company = movers.company
    company.configure(policies=FIRST)
    company.run()
    company.configure(policies={"left_over": "keep", **BACK})
    movers.plugin.sync(company.pool.users, company.pool.members)
    report = company.run()
    assert (causes(report), counts(report, "memberships")["added"]) == ({}, 88)
    assert report["left_over"]["employed_twice"] == 88
    movers.plugin.empty()
    report = company.run()
    assert counts(report)["held"] == 450
    assert causes(report) == {"changed_users_percent": 1880}
    assert f"> {run_summary.make_headline(Report.model_validate(report))}\n" in GUIDE.read_text(
        encoding="utf-8"
    )


# Small directories


@pytest.fixture
def small(company: Company) -> Company:
    """Ana is in the pool; Eve left it, and the plugin left her account."""
    PluginDirectory(company.joget).sync([user(ANA), user(EVE)], {"Sales": [user(ANA), user(EVE)]})
    company.pool.users, company.pool.members = [user(ANA)], {"Sales": [user(ANA)]}
    company.configure(policies={"existing_group": "adopt"})
    return company


def test_left_over_accounts_are_only_listed_by_default_and_named_only_in_staging(
    small: Company,
) -> None:
    before = small.user(EVE)
    report = small.run()
    assert (causes(report), report["left_over"]["leavers"], report["users"]["missing"]) == (
        {},
        1,
        0,
    )
    directory = small.staged("directory.parquet")
    listed = directory[directory["code"] == "left_over"]
    assert listed[["joget_id", "outcome", "listed"]].to_numpy().tolist() == [
        [EVE, "left_over", False]
    ]
    assert EVE not in str(report)
    assert EVE not in listed["sub"].iloc[0]
    assert (small.user(EVE), small.ask()) == (before, None)


@pytest.mark.parametrize(
    "reason",
    [
        "UPDATE dir_user SET password = 'x' WHERE id = %s",
        "UPDATE dir_user SET active = 0 WHERE id = %s",
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)",
        "DELETE FROM dir_employment WHERE userId = %s",
    ],
)
def test_other_accounts_are_not_left_over(small: Company, reason: str) -> None:
    small.configure(policies={"left_over": "ask"})
    small.joget.execute(reason, (EVE,))
    report = small.run()
    assert (causes(report), report["left_over"]["leavers"]) == ({}, 0)


@pytest.mark.parametrize(
    "eve",
    [
        user("Eve@Example.org"),
        user("EVE@example.org", status="UNCONFIRMED"),
        user(EVE, enabled=False),
        user(EVE, given_name="x" * 300),
        user(f"{EVE};", sub="1"),
    ],
)
def test_a_user_that_the_pool_has_in_any_state_is_no_leaver(small: Company, eve: Any) -> None:
    if sub_of(eve) == "1":
        PluginDirectory(small.joget, [ANA, EVE]).sync([user(ANA), eve], {})
    small.pool.users = [user(ANA), eve]
    small.configure(policies={"left_over": "ask"})
    report = small.run()
    assert (report["complete"], report["left_over"]["leavers"], causes(report)) == (True, 0, {})


def test_an_incomplete_snapshot_and_a_run_for_some_users_list_nobody_as_left_over(
    small: Company,
) -> None:
    small.configure(policies={"left_over": "ask"})
    assert small.run(users=[ANA])["left_over"]["leavers"] == 0
    small.faults.estimate = "500"
    report = small.run()
    assert (report["complete"], report["left_over"]["leavers"], causes(report)) == (False, 0, {})


def test_a_leaver_who_comes_back_gets_the_deactivated_account_when_a_person_approves_it(
    small: Company,
) -> None:
    small.configure(policies={"left_over": "ask"})
    small.run()
    small.answer(str(small.ask()), "approve")
    assert (small.active(), small.memberships()) == ([ANA], {(ANA, "Sales")})
    assert small.run()["outcome"] == "nothing_to_do"
    small.pool.users = [user(ANA), user(EVE)]
    small.pool.members = {"Sales": small.pool.users}
    assert causes(small.run()) == {"new_sub": 2}
    small.answer(str(small.ask()), "approve")
    assert (small.active(), small.memberships()) == ([ANA, EVE], {(ANA, "Sales"), (EVE, "Sales")})


def test_a_rejected_left_over_account_stays_and_nobody_is_asked_again(small: Company) -> None:
    small.configure(policies={"left_over": "ask"})
    small.run()
    small.answer(str(small.ask()), "reject")
    assert causes(small.run()) == {"rejected": 2}
    assert (small.ask(), small.active()) == (None, [ANA, EVE])


def test_a_left_over_account_that_somebody_changes_while_it_is_approved_stays(
    small: Company,
) -> None:
    small.configure(policies={"left_over": "ask"})
    small.run()
    review_id = str(small.ask())
    small.joget.execute("UPDATE dir_user SET lastName = 'new' WHERE id = %s", (EVE,))
    report = small.answer(review_id, "approve")
    assert report["review"]["changed_since"] == 2
    assert small.active() == [ANA, EVE]


def test_a_user_imported_as_disabled_by_the_plugin_is_let_in_once_the_pool_enables_them(
    small: Company,
) -> None:
    disabled = user(EVE, enabled=False)
    PluginDirectory(small.joget, [ANA, EVE]).sync(
        [user(ANA), disabled], {"Sales": [user(ANA), disabled]}
    )
    small.pool.users = [user(ANA), disabled]
    small.run()
    assert small.active() == [ANA]
    small.pool.users, small.pool.members = [user(ANA), user(EVE)], {"Sales": [user(ANA), user(EVE)]}
    assert counts(small.run()) == {"read": 2, "reactivated": 1, "unchanged": 1}
    assert (small.active(), small.memberships()) == ([ANA, EVE], {(ANA, "Sales"), (EVE, "Sales")})


def test_a_user_with_several_employments_keeps_them_all_when_renamed_and_undone(
    small: Company,
) -> None:
    small.configure(policies={"renamed_user": "rename"})
    PluginDirectory(small.joget, [ANA, EVE]).sync(
        [user(ANA)], {"Sales": [user(ANA)], "Board": [user(ANA)]}
    )
    small.pool.members = {"Sales": [user(ANA)], "Board": [user(ANA)]}
    assert small.run()["left_over"]["employed_twice"] == 1
    listing = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert [len(small.joget.execute(statement)) for statement in listing] == [2]
    before = small.joget.contents()
    small.pool.users = [user("new@example.org", sub=sub_of(user(ANA)))]
    small.pool.members = {"Sales": small.pool.users, "Board": small.pool.users}
    report = small.run()
    assert counts(report) == {"read": 1, "renamed": 1}
    assert (
        len(small.joget.column("SELECT id FROM dir_employment WHERE userId = 'new@example.org'"))
        == 2
    )
    small.undo(report["run_id"])
    assert small.joget.contents() == before
