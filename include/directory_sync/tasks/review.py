"""Asking a person about what a run held, and applying what was approved.

Answers are read from the ledger, never from XCom.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import pandas as pd

from directory_sync.cognito import client
from directory_sync.cognito.user_listing import find_user, run_side_by_side
from directory_sync.errors import PermanentError, hide_values
from directory_sync.joget.database import Database, open_session
from directory_sync.joget.ledger import definition, locks, reviews, runs
from directory_sync.plan import Current, Plan
from directory_sync.plan.answers import AnswerUpdate, give_answers
from directory_sync.plan.approval import release_approved
from directory_sync.plan.changes import Excess, hash_held_rows, hash_rows, split_by_entity
from directory_sync.reasons import Reason
from directory_sync.report import Report, ReviewAnswer, list_holds, make_report
from directory_sync.run import Attempt, Run
from directory_sync.settings import Sync, find_sync
from directory_sync.staging import store
from directory_sync.staging.manifest import Manifest
from directory_sync.tasks.load import SnapshotProposal
from directory_sync.tasks.proposal import carry_out_proposal
from directory_sync.vocabulary import REMOVAL_ACTIONS, Cause, Entity, RunKind, describe_cause

log = logging.getLogger(__name__)

MOST_SUBS_SHOWN = 20
"""How many subs or group names the question lists by cause. Airflow keeps the text for ever."""


@dataclass(frozen=True)
class Question:
    """What the approval page shows."""

    subject: str
    body: str
    """Markdown: counts, limits, subs and group names."""


def request_review(load_url: str) -> str | None:
    """Open a review of what a load held, unless one is open. Returns the id of the review to start
    a run for, or None.
    """
    with hide_values("request_review"):
        store.require_access(load_url)
        loaded = store.read_manifest(load_url)
        run = store.read_run(loaded)
        plan = _read_published_plan(loaded)
        if run.dry_run or not plan.opens_review:
            return None
        review = _make_review(run.sync, loaded, plan, _make_review_id(run.sync, loaded.url))
        with (
            open_session(run.sync.joget_conn_id) as database,
            locks.hold_ledger_lock(database, run),
        ):
            opened = reviews.open_review(database, run.sync.name)
            if opened is not None and opened.review_id != review.review_id:
                log.info(
                    "a review asked for by run %s is open already; what is held stays held",
                    unquote(opened.asked_by),
                )
                # The review DAG's run has the review's id: it isn't started twice, and if somebody
                # deleted it in Airflow, it is started again. A review by hand has a run id that
                # Airflow chose, so it can't be started again.
                return (
                    opened.review_id
                    if opened.review_id == _make_review_id(run.sync, opened.plan_url)
                    else None
                )
            reviews.insert_review(database, review, run.sync.approval.timeout_hours)
        log.info("review %s asks about %d held rows", review.review_id, len(plan.to_review))
        return review.review_id


def _make_review_id(sync: Sync, load_url: str) -> str:
    """The id of the review that a load opens."""
    return _hash_plan(sync.name, load_url)


def get_review_id(review_run_id: str, conf: Mapping[str, Any]) -> str:
    """The review that a run of the review DAG was started with, or one of its own."""
    return str(conf.get("review") or _hash_plan("by hand", review_run_id))


def read_question(sync_name: str, review_id: str, *, by_hand: bool) -> Question | None:
    """What to ask a person; None where the review was answered already or is closed.

    by_hand: opens a review of everything that the newest run holds, rejected and undone changes
    too. Raises PermanentError where there is no such review, nothing is held, or another review is
    open.
    """
    with hide_values("review_held"):
        sync = find_sync(sync_name)
        store.require_access(sync.staging_url)
        with open_session(sync.joget_conn_id) as database:
            if by_hand:
                _open_by_hand(database, sync, review_id)
            review = _find_review(database, sync, review_id)
        if review.answer or not review.is_open:
            log.info("the review was answered already, or is closed")
            return None
        plan = _read_asked_plan(review)
        asked = plan.to_review
        total = int(
            (plan.directory["joget_id"].notna() & (plan.directory["entity"] == Entity.USER)).sum()
        )
        lines = [
            _describe_hold(hold.cause, hold.limit, hold.figure, asked, total)
            for hold in list_holds(plan, asked)
        ]
        body = "\n\n".join(
            (
                f"Run `{unquote(review.asked_by)}` of sync `{sync.name}` holds **{len(asked)} "
                f"changes** of Joget's organization `{sync.organization}` for a person:",
                "\n".join(lines),
                "Each change with its values before and after is on that run's tab *Directory "
                f"changes*, and in `plan.parquet` of `{review.plan_url}` (rows with a `hold`).",
                "**Approve** applies the changes that are still the same then; **Reject** leaves "
                "them, and nobody is asked again until a change differs. Meanwhile runs go on with "
                "what is safe.",
                f"held_sha256: `{review.held_sha256}`",
            )
        )
        return Question(
            subject=f"{len(asked)} changes of Joget's users and groups wait for you", body=body
        )


def _open_by_hand(database: Database, sync: Sync, review_id: str) -> None:
    run = Run(run_id="by hand", sync=sync, dry_run=False)
    newest = (
        runs.find_newest_full_run(database, run)
        if definition.is_ledger_complete(database)
        else None
    )
    if newest is None:
        raise PermanentError(
            f"No run of {sync.dag_id} was applied yet, so nothing is held. Run {sync.dag_id} first."
        )
    if reviews.find_review(database, review_id):
        return  # an earlier try of this task opened it
    if "manifest.json" not in store.list_names(newest.plan_url):
        raise PermanentError(
            f"The newest run of {sync.dag_id} was applied, but its task load ended before it "
            f"finished its report. Clear that task, or run {sync.dag_id} again; then start this "
            "review again."
        )
    loaded = store.read_manifest(newest.plan_url)
    plan = _read_published_plan(loaded)
    if plan.to_review.empty:
        raise PermanentError(
            f"The newest run of {sync.dag_id} holds nothing, so there is nothing to ask."
        )
    # The newest run's plan still holds these rows, but the review that applied them came later.
    if reviews.is_approved(database, newest.plan_url):
        raise PermanentError(
            f"What the newest run of {sync.dag_id} held was approved already. Run {sync.dag_id} "
            "again: it finds what is left to ask. Then start this review again."
        )
    with locks.hold_ledger_lock(database, run):
        opened = reviews.open_review(database, sync.name)
        if opened is not None:
            raise PermanentError(
                f"A review that run {unquote(opened.asked_by)} asked for is open already; answer "
                f"it in {sync.review_dag_id}."
            )
        reviews.insert_review(
            database, _make_review(sync, loaded, plan, review_id), sync.approval.timeout_hours
        )


def _make_review(sync: Sync, loaded: Manifest, plan: Plan, review_id: str) -> reviews.Review:
    return reviews.Review(
        review_id=review_id,
        sync=sync.name,
        asked_by=loaded.run_id,
        plan_url=loaded.url,
        plan_sha256=plan.sha256,
        held_sha256=str(hash_held_rows(plan.to_review)),
    )


def _hash_plan(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def note_answer(sync_name: str, review_id: str, answer: str, by: str | None) -> None:
    """Write a person's answer (`approve`, `reject`) into the ledger, where the first one stands; or
    close the review (`timed_out`).
    """
    with hide_values("review_held"):
        sync = find_sync(sync_name)
        with open_session(sync.joget_conn_id) as database:
            review = _find_review(database, sync, review_id)
            if answer == "timed_out":
                reviews.close_review(database, review.review_id)
            else:
                reviews.note_answer(database, review.review_id, answer, by)


def load_held(attempt: Attempt, sync_name: str, review_id: str) -> Manifest:
    """Read the answer from the ledger, plan from the newest applied snapshot, apply, and report.

    Approved rows that are still the same are applied; the rest stays held. Rejected rows stay held,
    and nobody is asked about them again. Raises PermanentError where the review isn't answered, the
    answer is older than a day, or the newest snapshot is gone from staging.
    """
    with hide_values("load_held"):
        sync = find_sync(sync_name)
        store.require_access(sync.staging_url)
        run = Run(run_id=attempt.run_id, sync=sync, dry_run=False)
        folder = store.open_folder(run, attempt.name)
        return carry_out_proposal(folder, lambda database: AnswerProposal(database, run, review_id))


class AnswerProposal:
    """What a person's answer asks for, planned from the newest applied snapshot: a Proposal."""

    def __init__(self, database: Database, run: Run, review_id: str) -> None:
        self.review = _find_review(database, run.sync, review_id)
        if self.review.answer is None and not self.review.is_open:
            raise PermanentError(
                f"Review {review_id} was closed before somebody answered it: its time was over, or "
                "the sync was detached. Nothing was applied. The next run that holds something "
                "asks again."
            )
        if self.review.answer is None:
            raise PermanentError(
                f"Review {review_id} isn't answered; answer task review_held first."
            )
        self.key = hashlib.sha256(f"review\0{review_id}".encode()).hexdigest()
        # If an earlier try committed, it closed the review; this one finishes its report.
        if not self.review.is_open and runs.find_committed_run(database, self.key) is None:
            raise PermanentError(
                f"Review {review_id} was answered, and closed before the answer was carried out: "
                "24 hours had passed, or the sync was detached. Nothing was applied. Run "
                f"{run.sync.dag_id} again: if it holds something, it asks again."
            )
        self.asked = _read_asked_plan(self.review).to_review
        self.run, transformed = _find_newest_snapshot(database, run, self.review)
        self.kind = RunKind.REVIEW
        self.snapshot = SnapshotProposal(database, self.run, transformed)
        self.snapshot_at, self.inputs = self.snapshot.snapshot_at, self.snapshot.inputs
        self.needs: tuple[str, ...] = (self.review.plan_url,)
        self.transformed_url = self.snapshot.transformed_url
        self.incomplete_reasons = self.snapshot.incomplete_reasons
        self.lookups, self.arrivals = self.snapshot.lookups, self.snapshot.arrivals
        # A review that isn't open releases nothing: an earlier try acted on it, and is found by the
        # key (LoadAttempt.apply).
        approves = self.review.answer == "approve" and self.review.is_open
        rows = _drop_present_users(run, self.asked) if approves else self.asked.iloc[:0]
        self.approved = frozenset(hash_rows(rows))

    def make_plan(self, current: Current) -> Plan:
        """The snapshot's plan, with the approved rows safe."""
        return release_approved(self.snapshot.make_plan(current), self.approved)

    def update_answers(self, plan: Plan, answers: pd.DataFrame) -> AnswerUpdate:  # noqa: ARG002 - the protocol's
        """Close the review, and remember what was rejected."""
        rejects = self.review.answer == "reject" and self.review.is_open
        rejected = self.asked if rejects else self.asked.iloc[:0]
        given = give_answers(rejected, Cause.REJECTED, self.review.review_id)
        return AnswerUpdate(given=given, closes_review=self.review.review_id)

    def make_report(self, plan: Plan, outcome: str, seconds: float) -> Report:
        """Report also what was asked and answered, and how many rows were applied."""
        return make_report(
            self.run,
            plan,
            outcome=outcome,
            snapshot_at=self.snapshot_at,
            incomplete_reasons=self.incomplete_reasons,
            timings={"load_held": seconds},
            review=_answer_of(self.review, self.asked, plan),
        )


