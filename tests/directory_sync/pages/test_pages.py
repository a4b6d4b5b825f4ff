"""What the pages show, over real runs of the sync. test_browser and test_roles test permissions in
a real Airflow.
"""

import csv
import hashlib
import hmac
import html
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest
from airflow.api_fastapi.core_api.security import get_user
from fastapi.testclient import TestClient

from directory_sync.pages import (
    airflow_runs,
    permissions,
    published_files,
    routes,
    run_summary,
    user_answer,
)
from directory_sync.pages.airflow_runs import AirflowRun
from directory_sync.settings import find_sync
from tests.company import Company, people
from tests.conftest import JogetDatabase
from tests.directory_sync.joget.ledger.test_delays import load_live, modify
from tests.ledgers import correct_hashes
from tests.plugin_directory import PluginDirectory
from tests.stand_in import sub_of, user

SYNC = "cognito_to_joget"
ANA, BOB = "ana@example.org", "bob@example.org"


class Pages:
    """A reader of the pages; `values`: whether the reader may answer the sync's reviews."""

    def __init__(self, company: Company, client: TestClient) -> None:
        self.company, self.client, self.values = company, client, True
        self.runs: list[AirflowRun] = []

    def run(self, dag_id: str = SYNC, task: str = "load", **parameters: Any) -> str:
        """Do one run of the sync that Airflow knows of; returns its id."""
        self.company.run(**parameters)
        return self.note(dag_id, task)

    def note(self, dag_id: str = SYNC, task: str = "load", **others: Any) -> str:
        """Let Airflow know of the company's last run."""
        assert self.company.last
        run_id = f"manual__{len(self.runs)}"
        references = {task: {"manifest": self.company.last.url}}
        now = datetime.now(UTC)
        found: dict[str, Any] = {
            "state": "success",
            "run_type": "manual",
            "started_by": "olga",
            "references": references,
        }
        found |= {"ended": {task: now}} | others
        self.runs.insert(0, AirflowRun(dag_id=dag_id, run_id=run_id, at=now, **found))
        return run_id

    def review(self, answer: str) -> str:
        """Ask about what the last run held, and answer; returns the id of the review's run."""
        review_id = self.company.ask()
        assert review_id
        self.company.answer(review_id, answer)
        return self.note(f"{SYNC}_review", "load_held")

    def find_run(self, dag_id: str, run_id: str) -> AirflowRun | None:
        return next(
            (run for run in self.runs if (run.dag_id, run.run_id) == (dag_id, run_id)), None
        )

    def list_newest_runs(self, dag_ids: list[str], limit: int) -> list[AirflowRun]:
        return [run for run in self.runs if run.dag_id in dag_ids][:limit]

    def list_waiting_reviews(self, dag_id: str) -> list[AirflowRun]:
        return [
            run
            for run in self.runs
            if run.dag_id == dag_id and run.tasks.get("review_held") == "awaiting_input"
        ]

    def list_changing_runs(self, dag_ids: list[str], limit: int) -> list[AirflowRun]:
        return [run for run in self.runs if run.dag_id in dag_ids][:limit]

    def changes(self, run_id: str, dag_id: str = SYNC, status: int = 200, **asked: str) -> str:
        """The text of a run's page, which has this HTTP status."""
        path = f"/dags/{dag_id}/runs/{run_id}"
        answer = self.client.post(path, data=asked) if asked else self.client.get(path)
        return words(answer, status)

    def csv(self, run_id: str, **asked: str) -> list[dict[str, str]]:
        answer = self.client.post(f"/dags/{SYNC}/runs/{run_id}/changes.csv", data=asked)
        assert answer.status_code == 200
        return list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))

    def directory(self, **asked: str) -> str:
        """The text of the DAG's page."""
        path = f"/dags/{SYNC}"
        return words(self.client.post(path, data=asked) if asked else self.client.get(path))


