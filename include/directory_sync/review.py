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

from include.directory_sync import cognito, staging
from include.directory_sync.errors import PermanentError, without_values
from include.directory_sync.joget import ledger, reviews, runs
from include.directory_sync.joget.database import Database, session
from include.directory_sync.listing import find_user, side_by_side
from include.directory_sync.loading import carry_out
from include.directory_sync.plan import Current, Plan
from include.directory_sync.plan.answers import AnswerUpdate, give_answers
from include.directory_sync.plan.approval import release_approved
from include.directory_sync.plan.changes import Excess, held_hash, row_hashes, split_by_entity
from include.directory_sync.report import Report, ReviewAnswer, holds_of, make_report
from include.directory_sync.run import Attempt, Run
from include.directory_sync.settings import Sync, find_sync
from include.directory_sync.snapshot import Manifest
from include.directory_sync.steps import SnapshotProposal
from include.directory_sync.vocabulary import REMOVALS, Cause, Entity, Reason, RunKind, describe_cause

log = logging.getLogger(__name__)

SUBS_SHOWN = 20
"""How many subs or group names the question lists by cause. Airflow keeps the text for ever."""


@dataclass(frozen=True)
class Question:
    """What the approval page shows."""

    subject: str
    body: str
    """Markdown: counts, limits, subs and group names."""


def request_review(load_url: str) -> str | None:
    """Open a review of what a load held, unless one is open; gives the id of the review whose run
    is to be started, or None.

    The review DAG's run has that id: a run that exists isn't started twice, and one that was
    deleted in Airflow is started again.
    """
    with without_values("request_review"):
        staging.require_access(load_url)
        loaded = staging.read_manifest(load_url)
        run = staging.read_run(loaded)
        plan = _published_plan(loaded)
        if run.dry_run or not plan.opens_review:
            return None
        review = _review_of(run.sync, loaded, plan, _id_of_load(run.sync, loaded.url))
        with session(run.sync.joget_conn_id) as database, ledger.lock(database, run):
            opened = reviews.open_review(database, run.sync.name)
            if opened is not None and opened.review_id != review.review_id:
                log.info(
                    "a review asked for by run %s is open already; what is held stays held",
                    unquote(opened.asked_by),
                )
                # A review by hand has a run whose id Airflow chose: no run can be started by its id.
                return opened.review_id if opened.review_id == _id_of_load(run.sync, opened.plan_url) else None
            reviews.ask(database, review, run.sync.approval.timeout_hours)
        log.info("review %s asks about %d held rows", review.review_id, len(plan.to_review))
        return review.review_id


def _id_of_load(sync: Sync, load_url: str) -> str:
    """The id of the review that a load opens."""
    return _hash(sync.name, load_url)


def review_id_of(review_run_id: str, conf: Mapping[str, Any]) -> str:
    """The review that a run of the review DAG was started with, or one of its own."""
    return str(conf.get("review") or _hash("by hand", review_run_id))


def question(sync_name: str, review_id: str, *, by_hand: bool) -> Question | None:
    """What to ask a person; None where the review was answered already or is closed.

    by_hand: opens a review of everything that the newest run holds, rejected and undone changes
    too. Raises PermanentError where there is no such review, nothing is held, or another review is
    open.
    """
    with without_values("review_held"):
        sync = find_sync(sync_name)
        staging.require_access(sync.staging_url)
        with session(sync.joget_conn_id) as database:
            if by_hand:
                _open_by_hand(database, sync, review_id)
            review = _find(database, sync, review_id)
        if review.answer or not review.is_open:
            log.info("the review was answered already, or is closed")
            return None
        plan = _asked_plan(review)
        asked = plan.to_review
        total = int((plan.directory["joget_id"].notna() & (plan.directory["entity"] == Entity.USER)).sum())
        lines = [_line(hold.cause, hold.limit, hold.figure, asked, total) for hold in holds_of(plan, asked)]
        body = "\n\n".join(
            (
                f"Run `{unquote(review.asked_by)}` of sync `{sync.name}` holds **{len(asked)} changes** of Joget's "
                f"organization `{sync.organization}` for a person:",
                "\n".join(lines),
                f"Each change with its values before and after is on that run's tab *Directory changes*, and in "
                f"`plan.parquet` of `{review.plan_url}` (rows with a `hold`).",
                "**Approve** applies those that are still the same then; **Reject** leaves them, and nobody is asked "
                "again until a change differs. Meanwhile runs go on with what is safe.",
                f"held_sha256: `{review.held_sha256}`",
            )
        )
        return Question(subject=f"{len(asked)} changes of Joget's users and groups wait for you", body=body)


