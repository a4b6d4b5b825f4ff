"""Holds and answers reach as far as they must and no further (rule 13)."""

import pandas as pd
import pytest

from directory_sync.errors import PermanentError
from directory_sync.joget.database import open_session
from directory_sync.joget.ledger import reviews, runs
from directory_sync.plan.answers import AnswerUpdate
from tests.company import Company, causes, counts, people
from tests.directory_sync.plan.test_matching import rename_user
from tests.directory_sync.tasks.test_history import forget_everything
from tests.stand_in import user

ANA, BOB, NEW = "ana@example.org", "bob@example.org", "ana.lima@example.org"


def test_a_rejected_rename_freezes_no_memberships(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": []}
    company.run()
    new = rename_user(ana, NEW)
    company.pool.users, company.pool.members = [new], {"Sales": [new], "Board": []}
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "reject")
    company.pool.members = {"Sales": [], "Board": [new]}
    assert causes(company.run()) == {"rejected": 1}
    assert company.memberships() == {(ANA, "Board")}


def test_an_undone_change_of_a_name_freezes_no_memberships(company: Company) -> None:
    ana = user(ANA, family_name="One")
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": []}
    company.run()
    company.pool.users = [user(ANA, family_name="Two")]
    company.undo(company.run()["run_id"])
    company.pool.members = {"Sales": [], "Board": [ana]}
    assert causes(company.run()) == {"undone": 1}
    assert (company.user(ANA)["lastName"], company.memberships()) == ("One", {(ANA, "Board")})


def test_an_undone_first_load_that_was_corrected_freezes_nothing(company: Company) -> None:
    staff = [user(f"person{at}@example.org", nickname="Nick") for at in range(3)]
    company.pool.users, company.pool.members = staff, {"Sales": staff}
    company.undo(company.run()["run_id"])
    assert company.usernames() == []
    report = company.run()
    assert set(causes(report)) == {"undone"}
    company.configure(mapping={"first_name": "nickname"})
    report = company.run()
    assert counts(report)["created"] == 3
    assert counts(report, "groups")["created"] == 1
    assert len(company.memberships()) == 3
    assert company.run()["outcome"] == "nothing_to_do"


def test_an_undone_group_stays_away_until_somebody_else_joins_it(company: Company) -> None:
    ana, bob = user(ANA), user(BOB)
    company.pool.users = [ana, bob]
    company.run()
    company.pool.members = {"Sales": [ana]}
    company.undo(company.run()["run_id"])
    assert set(causes(company.run())) == {"undone"}
    assert company.memberships() == set()
    company.pool.members = {"Sales": [ana, bob]}
    assert causes(company.run()) == {"undone": 1}
    assert company.memberships() == {(BOB, "Sales")}


def test_a_rejected_adoption_of_a_group_freezes_no_membership_once_the_group_is_free(
    company: Company,
) -> None:
    ana = user(ANA)
    company.joget.execute("INSERT INTO dir_group (id, name) VALUES ('Sales', 'Sales')")
    company.pool.users, company.pool.members = [ana], {"Sales": [ana]}
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "reject")
    assert set(causes(company.run())) == {"rejected"}
    company.joget.execute("DELETE FROM dir_group WHERE id = 'Sales'")
    company.run()
    assert company.memberships() == {(ANA, "Sales")}


def test_a_change_of_an_administrators_memberships_waits(company: Company) -> None:
    ana = user(ANA)
    company.pool.users, company.pool.members = [ana], {"Sales": [ana], "Board": []}
    company.run()
    company.joget.execute(
        "INSERT INTO dir_user_role (roleId, userId) VALUES ('ROLE_ADMIN', %s)", (ANA,)
    )
    company.pool.members = {"Sales": [], "Board": [ana]}
    assert causes(company.run()) == {"role_admin": 2}
    assert company.memberships() == {(ANA, "Sales")}


def test_an_answer_is_forgotten_once_nobody_asks_for_its_change(company: Company) -> None:
    company.configure(policies={"missing_runs": 1}, limits={"floor": 0})
    company.pool.users = people(10)
    company.run()
    company.pool.users = people(5)
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, "reject")
    count = "SELECT COUNT(*) FROM directory_sync_decision"
    assert company.joget.column(count) == [5]
    company.run()
    assert company.joget.column(count) == [5], "the changes are still planned"
    company.pool.users = people(9)
    company.run()
    assert company.joget.column(count) == [1]


def test_twenty_thousand_answers_are_forgotten_in_one_statement(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    hashes = [f"{at:064x}" for at in range(20_000)]
    given = pd.DataFrame(
        {"answer_sha256": hashes, "verdict": "rejected", "about": None, "decided_by": "review"}
    )
    with open_session("joget_mysql") as database:
        reviews.update_answers(database, "default", AnswerUpdate(given=given))
        statements: list[str] = []
        execute = type(database).execute

        def count_statements(
            self: object, statement: str, *arguments: object, **options: object
        ) -> object:
            statements.append(statement)
            return execute(database, statement, *arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(type(database), "execute", count_statements)
        reviews.update_answers(database, "default", AnswerUpdate(forgotten=tuple(hashes)))
    assert len([one for one in statements if one.startswith("DELETE")]) == 1
    assert company.joget.column("SELECT COUNT(*) FROM directory_sync_decision") == [0]


def test_a_changed_organization_is_refused_with_the_way_out(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    company.joget.execute("INSERT INTO dir_organization (id, name) VALUES ('ORG-2', 'Two')")
    company.configure(organization="ORG-2")
    before = company.joget.contents()
    with pytest.raises(PermanentError, match="Set organization back to 'ORG-001'"):
        company.run()
    assert company.joget.contents() == before
    assert company.run(dry_run=True)["outcome"] == "dry_run"


def test_a_changed_organization_is_refused_after_the_ledgers_loss_too(company: Company) -> None:
    company.pool.users = [user(ANA)]
    company.run()
    forget_everything(company.joget)
    company.joget.execute("INSERT INTO dir_organization (id, name) VALUES ('ORG-2', 'Two')")
    company.configure(organization="ORG-2")
    with pytest.raises(PermanentError, match="Set organization back to 'ORG-001'"):
        company.run()


def test_a_loss_of_members_in_920_groups_at_once_is_remembered(company: Company) -> None:
    ana, bob = user(ANA), user(BOB)
    company.configure(limits={"removed_memberships_percent": 100, "emptied_group_percent": 100})
    company.pool.users = [ana, bob]
    company.pool.members = {f"group-{at:03}": [ana, bob] for at in range(920)}
    company.run()
    company.pool.members = {name: [ana] for name in company.pool.members}
    report = company.run()
    assert report["memberships"]["removed"] == 920
    with open_session("joget_mysql") as database:
        from directory_sync.run import Run
        from directory_sync.settings import find_sync

        found = runs.count_recent_removals(
            database, Run(run_id="x", sync=find_sync("default"), dry_run=False)
        )
    assert (found.memberships, len(found.by_group)) == (920, 920)