def words(answer: Any, status: int = 200) -> str:
    """A page's visible text, on one line."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    text = re.sub(r"<script.*?</script>|<[^>]+>", " ", answer.text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(text))


@pytest.fixture
def pages(company: Company, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pages]:
    made = routes.make_app()
    for allowed in (
        permissions.SIGNED_IN_DEPENDENCY.dependency,
        permissions.MAY_READ_RUNS_DEPENDENCY.dependency,
        get_user,
    ):
        made.dependency_overrides[allowed] = lambda: None
    with TestClient(made, raise_server_exceptions=False) as client:
        found = Pages(company, client)
        monkeypatch.setattr(routes, "find_run", found.find_run)
        for name in ("list_newest_runs", "list_waiting_reviews"):
            monkeypatch.setattr(routes, name, getattr(found, name))
        monkeypatch.setattr(user_answer, "list_changing_runs", found.list_changing_runs)
        monkeypatch.setattr(routes, "may_see_values", lambda *_: found.values)
        monkeypatch.setattr(routes, "may_read_runs", lambda *_: True)
        published_files._make_published_run.cache_clear()
        yield found


@pytest.fixture
def held(pages: Pages) -> str:
    """A run that holds twelve of forty users, and two other runs."""
    pages.company.pool.users = people(40)
    pages.company.pool.members = {"Sales": pages.company.pool.users[:20]}
    pages.run()
    pages.company.pool.users = pages.company.pool.users[12:]
    pages.company.pool.members = {"Sales": pages.company.pool.users[:8]}
    pages.run()
    pages.company.pool.users.append(user("newcomer@example.org"))
    return pages.run()


# A run


def test_a_run_is_summed_up_in_a_line_with_what_is_held_and_why(pages: Pages, held: str) -> None:
    text = pages.changes(held)
    assert "1 user created" in text
    assert (
        "held: 30 % of users would be deactivated or deleted, since they are missing (limit 5 %)"
        in text
    )
    assert "proven complete" in text
    assert "Look at the rows. If they are intended, approve them in the review" in text


def test_left_over_accounts_are_named_only_for_readers_who_may_see_values(pages: Pages) -> None:
    PluginDirectory(pages.company.joget).sync(
        [user(ANA), user(BOB)], {"A": [user(ANA)], "B": [user(ANA)]}
    )
    pages.company.pool.users = [user(ANA)]
    run = pages.run()
    text = pages.changes(run)
    assert (
        "Left over in Joget 1 active account of the organization without a password and without a "
        "link" in text
    )
    assert f"{BOB} the account has no password and no link, and the pool doesn't have it" in text
    assert "1 user with several employments in the organization" in text
    pages.values = False
    assert BOB not in pages.changes(run)
    assert "left-over-" in pages.changes(run)


def test_each_change_is_shown_with_its_values_before_and_after(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA, given_name="Ana", family_name="Almeida")]
    pages.run()
    pages.company.pool.users = [user(ANA, given_name="Ana", family_name="Azevedo")]
    text = pages.changes(pages.run())
    assert "last name before Almeida → after Azevedo" in text
    assert "changed in the pool" in text
    assert "first name before" not in text


def test_changes_are_searched_filtered_sorted_and_paged(pages: Pages) -> None:
    pages.company.pool.users = people(70)
    run_id = pages.run()
    text = pages.changes(run_id)
    assert "210 changes, page 1 of 5" in text
    assert "3 of 210 changes" in pages.changes(run_id, text="PERSON042@")
    assert "70 of 210 changes, page 1 of 2" in pages.changes(run_id, entity="employment")
    assert "140 of 210 changes" in pages.changes(run_id, action="add")
    assert "0 of 210 changes" in pages.changes(run_id, held="true")
    assert "No change fits" in pages.changes(run_id, text="nobody")
    last = pages.changes(run_id, entity="user", page="99")
    assert "page 2 of 2" in last
    assert "person069@example.org" in last
    assert "person069@example.org" in pages.changes(run_id, entity="user", sort_by="who:descending")
    assert "person069@example.org" not in pages.changes(run_id, entity="user", sort_by="who")


def test_the_download_has_the_rows_that_were_asked_for(pages: Pages) -> None:
    pages.company.pool.users = people(70)
    run_id = pages.run()
    rows = pages.csv(run_id, entity="user", text="person00", page="3")
    assert [row["who"] for row in rows] == [
        f"person{number:03}@example.org" for number in range(10)
    ]
    assert rows[0]["email after"] == "person000@example.org"
    assert rows[0]["email before"] == "—"


def test_a_reader_who_may_not_answer_reviews_sees_subs_and_reasons_and_no_names(
    pages: Pages, held: str
) -> None:
    pages.values = False
    pages.run()
    for text in (
        pages.changes(held),
        pages.changes(held, sort_by="who"),
        pages.changes(held, text="example.org"),
        pages.directory(),
        pages.directory(who="newcomer@example.org"),
        pages.directory(who=str(sub_of(pages.company.pool.users[-1]))),
        str(pages.csv(held)),
    ):
        assert not re.search(
            r"@example\.org(?!\")|Sales|Person", text.replace("newcomer@example.org", "", 1)
        )
    assert str(sub_of(pages.company.pool.users[-1])) in pages.changes(held)
    assert "0 of" in pages.changes(held, text="example.org")
    assert "Only people who may answer this sync's reviews can search" in pages.directory(who=ANA)
    explained = pages.directory(who=str(sub_of(pages.company.pool.users[-1])))
    assert "status CONFIRMED" in explained
    assert "values aren't shown to you" in explained


def test_a_dry_run_says_so_loudly(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA)]
    text = pages.changes(pages.run(dry_run=True))
    assert "Dry run: nothing was written to Joget (asked for)" in text
    assert "It would be: 1 user created" in text


def test_a_snapshot_that_was_not_proven_complete_says_why(pages: Pages) -> None:
    pages.company.pool.users = people(100)
    pages.company.faults.cut_users_after = 50
    text = pages.changes(pages.run())
    assert "The snapshot was not proven complete" in text
    assert "50" in text


def test_the_timings_are_compared_with_the_quota(pages: Pages) -> None:
    pages.company.pool.users = people(130)
    pages.company.configure(requests_per_second=4.0)
    text = pages.changes(pages.run())
    assert re.search(r"extract_users \d+\.\d 4 1\.0", text), text[-400:]


def test_a_run_that_changes_nothing_shows_what_is_still_to_do(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA), user(BOB)]
    pages.run()
    assert "Nothing to do: Joget is as the pool wants it." in pages.changes(pages.run())
    pages.company.pool.users = [user(ANA), user("long" * 40 + "@example.org")]
    assert "Nothing changed: 1 user in quarantine, 1 user missing" in pages.changes(pages.run())


def test_the_page_shows_what_a_change_of_settings_alone_does(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA, given_name="Ana", nickname="Anita")]
    pages.run()
    pages.company.configure(mapping={"first_name": "nickname"})
    text = pages.changes(pages.run())
    assert "mapping.first_name changed. Of the changes below" in text
    assert "user update (1)" in text


def test_an_undo_shows_what_it_took_back_and_what_it_left(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA), user(BOB)]
    pages.run()
    assert pages.company.last
    undone = pages.company.last.run_id
    pages.company.joget.execute("UPDATE dir_user SET lastName = 'Changed' WHERE id = %s", (BOB,))
    pages.company.undo(undone)
    run_id = pages.note(f"{SYNC}_undo", "undo")
    text = pages.changes(run_id, dag_id=f"{SYNC}_undo")
    assert f"Takes back run {undone}" in text
    assert "1 user deleted" in text
    assert "held: changes were followed by others since" in text
    assert "change them by hand in Joget" in text
    assert "Reviews are answered" not in text
    assert "undo by olga" in pages.directory(who=ANA)


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_an_answer_is_shown_with_its_result(pages: Pages, held: str, answer: str) -> None:
    assert held
    run_id = pages.review(answer)
    text = pages.changes(run_id, dag_id=f"{SYNC}_review")
    explained = pages.directory(who="person003@example.org")
    if answer == "approve":
        assert "Approved by Olga" in text
        assert "approved by Olga" in explained
        assert "What holds this user back now deactivated by the sync" in explained
        assert "state deactivated" in explained
        assert "holds:" not in explained
    else:
        assert "Rejected by Olga" in text
        assert "rejected by Olga" in explained
        assert "approved by" not in explained
        assert "held (removed_users_percent)" in explained


def test_a_dag_that_belongs_to_no_sync_gets_a_plain_sentence(pages: Pages) -> None:
    assert "This DAG is no directory sync's" in pages.changes(
        "manual__0", dag_id="sales_report", status=404
    )


@pytest.mark.parametrize(
    ("state", "tasks", "said"),
    [
        ("running", {"extract_users": "running"}, "This run is under way (extract_users)"),
        ("failed", {"transform": "failed"}, "transform failed, and nothing was written to Joget"),
        ("failed", {"load": "failed"}, "whether it had written to Joget by then"),
        (
            "success",
            {"load": "success"},
            "Airflow doesn't know any more where this run's files are",
        ),
    ],
)
def test_a_run_without_a_report_says_why(
    pages: Pages, state: str, tasks: dict[str, str], said: str
) -> None:
    pages.company.run()
    run_id = pages.note(state=state, tasks=tasks, references={})
    assert said in pages.changes(run_id)


def test_an_unknown_run_gets_a_sentence(pages: Pages) -> None:
    assert "Airflow has no such run" in pages.changes("manual__99", status=404)


# The sync


def test_the_dags_page_shows_the_last_runs_and_the_last_complete_snapshot(
    pages: Pages, held: str
) -> None:
    text = pages.directory()
    assert "Last complete snapshot" in text
    assert "29 users and 1 group." in text
    assert "30 % of users would be deactivated" in text
    assert "No review waits" in text


def test_the_page_shows_how_long_users_are_in_quarantine_and_what_to_do(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA)]
    pages.run()
    pages.company.pool.users = [user(ANA), user("long" * 40 + "@example.org")]
    pages.run()
    pages.run()
    text = pages.directory()
    assert "the login is longer than 100 characters" in text
    assert "Shorten it in Cognito" in text
    since = re.search(
        r"In quarantine Entity.*? (before )?(\d{4}-\d\d-\d\d \d\d:\d\d) the login", text
    )
    assert since
    assert not since[1], "it wasn't there in the oldest run"


def test_the_page_shows_how_long_changes_took_and_the_slowest_leaver_with_the_run(
    pages: Pages,
) -> None:
    pages.company.configure(policies={"missing_runs": 1})
    pages.company.pool.users = people(3)
    pages.run()
    assert "No change was timed in these days." in pages.directory()
    leaver, gone, _ = pages.company.pool.users
    modify(leaver, Enabled=False)
    pages.company.pool.users.remove(gone)
    run_id = pages.run()
    pages.company.joget.execute(
        "UPDATE directory_sync_delay SET happened_at = committed_at - INTERVAL 250 SECOND "
        "WHERE happened_at IS NOT NULL"
    )
    pages.company.joget.execute("UPDATE directory_sync_run SET run_id = %s", (quote(run_id),))
    pages.run()
    text = pages.directory()
    assert (
        "Runs Median 95th percentile Since the event arrived Changes "
        "scheduled 4 min 10 s 4 min 10 s 2 The slowest leaver" in text
    )
    assert (
        f"The slowest leaver, {sub_of(leaver)} , lost access 4 min 10 s after the change in the "
        "pool, by the run of" in text
    )
    assert "1 leaver has no time here" in text
    address = f"/dags/{SYNC}/runs/{run_id}/plugin/directory-changes"
    section = pages.client.get(f"/dags/{SYNC}").text.partition('id="delays"')[2]
    assert address in section.partition("</section>")[0]


def test_live_and_scheduled_changes_are_shown_apart(pages: Pages) -> None:
    pages.company.pool.users = people(3)
    pages.run()
    leaver, changed, _ = pages.company.pool.users
    modify(leaver, Enabled=False)
    now = pd.Timestamp.now("UTC")
    heard = {
        "sub": [sub_of(leaver)],
        "happened_at": now - pd.Timedelta(hours=3),
        "arrived_at": now - pd.Timedelta(hours=2),
    }
    load_live(pages.company, [attributes_of(leaver)["email"]], pd.DataFrame(heard))
    modify(changed, Enabled=False)
    pages.run()
    text = pages.directory()
    assert re.search(r"live 3 h 0 min 3 h 0 min 2 h 0 min, 2 h 0 min 1 scheduled", text)
    assert re.search(r"lost access 3 h 0 min after the change in the pool, by run manual__1", text)


def attributes_of(person: Any) -> dict[str, str]:
    """A user's attributes."""
    return {pair["Name"]: pair["Value"] for pair in person["Attributes"]}


