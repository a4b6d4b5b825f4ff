"""Airflow's own approval page and its trigger, with the ledger's text, answer and review.

Airflow imports this when it parses DAG files, so modules that only a running task needs are
imported when it runs.
"""

from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowSkipException

APPROVE, REJECT = "Approve", "Reject"


class RequestReview(TriggerDagRunOperator):  # type: ignore[misc]  # the provider ships no types
    """Starts the review DAG if a load holds something new and no other review is open."""

    # Airflow puts another task's XCom only into template fields.
    template_fields = ("load_url",)

    def __init__(self, *, load_url: str | None, **kwargs: Any) -> None:
        self.load_url = load_url
        super().__init__(skip_when_already_exists=True, **kwargs)

    def execute(self, context: Context) -> None:
        """Open the review in the ledger, then start its run."""
        from directory_sync.tasks import review

        # A run by events may have had nothing to load.
        review_id = review.request_review(self.load_url) if self.load_url else None
        if review_id is None:
            raise AirflowSkipException("Nothing new is held, or a review is open already.")
        # A retry starts no second run: the id is the same, and a run that exists is skipped.
        self.conf, self.trigger_run_id = {"review": review_id}, f"review__{review_id}"
        super().execute(context)


class ReviewHeld(HITLOperator):  # type: ignore[misc]  # the provider ships no types
    """Asks a person about what a run held, and writes the answer into the ledger before anything
    acts on it.
    """

    def __init__(self, *, sync_name: str, **kwargs: Any) -> None:
        self.sync_name = sync_name
        super().__init__(subject="Held changes", options=[APPROVE, REJECT], **kwargs)

    def execute(self, context: Context) -> Any:
        """Show the question as it stands in the ledger, and wait."""
        from directory_sync.tasks import review

        review_id, by_hand = _import_review(context)
        question = review.read_question(self.sync_name, review_id, by_hand=by_hand)
        if question is None:  # answered already, or closed: load_held acts by the ledger
            return None
        self.subject, self.body = question.subject, question.body
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Write the answer into the ledger; raises AirflowSkipException after a time-out."""
        from directory_sync.tasks import review

        review_id, _ = _import_review(context)
        if event.get("error_type") == "timeout":
            review.note_answer(self.sync_name, review_id, "timed_out", None)
            # The tasks that follow would act on an answer, so they are skipped too.
            raise AirflowSkipException("Nobody answered in time; the next run asks again.")
        answered = super().execute_complete(context, event)
        answer = "approve" if answered["chosen_options"] == [APPROVE] else "reject"
        by = answered["responded_by_user"] or {}
        review.note_answer(self.sync_name, review_id, answer, by.get("name") or by.get("id"))
        return {"review": review_id, "answer": answer}


def _import_review(context: Context) -> tuple[str, bool]:
    from directory_sync.tasks import review

    conf = context["dag_run"].conf or {}
    return review.get_review_id(context["run_id"], conf), "review" not in conf
