"""Any history: the pool and Joget change; runs begin, die and are repeated; people answer reviews
and undo runs.
"""

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from directory_sync.joget import writing
from directory_sync.plan.changes import hash_rows
from directory_sync.tasks import undo
from tests.company import Company, attempt, causes, counts, people
from tests.conftest import ROOT, JogetDatabase, new_company
from tests.stand_in import sub_of, user

NAMES = [f"user{number}" for number in range(8)]
GROUPS = ["Sales", "Board"]
MOMENTS = [
    "_take_turn",
    "_write_groups",
    "_write_users",
    "_write_memberships",
    "_write_ledger",
    "_verify",
]


class KilledError(BaseException):
    """Stands for the death of the process, so no code of ours catches it."""


class History(RuleBasedStateMachine):
    """One company from its first run on.

    After each run: no local row changed, nothing is left to do, nobody lost access that the pool
    gives, and nobody kept access that the pool took away.
    """

    new_joget: Callable[[str], JogetDatabase]

    @initialize(
        missing=st.sampled_from(["deactivate", "delete", "keep"]),
        renamed=st.sampled_from(["hold", "rename", "keep"]),
        floor=st.sampled_from([0, 5]),
    )
    def begin(self, missing: str, renamed: str, floor: int) -> None:
        self.exits = ExitStack()
        joget = type(self).new_joget("utf8mb4")
        patch = self.exits.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("AIRFLOW_CONN_JOGET_MYSQL", joget.server.uri(joget.name))
        folder = Path(self.exits.enter_context(tempfile.TemporaryDirectory()))
        self.company: Company = self.exits.enter_context(new_company(joget, folder, patch))
        self.company.configure(
            policies={"missing_user": missing, "renamed_user": renamed, "missing_group": "delete"},
            limits={"floor": floor},
        )
        joget.add_user("local@example.org", password="local")
        self.local = self.read_local_rows()
        self.company.pool.users = [user(f"{name}@example.org") for name in NAMES[:6]]
        self.company.pool.members = {"Sales": self.company.pool.users[:3]}
        self.run_ids: list[str] = []
        self.asked: str | None = None

    def teardown(self) -> None:
        if hasattr(self, "exits"):
            self.exits.close()

    def read_local_rows(self) -> list[str]:
        rows = self.company.joget.execute(
            "SELECT * FROM dir_user WHERE id IN ('admin', 'cat', 'local@example.org')"
        )
        rows += self.company.joget.execute(
            "SELECT * FROM dir_user_group WHERE userId IN ('cat', 'local@example.org')"
        )
        rows += self.company.joget.execute(
            "SELECT * FROM dir_user_role WHERE userId IN ('admin', 'cat')"
        )
        return sorted(map(repr, rows))

    @rule(name=st.sampled_from(NAMES))
    def somebody_comes_or_leaves(self, name: str) -> None:
        pool, sub = self.company.pool, sub_of(user(f"{name}@example.org"))
        stays = [person for person in pool.users if sub_of(person) != sub]
        pool.users = (
            stays if len(stays) < len(pool.users) else [*stays, user(f"{name}@example.org")]
        )
        pool.members = {
            group: [
                person
                for person in members
                if sub_of(person) in {sub_of(other) for other in pool.users}
            ]
            for group, members in pool.members.items()
        }

    @rule(
        at=st.integers(0, 7),
        what=st.sampled_from(["Enabled", "given_name", "login"]),
        value=st.integers(0, 2),
    )
    def somebody_changes(self, at: int, what: str, value: int) -> None:
        users = self.company.pool.users
        if users:
            person = users[at % len(users)]
            attributes = {pair["Name"]: pair for pair in person["Attributes"]}
            if what == "Enabled":
                person["Enabled"] = bool(value)
            elif what == "login" and "email" in attributes:
                attributes["email"]["Value"] = f"{NAMES[at]}-{value}@example.org"
            elif what == "given_name":
                attributes["given_name"]["Value"] = f"Given {value}"

    @rule(
        group=st.sampled_from(GROUPS), members=st.lists(st.integers(0, 7), max_size=4, unique=True)
    )
    def a_group_changes(self, group: str, members: list[int]) -> None:
        users = self.company.pool.users
        self.company.pool.members[group] = [users[at] for at in members if at < len(users)]

    @rule(group=st.sampled_from(GROUPS))
    def a_group_goes(self, group: str) -> None:
        self.company.pool.members.pop(group, None)

    @precondition(lambda self: self.run_ids)
    @rule(
        at=st.integers(0, 7), what=st.sampled_from(["active", "lastName", "membership", "delete"])
    )
    def joget_changes(self, at: int, what: str) -> None:
        joget, ids = self.company.joget, self.company.usernames()
        ids = [login for login in ids if login != "local@example.org"]
        if not ids:
            return
        login = ids[at % len(ids)]
        if what == "active":
            joget.execute("UPDATE dir_user SET active = 1 - active WHERE id = %s", (login,))
        elif what == "lastName":
            joget.execute("UPDATE dir_user SET lastName = 'local' WHERE id = %s", (login,))
        elif what == "membership":
            joget.execute(
                "INSERT IGNORE INTO dir_user_group (groupId, userId) VALUES ('managers', %s)",
                (login,),
            )
        else:
            for table in ("dir_user_group", "dir_user_role", "dir_employment"):
                joget.execute(f"DELETE FROM {table} WHERE userId = %s", (login,))
            joget.execute("DELETE FROM dir_user WHERE id = %s", (login,))

    @rule(at=st.integers(0, 7), what=st.sampled_from(["no email", "long name", "UNKNOWN", "twin"]))
    def somebody_is_disabled_and_broken(self, at: int, what: str) -> None:
        users = self.company.pool.users
        if not users:
            return
        person = users[at % len(users)]
        person["Enabled"] = False
        attributes = {pair["Name"]: pair for pair in person["Attributes"]}
        if what == "no email":
            person["Attributes"] = [
                pair for pair in person["Attributes"] if pair["Name"] != "email"
            ]
        elif what == "long name":
            attributes["given_name"]["Value"] = "x" * 300
        elif what == "UNKNOWN":
            person["UserStatus"] = what
        elif "email" in attributes:
            attributes["email"]["Value"] = f"{NAMES[(at + 1) % 8]}@example.org"

    @rule(cut=st.integers(0, 3), hidden=st.integers(0, 3), groups=st.integers(0, 1))
    def a_run(self, cut: int, hidden: int, groups: int) -> None:
        faults = self.company.faults
        faults.cut_users_after, faults.hidden_users, faults.cut_groups_after = cut, hidden, groups
        before, access = set(self.company.usernames()), self.read_access()
        dry = self.company.run(dry_run=True)
        report = self.company.run()
        faults.cut_users_after = faults.hidden_users = faults.cut_groups_after = 0
        assert dry["plan_sha256"] == report["plan_sha256"], "a dry run's plan is the run's plan"
        if not report["complete"]:
            gone = before - set(self.company.usernames())
            assert len(gone) == report["users"]["renamed"], "an incomplete snapshot removes nobody"
        self.check_promise(access)
        self.check(report)

    def read_linked_ids(self) -> dict[str, str]:
        """Read the Joget user ids of linked users, by sub."""
        tables = self.company.joget.column("SHOW TABLES LIKE 'directory\\_sync\\_user\\_link'")
        if not tables:
            return {}
        links = "SELECT sub, user_id FROM directory_sync_user_link WHERE user_id_sha256 IS NOT NULL"
        return {str(sub): str(user_id) for sub, user_id in self.company.joget.execute(links)}

    def read_access(self) -> tuple[set[str], set[tuple[str, str]]]:
        """Read the subs of linked users who are active in Joget, and their memberships by sub and
        group id.
        """
        subs = {user_id: sub for sub, user_id in self.read_linked_ids().items()}
        active = {subs[user_id] for user_id in self.company.active() if user_id in subs}
        pairs = {
            (subs[user_id], group)
            for user_id, group in self.company.memberships()
            if user_id in subs
        }
        return active, pairs

    def check_promise(self, before: tuple[set[str], set[tuple[str, str]]]) -> None:
        """Check that nobody loses access that the pool gives, and that nobody keeps access that the
        pool took away.
        """
        active, pairs = self.read_access()
        directory = self.company.staged("directory.parquet")
        waits = set(directory.loc[directory["outcome"].isin(["held", "deferred"]), "sub"].dropna())
        plan = self.company.staged("plan.parquet")
        waits |= set(plan.loc[plan["hold"].notna(), "sub"].dropna())
        pool = self.company.pool
        enabled = {sub_of(person) for person in pool.users if person["Enabled"]}
        disabled = {sub_of(person) for person in pool.users if not person["Enabled"]}
        lost = (before[0] & enabled) - active
        assert not lost, "a user who is enabled in the pool was deactivated"
        kept = (active & disabled) - waits
        assert not kept, "a user who is disabled in the pool is still active"
        assert not {pair for pair in pairs if pair[0] in disabled - waits}, (
            "a user who is disabled in the pool has memberships"
        )
        given = {
            (sub_of(person), group) for group, members in pool.members.items() for person in members
        }
        gone = {pair for pair in before[1] & given if pair[0] in enabled & active} - pairs
        assert not gone, "a membership that the pool gives was removed"

    @rule(moment=st.sampled_from(MOMENTS))
    def a_run_that_dies_and_is_repeated(self, moment: str) -> None:
        transformed = self.company.prepare()
        before = self.company.joget.contents()

        def die(*_: Any) -> None:
            raise KilledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing.PlanApplication, moment, die)
            with pytest.raises(KilledError):
                self.company.load(transformed)
        assert self.company.joget.contents() == before
        self.check(self.company.load(transformed))

    @precondition(lambda self: self.run_ids)
    @rule(answer=st.sampled_from(["approve", "reject", "timed_out"]))
    def a_person_answers(self, answer: str) -> None:
        from directory_sync.tasks import review

        self.check(self.company.run())
        review_id = self.company.ask()
        if review_id and answer == "timed_out":
            review.note_answer("default", review_id, answer, None)
        elif review_id:
            self.run_ids.append(self.company.answer(review_id, answer)["run_id"])
            assert self.read_local_rows() == self.local

    @precondition(lambda self: self.run_ids)
    @rule(answer=st.sampled_from([None, "approve", "reject"]))
    def a_question_is_answered_later(self, answer: str | None) -> None:
        """Ask at one moment, and answer at another: anything may have happened in between."""
        from directory_sync.tasks import review

        if self.asked is None or answer is None:
            self.check(self.company.run())
            self.asked = self.company.ask()
        elif review.read_question("default", self.asked, by_hand=False) is not None:
            review_id, self.asked = self.asked, None
            access = self.read_access()
            self.run_ids.append(self.company.answer(review_id, answer)["run_id"])
            assert self.read_local_rows() == self.local
            if answer == "reject":
                assert access[0] - self.read_access()[0] <= self.find_gone_or_disabled_subs(), (
                    "a rejection removes nobody"
                )

    def find_gone_or_disabled_subs(self) -> set[str]:
        """Find the subs that are gone from the pool or disabled in it."""
        enabled = {sub_of(person) for person in self.company.pool.users if person["Enabled"]}
        return set(self.read_linked_ids()) - enabled

    @precondition(lambda self: self.run_ids)
    @rule(at=st.integers(0, 9))
    def a_run_is_taken_back(self, at: int) -> None:
        conf = {"run_id": self.run_ids[-1 - at % len(self.run_ids)], "dry_run": False}
        run_id = f"undo__{len(self.run_ids)}"
        undo.undo_run(attempt("undo", run_id), "default", {}, conf)
        self.run_ids.append(run_id)
        assert self.read_local_rows() == self.local

    def check(self, report: dict[str, Any]) -> None:
        self.run_ids.append(report["run_id"])
        assert self.read_local_rows() == self.local
        assert set(self.company.staged("plan.parquet")["user_id"].dropna()).isdisjoint(
            {"admin", "cat"}
        )
        done = self.company.staged("plan.parquet")
        self.company.run(replay_run_id=report["run_id"])
        plan = self.company.staged("plan.parquet")
        left = plan[plan["hold"].isna() & ~plan["action"].isin(["miss", "seen"])]
        # A limit is a share of the users linked before: it may hold rows of five users, and none
        # of fifty.
        left = left[~hash_rows(left).isin(hash_rows(done[done["hold"].notna()]))]
        assert left.empty, f"planning what was just applied isn't empty: {left.to_dict('records')}"
        self.company.last = None if self.company.last is None else self.find_loaded_folder(report)

    def find_loaded_folder(self, report: dict[str, Any]) -> Any:
        from directory_sync.run import Run, resolve_run
        from directory_sync.settings import find_sync
        from directory_sync.staging import store

        run: Run = resolve_run(report["run_id"], find_sync("default"), {}, {})
        return store.list_sealed_folders(run, report["run_id"], "load")[-1]