def test_the_page_says_that_a_person_who_is_signed_in_keeps_roles_until_the_session_ends(
    pages: Pages,
) -> None:
    assert (
        "A person who is already signed in to Joget keeps roles and name until the session ends."
        in pages.directory()
    )


def test_a_report_of_a_release_that_timed_nothing_is_shown_as_ever(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA)]
    pages.run()
    last = pages.company.last
    assert last
    path = Path(last.url.removeprefix("file://")) / "report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    del report["clock"]
    path.write_text(json.dumps(report), encoding="utf-8")
    correct_hashes(path.with_name("manifest.json"))
    text = pages.directory()
    assert "No run has timed changes yet." in text
    assert "1 user created" in text


def test_a_superseded_run_hides_nothing_that_was_known_before(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA), user("long" * 40 + "@example.org")]
    early = pages.company.prepare()
    pages.run()
    assert pages.company.load(early)["outcome"] == "superseded"
    run_id = pages.note()
    assert "Superseded" in pages.changes(run_id)
    text = pages.directory(who=ANA)
    assert f"to Joget user {ANA}" in text
    assert "the login is longer than 100 characters" in text


def test_a_very_large_quarantine_is_shown_in_part_and_the_page_says_so(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_files, "MOST_QUARANTINED", 5)
    monkeypatch.setattr(routes, "MOST_QUARANTINED", 3)
    pages.company.pool.users = people(9)
    pages.run()
    pages.company.configure(mapping={"username": "nickname"})
    run_id = pages.run()
    pages.run()
    for text in (pages.changes(run_id), pages.directory()):
        assert text.count("Give the user that attribute in Cognito") == 3
        assert "… and 6 more" in text
    read = published_files.open_published_run(
        find_sync("default"), str(pages.runs[0].folder("load"))
    )
    everybody = sorted(str(sub_of(one)) for one in pages.company.pool.users)
    assert all(read.is_quarantined("user", sub) for sub in everybody)
    assert not read.is_quarantined("user", everybody[0][:-1])


