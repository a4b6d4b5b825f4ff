"""A company's history, after which the ledger holds something of every kind."""

from tests.company import Company
from tests.stand_in import sub_of, user


def email_of(name: str) -> str:
    return f"{name}@example.org"


def make_history(company: Company) -> None:
    """Run, review and undo, until the ledger has links in each state, one of them with a miss and
    one that is history, retired logins, answers of each kind, a local membership, and an open
    review.

    No character is beyond U+FFFF, so that Joget DX 7 can store all of them.
    """
    people = {
        name: user(email_of(name))
        for name in ("ana", "bob", "cid", "dora", "eve", "finn", "gus", "sso")
    }
    pool = company.pool
    company.joget.add_user(email_of("sso"))
    company.joget.execute(
        "INSERT INTO dir_group (id, name, organizationId) VALUES ('local', 'local', 'ORG-001')"
    )
    company.joget.execute(
        "INSERT INTO dir_user_group (userId, groupId) VALUES (%s, 'local')", (email_of("sso"),)
    )

    pool.users = list(people.values())
    pool.members = {
        "Sales": pool.users,
        "Vertrieb/Süd 部": [people["ana"], people["dora"]],
        "local": [],
    }
    company.run()

    people["ana"] = user(email_of("ana.lima"), sub=sub_of(people["ana"]))
    people["bob"]["Enabled"] = False
    pool.users = list(people.values())
    pool.members = {
        "Sales": pool.users,
        "Vertrieb/Süd 部": [people["ana"], people["dora"]],
        "local": [],
    }
    _run_and_answer(company, "approve")

    people["cid"] = user(email_of("cid.rejected"), sub=sub_of(people["cid"]))
    pool.users = list(people.values())
    _run_and_answer(company, "reject")

    people["dora"] = user(email_of("dora"), family_name="Undone")
    people["hal"] = user(email_of("hal"))
    pool.users = list(people.values())
    company.undo(str(company.run()["run_id"]))

    del people["eve"]
    _keep_only(company, people)
    company.run()
    company.run(users=[email_of("dora")])

    company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (email_of("gus"),))
    del people["finn"]
    people["dora"] = user(email_of("dora.open"), sub=sub_of(people["dora"]))
    _keep_only(company, people)
    company.run()
    assert company.ask()


def _keep_only(company: Company, people: dict[str, object]) -> None:
    company.pool.users = list(people.values())
    stay = {sub_of(one) for one in company.pool.users}
    company.pool.members = {
        name: [one for one in members if sub_of(one) in stay]
        for name, members in company.pool.members.items()
    }


def _run_and_answer(company: Company, answer: str) -> None:
    company.run()
    review_id = company.ask()
    assert review_id
    company.answer(review_id, answer)