def _drop_present_users(run: Run, asked: pd.DataFrame) -> pd.DataFrame:
    """Ask the pool by name for each user with an unproven absence, and drop the removals of users
    that it still has. Where the pool can't be asked for a sub, the person's approval counts.
    """
    # These users were too many to be asked for while the pool was listed (rule 5).
    unproven = asked["action"].isin(REMOVAL_ACTIONS) & (asked["code"] == Reason.MISSING_UNASKED)
    subs = asked.loc[unproven, "sub"].tolist()
    if not subs:
        return asked
    pool = client.open_user_pool(run.sync, "asking for users by name")
    log.info("asking by name for %d users before their approved removal", len(subs))
    answers = run_side_by_side(pool, lambda sub: find_user(pool, sub), subs)
    pool.progress.say()
    present = [sub for sub, found in zip(subs, answers, strict=True) if found]
    unanswered = sum(found is None for found in answers)
    if unanswered:
        log.warning(
            "the pool can't be asked by name for %d of them; the approval counts", unanswered
        )
    if present:
        log.warning("the pool still has %d of the users to remove: they stay", len(present))
    return asked[~(unproven & asked["sub"].isin(present))]


def _answer_of(review: reviews.Review, asked: pd.DataFrame, plan: Plan) -> ReviewAnswer:
    applied = int(hash_rows(plan.safe).isin(set(hash_rows(asked))).sum())
    return ReviewAnswer(
        review_id=review.review_id,
        answer=str(review.answer),
        answered_by=review.answered_by,
        answered_at=review.answered_at,
        asked=len(asked),
        applied=applied,
        changed_since=len(asked) - applied if review.answer == "approve" else 0,
    )