def test_users_in_quarantine_are_named_for_readers_who_may_see_names(pages: Pages) -> None:
    pages.company.joget.add_user(ANA, password="hash")
    pages.company.pool.users = [user(ANA)]
    run_id = pages.run()
    assert re.search(
        rf"user {ANA} {sub_of(pages.company.pool.users[0])} .*it has a password",
        pages.changes(run_id),
    )
    assert ANA in pages.directory()
    pages.values = False
    assert ANA not in pages.changes(run_id) + pages.directory()


def test_a_run_for_some_users_says_how_many_were_looked_at(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA), user("bob@example.org")]
    assert "looked at" not in pages.changes(pages.run())
    page = pages.changes(pages.run(users=[ANA]))
    assert "Only 1 person was looked at" in page
    assert "proven complete" not in page
    both = pages.changes(pages.run(users=[ANA, "bob@example.org"]))
    assert "Only 2 people were looked at" in both


def test_a_review_that_waits_is_linked_to_airflows_page(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA)]
    pages.run()
    waits: dict[str, Any] = {
        "state": "running",
        "tasks": {"review_held": "awaiting_input"},
        "references": {},
    }
    run_id = pages.note(f"{SYNC}_review", **waits)
    answer = pages.client.get(f"/dags/{SYNC}")
    assert (
        f'href="../../dags/{SYNC}_review/runs/{run_id}/tasks/review_held/required_actions"'
        in answer.text
    )
    assert "waits for a person's answer" in pages.changes(run_id, dag_id=f"{SYNC}_review")