def test_after_any_history_no_local_row_has_changed_and_nothing_is_left_to_do(
    new_joget: Callable[[str], JogetDatabase],
) -> None:
    History.new_joget = staticmethod(new_joget)
    run_state_machine_as_test(
        History,
        settings=hypothesis.settings(
            hypothesis.settings.get_profile("shared"),
            max_examples=6,
            stateful_step_count=12,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


LOAD = """
import sys
from directory_sync.tasks import load, proposal
from tests.company import attempt
print("ready", flush=True)
load.load(attempt("load", sys.argv[1]), sys.argv[2])
"""


def test_kill_9_at_random_moments_leaves_everything_or_nothing(company: Company) -> None:
    company.pool.users = people(200)
    company.pool.members = {"All": company.pool.users}
    company.run()
    moments = random.Random(9)
    for round_ in range(6):
        company.pool.users = [
            user(f"person{at:03}@example.org", given_name=f"R{round_}") for at in range(200)
        ]
        company.pool.users += people(10 * (round_ + 1), "new")
        company.pool.members = {"All": company.pool.users[round_:]}
        company.configure(limits={"changed_users_percent": 100, "floor": 500})
        transformed = company.prepare()
        before = company.joget.contents()
        command = [sys.executable, "-c", LOAD, transformed.run_id, transformed.url]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT
        )
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        names = set(company.joget.column("SELECT firstName FROM dir_user WHERE id LIKE 'person%'"))
        assert len(names) == 1, "nothing is half done"
        assert names == {f"R{round_}"} or company.joget.contents() == before
        report = company.load(transformed)
        assert (report["outcome"], counts(report)["updated"], causes(report)) == (
            "applied",
            200,
            {},
        )
        assert company.run()["outcome"] == "nothing_to_do"
