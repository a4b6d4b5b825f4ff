"""A person decides on held changes; the ledger's record of the answer counts."""

from pathlib import Path
from typing import Any

import pytest

from directory_sync.errors import PermanentError
from directory_sync.tasks import review
from tests.company import Company, causes, counts, people
from tests.stand_in import user

ANA = "ana@example.org"


@pytest.fixture
def asked(company: Company) -> tuple[Company, str]:
    """40 of 100 users left. The run holds that, and a person is asked."""
    company.pool.users = people(100)
    company.pool.members = {"All": company.pool.users}
    company.run()
    company.pool.users = company.pool.users[40:]
    company.pool.members = {"All": company.pool.users}
    company.run()
    assert causes(company.run()) == {"removed_users_percent": 80}
    review_id = company.ask()
    assert review_id
    return company, review_id


def test_approved_rows_that_are_still_the_same_are_applied(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    report = company.answer(review_id, "approve")
    assert report["outcome"] == "applied"
    assert counts(report)["deactivated"] == 40
    assert counts(report, "memberships") == {"read": 60, "removed": 40, "unchanged": 60}
    answer = report["review"]
    assert answer.pop("answered_at")
    assert answer == {
        "review_id": review_id,
        "answer": "approve",
        "answered_by": "Olga",
        "asked": 80,
        "applied": 80,
        "changed_since": 0,
    }
    assert len(company.active()) == 60
    assert company.run()["outcome"] == "nothing_to_do"
    assert company.ask() is None


def test_a_scheduled_run_goes_on_with_a_newcomer_while_the_question_is_open(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    company.pool.users = [*company.pool.users, user(ANA)]
    company.pool.members = {"All": company.pool.users}
    assert counts(company.run())["created"] == 1
    assert company.ask() == review_id, (
        "one review is open, and its run is started again if it is gone"
    )
    assert company.answer(review_id, "approve")["review"]["applied"] == 80
    assert company.user(ANA)["active"] == 1
    assert len(company.active()) == 61


def test_approved_rows_that_changed_since_stay_held_and_are_listed(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    company.joget.execute(
        "UPDATE dir_user SET lastName = 'local' WHERE id = 'person000@example.org'"
    )
    report = company.answer(review_id, "approve")
    assert (report["review"]["applied"], report["review"]["changed_since"]) == (78, 2)
    assert counts(report)["held"] == 1
    assert "person000@example.org" in company.active()
    assert ("person000@example.org", "All") in company.memberships(), (
        "the rows that depend on it stay held with it"
    )
    company.run()
    assert company.user("person000@example.org")["active"] == 0, (
        "a single user is within the limits"
    )


def test_rejected_rows_stay_held_and_nobody_is_asked_until_their_change_differs(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    before = company.joget.contents()
    report = company.answer(review_id, "reject")
    assert report["outcome"] == "nothing_to_do"
    assert report["review"]["applied"] == 0
    for _ in range(2):
        report = company.run()
        assert causes(report) == {"rejected": 80}
        assert report["to_review"] == 0
        assert company.ask() is None
    assert company.joget.contents() == before
    company.pool.users = [*people(1), *company.pool.users]
    company.run()
    company.pool.users = company.pool.users[1:]
    company.run()
    report = company.run()
    assert causes(report) == {"rejected": 78}, (
        "the user came and left again: that is another change, and within the limits"
    )
    assert "person000@example.org" not in company.active()


def test_a_rejected_change_is_approved_when_a_later_review_shows_it_again(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    company.answer(review_id, "reject")
    company.pool.users = company.pool.users[20:]
    company.pool.members = {"All": company.pool.users}
    company.run()
    assert causes(company.run()) == {"rejected": 80, "removed_users_percent": 40}
    second = company.ask()
    assert second
    assert second != review_id
    assert company.answer(second, "approve")["review"]["applied"] == 120
    assert len(company.active()) == 40
    assert company.run()["outcome"] == "nothing_to_do"


def test_started_by_hand_it_asks_about_everything_that_the_newest_run_holds(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    mine = review.get_review_id("manual__1", {})
    with pytest.raises(PermanentError, match="is open already"):
        review.read_question("default", mine, by_hand=True)
    company.answer(review_id, "reject")
    company.run()
    question = review.read_question("default", mine, by_hand=True)
    assert question
    assert "80 changes" in question.subject
    company.answer(mine, "approve")
    assert len(company.active()) == 60
    company.run()
    with pytest.raises(PermanentError, match="holds nothing"):
        review.read_question("default", review.get_review_id("manual__2", {}), by_hand=True)


def test_a_review_by_hand_after_an_approval_needs_a_run_first(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    assert company.answer(review_id, "approve")["outcome"] == "applied"
    mine = review.get_review_id("manual__1", {})
    with pytest.raises(PermanentError, match="was approved already"):
        review.read_question("default", mine, by_hand=True)
    company.run()
    with pytest.raises(PermanentError, match="holds nothing"):
        review.read_question("default", mine, by_hand=True)


def test_the_error_says_that_a_review_was_closed_without_an_answer(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    company.joget.execute("UPDATE directory_sync_review SET closed_at = UTC_TIMESTAMP(6)")
    review.note_answer("default", review_id, "approve", "Olga")
    with pytest.raises(PermanentError, match="closed before somebody answered"):
        company.load_held(review_id)


@pytest.mark.parametrize("answer", ["approve", "reject"])
def test_an_answer_that_is_a_day_old_is_refused_unless_it_was_carried_out(
    asked: tuple[Company, str], answer: str
) -> None:
    company, review_id = asked
    review.note_answer("default", review_id, answer, "Olga")
    company.let_hours_pass(50)
    company.joget.execute(
        "UPDATE directory_sync_review SET answered_at = answered_at - INTERVAL 25 HOUR, "
        "expires_at = expires_at - INTERVAL 50 HOUR"
    )
    with pytest.raises(PermanentError, match="closed before the answer was carried out"):
        company.load_held(review_id)
    assert len(company.active()) == 100
    company.run()
    second = company.ask()
    assert second not in (None, review_id)
    assert second
    first = company.answer(second, answer)
    company.let_hours_pass(100)
    assert company.load_held(second)["review"] == first["review"], (
        "when cleared and repeated, it finishes its own report"
    )


def test_a_time_out_answers_nothing_and_the_next_run_asks_again(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    review.note_answer("default", review_id, "timed_out", None)
    assert review.read_question("default", review_id, by_hand=False) is None
    with pytest.raises(PermanentError, match="closed before somebody answered"):
        company.load_held(review_id)
    company.run()
    assert company.ask() not in (None, review_id)


def test_if_the_run_of_a_review_was_deleted_the_next_run_asks_again(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    company.run()
    assert company.ask() == review_id, "the review DAG is started under the same id, unless it runs"
    assert review.read_question("default", review_id, by_hand=False)


def test_a_review_that_nobody_answered_in_time_is_asked_anew(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    company.let_hours_pass(74)
    company.run()
    assert company.ask() not in (None, review_id)


def test_a_review_by_hand_says_if_the_load_before_it_died(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    review.note_answer("default", review_id, "timed_out", None)
    assert company.last
    (Path(company.last.url.removeprefix("file://")) / "manifest.json").unlink()
    with pytest.raises(PermanentError, match="load ended before it finished its report"):
        review.read_question("default", review.get_review_id("manual__1", {}), by_hand=True)


def test_a_second_request_opens_no_second_review(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    assert company.ask() == review_id
    assert company.joget.column("SELECT COUNT(*) FROM directory_sync_review") == [1]


def test_the_first_answer_stands(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    review.note_answer("default", review_id, "reject", "Olga")
    review.note_answer("default", review_id, "approve", "Mallory")
    report = company.load_held(review_id)
    assert report["review"]["answer"] == "reject"
    assert report["review"]["answered_by"] == "Olga"
    assert len(company.active()) == 100


def test_a_repeated_load_applies_nothing_that_its_review_did_not_show(
    asked: tuple[Company, str],
) -> None:
    company, review_id = asked
    company.answer(review_id, "approve")
    company.pool.users = company.pool.users[30:]
    company.pool.members = {"All": company.pool.users}
    company.run()
    assert causes(company.run()) == {"removed_users_percent": 60}
    assert company.load_held(review_id)["review"]["asked"] == 80
    assert len(company.active()) == 60, (
        "when cleared and repeated, it finishes its own report, and does nothing else"
    )
    assert review.read_question("default", review_id, by_hand=False) is None, (
        "the question isn't asked again"
    )


def test_unanswered_and_unknown_reviews_are_refused(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    before = company.joget.contents(prefix="")
    with pytest.raises(PermanentError, match="answer task review_held first"):
        company.load_held(review_id)
    with pytest.raises(PermanentError, match="has no review with the id"):
        review.read_question("default", "nothing", by_hand=False)
    after = company.joget.contents(prefix="")
    del before["directory_sync_lock"], after["directory_sync_lock"]
    assert after == before


def test_a_plan_that_was_changed_in_staging_is_not_asked_about(
    asked: tuple[Company, str], tmp_path: Any
) -> None:
    company, review_id = asked
    company.joget.execute("UPDATE directory_sync_review SET held_sha256 = 'another'")
    with pytest.raises(PermanentError, match="isn't the one"):
        review.read_question("default", review_id, by_hand=False)


def test_nothing_is_asked_after_a_dry_run(asked: tuple[Company, str]) -> None:
    company, review_id = asked
    review.note_answer("default", review_id, "timed_out", None)
    company.run(dry_run=True)
    assert company.ask() is None