# A user


def test_why_ana_cannot_see_the_app_is_answered(pages: Pages) -> None:
    ana = user(ANA, given_name="Ana")
    pages.company.configure(scope={"exclude_groups": ["Secret*"]})
    pages.company.pool.users = [ana, user(BOB)]
    pages.company.pool.members = {"Sales": [ana], "Secret plans": [ana]}
    pages.run()
    pages.company.joget.execute("UPDATE dir_user SET active = 0 WHERE id = %s", (ANA,))
    pages.run()
    for who in (ANA, "ANA@example.org", str(sub_of(ana))):
        text = pages.directory(who=who)
        assert "status CONFIRMED, enabled" in text
        assert "In scope : yes" in text
        assert "first name given_name Ana" in text
        assert f"to Joget user {ANA} , since" in text
        assert re.search(
            r"Sales Sales .*remove on .* \(started by olga\); add on .* \(started by olga\)", text
        )
        assert "the members of groups that aren't in scope, such as Secret plans" in text
        assert "an administrator deactivated the user in Joget" in text
        assert "user create" in text


def test_who_removed_a_user_is_answered(pages: Pages) -> None:
    bob = user(BOB)
    pages.company.pool.users = [user(ANA), bob]
    pages.run()
    pages.company.pool.users = [user(ANA)]
    for _ in range(2):
        pages.run()
    text = pages.directory(who=BOB)
    assert "not in the snapshot of" in text
    assert "user deactivate" in text
    assert "started by olga" in text
    assert "state deactivated" in text