def _open_by_hand(database: Database, sync: Sync, review_id: str) -> None:
    run = Run(run_id="by hand", sync=sync, dry_run=False)
    newest = runs.newest_full_run(database, run) if ledger.exists(database) else None
    if newest is None:
        raise PermanentError(f"No run of {sync.dag_id} was applied yet, so nothing is held. Run {sync.dag_id} first.")
    if reviews.find_review(database, review_id):
        return
    if "manifest.json" not in staging.names(newest.plan_url):
        raise PermanentError(
            f"The newest run of {sync.dag_id} was applied, but its task load ended before it finished "
            f"its report. Clear that task, or run {sync.dag_id} again; then start this review again."
        )
    loaded = staging.read_manifest(newest.plan_url)
    plan = _published_plan(loaded)
    if plan.to_review.empty:
        raise PermanentError(f"The newest run of {sync.dag_id} holds nothing, so there is nothing to ask.")
    if reviews.is_approved(database, newest.plan_url):
        raise PermanentError(
            f"What the newest run of {sync.dag_id} held was approved already. Run {sync.dag_id} again: it finds "
            f"what is left to ask. Then start this review again."
        )
    with ledger.lock(database, run):
        opened = reviews.open_review(database, sync.name)
        if opened is not None:
            raise PermanentError(
                f"A review that run {unquote(opened.asked_by)} asked for is open already; answer it in "
                f"{sync.review_dag_id}."
            )
        reviews.ask(database, _review_of(sync, loaded, plan, review_id), sync.approval.timeout_hours)