def _find_review(database: Database, sync: Sync, review_id: str) -> reviews.Review:
    review = (
        reviews.find_review(database, review_id)
        if definition.is_ledger_complete(database)
        else None
    )
    if review is None or review.sync != sync.name:
        raise PermanentError(
            f"The ledger of sync {sync.name!r} has no review with the id that this run was started "
            f"with. Run {sync.dag_id} again."
        )
    return review


def _read_published_plan(loaded: Manifest) -> Plan:
    report: dict[str, Any] = store.read_json(loaded, "report.json")
    limits = [hold for hold in report["holds"] if hold["limit"] is not None]
    excesses = {hold["cause"]: Excess(hold["limit"], hold["figure"]) for hold in limits}
    changes, directory = (
        store.read_frame(loaded, name) for name in ("plan.parquet", "directory.parquet")
    )
    return Plan(split_by_entity(changes), directory, report["memberships"], excesses)


def _read_asked_plan(review: reviews.Review) -> Plan:
    plan = _read_published_plan(store.read_manifest(review.plan_url))
    if hash_held_rows(plan.to_review) != review.held_sha256:
        raise PermanentError(
            f"The plan in {review.plan_url} isn't the one that review {review.review_id} asks "
            "about. Find out who changed the staged files; nothing was written."
        )
    return plan