def test_a_deleted_user_is_found_in_what_the_runs_did(pages: Pages) -> None:
    pages.company.configure(
        policies={"missing_user": "delete", "delete_after_days": 0, "missing_runs": 1}
    )
    pages.company.pool.users = [user(ANA), user(BOB)]
    pages.run()
    pages.company.pool.users = [user(ANA)]
    pages.run()
    pages.run()
    assert "user delete" in pages.directory(who=BOB)


def test_the_page_shows_what_holds_a_user_back_and_what_to_do(pages: Pages, held: str) -> None:
    text = pages.directory(who="person003@example.org")
    assert "What holds this user back now held (removed_users_percent)" in text


def test_a_run_for_some_users_shows_how_they_are_now(pages: Pages) -> None:
    pages.company.joget.add_user(ANA, password="hash")
    pages.company.pool.users = [user(ANA), user(BOB)]
    pages.run()
    assert "is local: it has a password" in pages.directory(who=ANA)
    pages.company.joget.execute("UPDATE dir_user SET password = NULL WHERE id = %s", (ANA,))
    pages.run(users=[ANA])
    text = pages.directory(who=ANA)
    assert "Nothing holds this user back" in text
    assert "adopted" in text
    assert "What holds this user back" not in pages.directory(who=BOB), (
        "that run was for another user"
    )


def test_an_excluded_user_is_not_in_scope(pages: Pages) -> None:
    pages.company.configure(scope={"exclude_users": [ANA]})
    pages.company.pool.users = [user(ANA)]
    pages.run()
    text = pages.directory(who=ANA)
    assert "In scope : no: excluded by the settings" in text
    assert "remove them" in text


def test_a_membership_that_only_the_second_listing_has_is_shown(pages: Pages) -> None:
    ana, others = user(ANA), people(30)
    pages.company.pool.users = [ana, *others]
    pages.company.pool.members = {"Sales": [*others, ana]}
    pages.run()
    pages.company.faults.first_listing_lacks = {"Sales": 1}
    pages.run()
    assert re.search(r"How it came about Sales Sales", pages.directory(who=ANA))


def test_an_old_login_finds_its_former_and_its_present_user(pages: Pages) -> None:
    pages.company.configure(
        policies={"missing_user": "delete", "delete_after_days": 0, "missing_runs": 1}
    )
    old = user(BOB)
    pages.company.pool.users = [user(ANA), old]
    pages.run()
    pages.company.pool.users = [user(ANA)]
    pages.run()
    new = user(BOB, sub="11111111-2222-3333-4444-555555555555")
    pages.company.pool.users = [user(ANA), new]
    pages.run()
    text = pages.directory(who=BOB)
    assert "Several users fit" in text
    assert str(sub_of(old)) in text
    assert str(sub_of(new)) in text
    assert "user delete" in pages.directory(who=BOB, sub=str(sub_of(old)))


def test_the_page_knows_since_when_a_user_is_linked_even_if_airflow_forgot_the_run(
    pages: Pages,
) -> None:
    pages.company.pool.users = [user(ANA)]
    pages.run()
    pages.company.let_hours_pass(24 * 90)
    pages.run()
    del pages.runs[1]
    since = re.search(r"since (\d{4}-\d\d-\d\d)", pages.directory(who=ANA))
    assert since
    assert datetime.now(UTC) - datetime.fromisoformat(f"{since[1]}T00:00Z") > timedelta(days=89)


def test_older_runs_are_searched_on_request(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA)]
    for _ in range(3):
        pages.run()
    text = pages.directory(who=ANA, back="2")
    assert "Look further back" in text
    assert "Look further back" not in pages.directory(who=ANA)


def test_a_user_without_a_sub_is_shown_as_quarantined(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA), user(BOB)]
    pages.company.pool.users[1]["Attributes"] = [
        pair for pair in pages.company.pool.users[1]["Attributes"] if pair["Name"] != "sub"
    ]
    pages.run()
    assert "lists somebody by that name without a sub" in pages.directory(who=BOB)
    assert "without a sub" in pages.directory()


def test_the_runs_of_a_backfill_name_the_person_who_created_it(pages: Pages) -> None:
    pages.company.pool.users = [user(ANA)]
    pages.company.run()
    pages.note(run_type="backfill")
    assert "backfill by olga" in pages.directory(who=ANA)