def _review_of(sync: Sync, loaded: Manifest, plan: Plan, review_id: str) -> reviews.Review:
    return reviews.Review(
        review_id=review_id,
        sync=sync.name,
        asked_by=loaded.run_id,
        plan_url=loaded.url,
        plan_sha256=plan.sha256,
        held_sha256=str(held_hash(plan.to_review)),
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def note_answer(sync_name: str, review_id: str, answer: str, by: str | None) -> None:
    """Write a person's answer (`approve`, `reject`) into the ledger, where the first one stands; or
    close the review (`timed_out`).
    """
    with without_values("review_held"):
        sync = find_sync(sync_name)
        with session(sync.joget_conn_id) as database:
            review = _find(database, sync, review_id)
            if answer == "timed_out":
                reviews.close_review(database, review.review_id)
            else:
                reviews.note_answer(database, review.review_id, answer, by)


def load_held(attempt: Attempt, sync_name: str, review_id: str) -> Manifest:
    """Read the answer from the ledger, plan from the newest applied snapshot, apply, and report.

    Approved rows that are still the same are applied; the rest stays held. Rejected rows are held
    in silence from then on. Raises PermanentError where the review isn't answered, or the newest
    snapshot is gone from staging.
    """
    with without_values("load_held"):
        sync = find_sync(sync_name)
        staging.require_access(sync.staging_url)
        run = Run(run_id=attempt.run_id, sync=sync, dry_run=False)
        folder = staging.open_folder(run, attempt.name)
        return carry_out(folder, lambda database: AnswerProposal(database, run, review_id))


class AnswerProposal:
    """What a person's answer asks for, planned from the newest applied snapshot: a loading.Proposal."""

    def __init__(self, database: Database, run: Run, review_id: str) -> None:
        self.review = _find(database, run.sync, review_id)
        if self.review.answer is None and not self.review.is_open:
            raise PermanentError(
                f"Review {review_id} was closed before somebody answered it: its time was over, or the sync was "
                f"detached. Nothing was applied. The next run that holds something asks again."
            )
        if self.review.answer is None:
            raise PermanentError(f"Review {review_id} isn't answered; answer task review_held first.")
        self.asked = _asked_plan(self.review).to_review
        self.run, self.kind = run, RunKind.REVIEW
        self.snapshot = SnapshotProposal(database, run, _newest_snapshot(database, run))
        self.key = hashlib.sha256(f"review\0{review_id}".encode()).hexdigest()
        self.snapshot_at, self.inputs = self.snapshot.snapshot_at, self.snapshot.inputs
        self.needs: tuple[str, ...] = (self.review.plan_url,)
        self.transformed_url = self.snapshot.transformed_url
        self.incomplete_reasons = self.snapshot.incomplete_reasons
        self.lookups = self.snapshot.lookups
        approves = self.review.answer == "approve" and self.review.is_open
        rows = _without_present(run, self.asked) if approves else self.asked.iloc[:0]
        self.approved = frozenset(row_hashes(rows))

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


def _without_present(run: Run, asked: pd.DataFrame) -> pd.DataFrame:
    """Ask the pool by name for each user whose absence is unproven, and drop the removals of users
    that it still has. Where the pool can't be asked for a sub, the person's approval counts.

    These users were too many to be asked for while the pool was listed.
    """
    unproven = asked["action"].isin(REMOVALS) & (asked["code"] == Reason.MISSING_UNASKED)
    subs = asked.loc[unproven, "sub"].tolist()
    if not subs:
        return asked
    pool = cognito.connect(run.sync, "asking for users by name")
    log.info("asking by name for %d users whose removal was approved", len(subs))
    answers = side_by_side(pool, lambda sub: find_user(pool, sub), subs)
    pool.progress.say()
    present = [sub for sub, found in zip(subs, answers, strict=True) if found]
    unanswered = sum(found is None for found in answers)
    if unanswered:
        log.warning("the pool can't be asked by name for %d of them; the approval counts", unanswered)
    if present:
        log.warning("%d users whose removal was approved are in the pool: they stay", len(present))
    return asked[~(unproven & asked["sub"].isin(present))]


def _answer_of(review: reviews.Review, asked: pd.DataFrame, plan: Plan) -> ReviewAnswer:
    applied = int(row_hashes(plan.safe).isin(set(row_hashes(asked))).sum())
    return ReviewAnswer(
        review_id=review.review_id,
        answer=str(review.answer),
        answered_by=review.answered_by,
        answered_at=review.answered_at,
        asked=len(asked),
        applied=applied,
        changed_since=len(asked) - applied if review.answer == "approve" else 0,
    )


def _find(database: Database, sync: Sync, review_id: str) -> reviews.Review:
    review = reviews.find_review(database, review_id) if ledger.exists(database) else None
    if review is None or review.sync != sync.name:
        raise PermanentError(
            f"The ledger of sync {sync.name!r} has no review with the id that this run was started with. Run "
            f"{sync.dag_id} again."
        )
    return review


def _published_plan(loaded: Manifest) -> Plan:
    report: dict[str, Any] = staging.read_json(loaded, "report.json")
    limits = [hold for hold in report["holds"] if hold["limit"] is not None]
    excesses = {hold["cause"]: Excess(hold["limit"], hold["figure"]) for hold in limits}
    changes, directory = (staging.read_frame(loaded, name) for name in ("plan.parquet", "directory.parquet"))
    return Plan(split_by_entity(changes), directory, report["memberships"], excesses)


def _asked_plan(review: reviews.Review) -> Plan:
    plan = _published_plan(staging.read_manifest(review.plan_url))
    if held_hash(plan.to_review) != review.held_sha256:
        raise PermanentError(
            f"The plan in {review.plan_url} isn't the one that review {review.review_id} asks about. Find out who "
            f"changed the staged files; nothing was written."
        )
    return plan


def _newest_snapshot(database: Database, run: Run) -> Manifest:
    newest = runs.newest_full_run(database, run)
    if newest is None:
        raise PermanentError(
            f"No run of pool {run.sync.user_pool_id} was applied yet, so there is nothing to plan from. Run "
            f"{run.sync.dag_id} first."
        )
    return staging.read_manifest(newest.transformed_url)


def _line(cause: str, limit: float | None, figure: float | None, asked: pd.DataFrame, total: int) -> str:
    rows = asked[asked["hold"] == cause]
    users = rows["sub"].dropna().unique().tolist()
    names = users or rows["group_name"].dropna().unique().tolist()
    shown = ", ".join(f"`{name}`" for name in names[:SUBS_SHOWN])
    more = f" and {len(names) - SUBS_SHOWN} more" if len(names) > SUBS_SHOWN else ""
    beyond = f"; {figure:g} is beyond the limit of {limit:g}" if limit is not None and figure is not None else ""
    whom = f"{len(users)} of {total} users" if users else f"{len(names)} groups"
    return f"- **{cause}**: {describe_cause(cause)}: {len(rows)} changes, {whom}{beyond}: {shown}{more}"