def _find_newest_snapshot(
    database: Database, run: Run, review: reviews.Review
) -> tuple[Run, Manifest]:
    """The newest applied snapshot of everybody, or a newer one of the users for which a run for
    some users asks; and the review's run, for everybody or for them.
    """
    newest = runs.find_newest_full_run(database, run)
    asking = store.read_manifest(review.plan_url)
    asked = store.read_run(asking)
    transformed = None if newest is None else store.read_manifest(newest.transformed_url)
    is_same_pool = asked.sync.user_pool_id == run.sync.user_pool_id
    # What the person approved is still about these leavers.
    run = run.model_copy(update={"leavers": asked.leavers if is_same_pool else ()})
    is_newer = transformed is None or asking.snapshot_at > transformed.snapshot_at
    if asked.is_for_some and is_same_pool and is_newer:
        people = {name: getattr(asked, name) for name in ("users", "groups", "is_live")}
        return run.model_copy(update=people), store.read_manifest(asking.inputs["transform"])
    if transformed is None:
        raise PermanentError(
            f"No run of pool {run.sync.user_pool_id} was applied yet, so there is nothing to plan "
            f"from. Run {run.sync.dag_id} first."
        )
    return run, transformed


def _describe_hold(
    cause: str, limit: float | None, figure: float | None, asked: pd.DataFrame, total: int
) -> str:
    rows = asked[asked["hold"] == cause]
    users = rows["sub"].dropna().unique().tolist()
    names = users or rows["group_name"].dropna().unique().tolist()
    shown = ", ".join(f"`{name}`" for name in names[:MOST_SUBS_SHOWN])
    more = f" and {len(names) - MOST_SUBS_SHOWN} more" if len(names) > MOST_SUBS_SHOWN else ""
    beyond = (
        f"; {figure:g} is beyond the limit of {limit:g}"
        if limit is not None and figure is not None
        else ""
    )
    affected = f"{len(users)} of {total} users" if users else f"{len(names)} groups"
    return (
        f"- **{cause}**: {describe_cause(cause)}: {len(rows)} changes, {affected}{beyond}: "
        f"{shown}{more}"
    )