def test_without_a_secret_of_airflows_no_reader_can_guess_a_hidden_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW__API__SECRET_KEY", "")
    guessed = hmac.new(b"", b"Sales", hashlib.sha256).hexdigest()[:12]
    hidden = permissions.make_hidden_name("Sales")
    assert hidden == permissions.make_hidden_name("Sales")
    assert hidden != permissions.make_hidden_name("Board")
    assert guessed not in hidden


def test_a_sub_that_nobody_has_gets_a_sentence(pages: Pages) -> None:
    pages.run()
    assert "Nobody with exactly that login" in pages.directory(sub="0000")


def test_an_unknown_user_gets_a_sentence(pages: Pages) -> None:
    pages.run()
    for who in (
        "nobody@example.org",
        "'; DROP TABLE",
        "<script>alert(1)</script>",
        "%",
        "\u202e\U0001f600",
    ):
        assert "Nobody with exactly that login, email or sub" in pages.directory(who=who)


def test_before_the_first_run_the_page_says_so(pages: Pages) -> None:
    assert "There is no run yet" in pages.directory()
    assert "Run it once" in pages.directory(who=ANA)


# What goes wrong


def test_names_that_are_html_or_formulas_stay_texts(pages: Pages) -> None:
    bad = "<script>alert(1)</script>"
    pages.company.pool.users = [
        user(ANA, given_name=bad, family_name="=HYPERLINK(1)"),
        user("+bob@example.org"),
    ]
    run_id = pages.run()
    for answer in (
        pages.client.get(f"/dags/{SYNC}/runs/{run_id}"),
        pages.client.post(f"/dags/{SYNC}", data={"who": ANA}),
    ):
        assert bad not in answer.text
        assert html.escape(bad) in answer.text
    users = [row for row in pages.csv(run_id) if row["entity"] == "user"]
    assert {row["last name after"] for row in users} >= {"'=HYPERLINK(1)"}
    assert {row["who"] for row in users} == {ANA, "'+bob@example.org"}


def test_a_cell_that_a_spreadsheet_may_split_has_no_formula_in_its_parts(pages: Pages) -> None:
    pages.company.pool.users = [
        user(ANA, given_name="x;=HYPERLINK(1)", family_name='"|\t@SUM(1)'),
        user(BOB),
    ]
    (row,) = [row for row in pages.csv(pages.run(), text=ANA) if row["entity"] == "user"]
    assert row["first name after"] == "x;'=HYPERLINK(1)"
    assert row["last name after"] == "\"|\t'@SUM(1)"


def test_without_the_right_to_see_values_the_order_reveals_nothing_about_logins(
    pages: Pages,
) -> None:
    pages.company.pool.users = people(70)
    pages.company.pool.members = {
        f"group{number}": pages.company.pool.users[:1] for number in range(9)
    }
    run_id = pages.run()
    pages.values = False
    for asked in (
        {"entity": "user"},
        {"entity": "user", "sort_by": "action"},
        {"entity": "user", "sort_by": "who"},
    ):
        subs = re.findall(
            r"<code>([0-9a-f-]{36})</code>",
            pages.client.post(f"/dags/{SYNC}/runs/{run_id}", data=asked).text,
        )
        assert len(subs) == 50
        assert subs == sorted(subs)
    rows = pages.csv(run_id)
    subs = [row["sub"] for row in rows if row["sub"]]
    assert subs == sorted(subs)
    groups = [row["group"] for row in rows if row["entity"] == "membership"]
    assert groups == sorted(groups)
    assert len(set(groups)) == 9
    assert not any("group0" in name for name in groups)


def test_a_run_without_its_files_gets_a_sentence_and_the_others_are_shown(
    pages: Pages,
) -> None:
    first = pages.run()
    second = pages.run()
    folder = Path(str(pages.runs[1].folder("load")).removeprefix("file://"))
    for path in folder.iterdir():
        path.unlink()
    text = pages.changes(first, status=404)
    assert "are deleted after 30 days" in text
    assert "Nothing changed: the snapshot wasn't proven complete" in pages.changes(second)
    assert "are deleted after 30 days" in pages.directory()
    assert (
        pages.client.post(f"/dags/{SYNC}/runs/{first}/changes.csv")
        .headers["content-type"]
        .startswith("text/html")
    )
    for who in (ANA, "nobody@example.org"):
        assert "Nobody with exactly that login" in pages.directory(who=who), (
            "the others are searched"
        )


@pytest.mark.parametrize("name", ["plan.parquet", "report.json", "manifest.json"])
def test_a_damaged_file_gets_a_sentence(pages: Pages, name: str) -> None:
    pages.company.pool.users = people(20)
    run_id = pages.run()
    path = Path(str(pages.runs[0].folder("load")).removeprefix("file://")) / name
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:100] + b"\0" * 300 + content[400:]):
        path.write_bytes(damaged)
        published_files._make_published_run.cache_clear()
        text = pages.changes(run_id, status=500)
        assert "damaged" in text or "isn't what its manifest says" in text, text


def test_a_reference_that_leads_elsewhere_is_not_followed(pages: Pages, tmp_path: Path) -> None:
    pages.run()
    home = f"{pages.company.settings['staging_url']}/default"
    for url in (
        f"file://{tmp_path}/other",
        f"{home}/../../secret",
        f"{home}/..",
        f"{home}/./..",
        home,
    ):
        run_id = pages.note(references={"load": {"manifest": url}})
        assert "lie outside of the sync's staging," in pages.changes(run_id, status=500)


def test_a_missing_connection_is_reported_before_any_path_is_made(pages: Pages) -> None:
    pages.company.configure(staging_url="s3://gone_aws@bucket/prefix")
    pages.company.last = None
    run_id = f"manual__{len(pages.runs)}"
    reference = {"load": {"manifest": "s3://gone_aws@bucket/prefix/default/pool/run/load.1.a"}}
    pages.runs.append(
        AirflowRun(SYNC, run_id, "success", "manual", datetime.now(UTC), None, references=reference)
    )
    text = pages.changes(run_id, status=500)
    assert "Connection 'gone_aws' (setting staging_url) doesn't exist" in text


def test_an_unforeseen_error_shows_and_logs_no_value(
    pages: Pages, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = pages.run()

    def fail(*_: object, **__: object) -> None:
        raise ValueError("secret@example.org")

    monkeypatch.setattr(run_summary, "make_headline", fail)
    answer = pages.client.get(f"/dags/{SYNC}/runs/{run_id}")
    assert answer.status_code == 500
    assert "Traceback" not in answer.text
    assert "secret@example.org" not in answer.text + caplog.text
    assert "ValueError at " in caplog.text


def test_pages_are_kept_in_no_cache_and_load_nothing_from_elsewhere(pages: Pages) -> None:
    run_id = pages.run()
    for path in (f"/dags/{SYNC}", f"/dags/{SYNC}/runs/{run_id}"):
        answer = pages.client.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert "script-src 'self'" in answer.headers["content-security-policy"]
        links = re.findall(r'(?:src|href|action)="([^"]*)"', answer.text)
        assert not [link for link in links if "//" in link]
    for name in routes.ASSET_TYPES:
        assert pages.client.get(f"/static/{name}").status_code == 200
    assert pages.client.get("/static/app.py").status_code == 404


def test_the_plan_of_a_large_run_is_read_a_page_at_a_time(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    from directory_sync.staging import store

    monkeypatch.setattr(store, "ROWS_IN_A_PART", 10)
    pages.company.pool.users = people(60)
    run_id = pages.run()
    read: list[tuple[int, int]] = []
    import pyarrow.parquet as pq

    original = pq.ParquetFile.read_row_group

    def count_columns(
        self: Any, group: int, columns: list[str] | None = None, **others: Any
    ) -> Any:
        read.append((group, len(columns or self.schema_arrow.names)))
        return original(self, group, columns=columns, **others)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", count_columns)
    pages.changes(run_id)
    wide = {group for group, columns in read if columns > 10}
    assert len(wide) <= 6, "fifty rows lie in five row groups, or six"
    assert len({group for group, _ in read}) == 18


def test_the_id_of_a_dag_says_its_sync_and_its_kind(company: Company, joget: JogetDatabase) -> None:
    assert joget.name
    company.configure(name="staff")
    place = airflow_runs.find_sync_dag("cognito_to_joget_staff_review")
    assert place
    assert (place.sync.name, place.kind, place.reporting_task) == ("staff", "review", "load_held")
    assert airflow_runs.find_sync_dag("cognito_to_joget") is None
