"""The pages' routes. Each one checks Airflow's own permissions, and only reads."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException as StarletteHTTPException

from directory_sync.errors import (
    DirectorySyncError,
    MissingFilesError,
    TransientError,
    describe_error,
)
from directory_sync.pages import changes, changes_csv, run_history, run_summary
from directory_sync.pages.airflow_runs import (
    AirflowRun,
    SyncDag,
    find_run,
    find_sync_dag,
    list_newest_runs,
    list_sync_dags,
    list_waiting_reviews,
)
from directory_sync.pages.changes import ChangeFilter
from directory_sync.pages.delay_summary import summarize_delays
from directory_sync.pages.labels import count_nouns
from directory_sync.pages.left_over import find_left_over
from directory_sync.pages.permissions import (
    MAY_READ_RUNS_DEPENDENCY,
    SIGNED_IN_DEPENDENCY,
    Reader,
    make_hidden_name,
    may_read_runs,
    may_see_values,
)
from directory_sync.pages.published_files import PublishedRun, open_published_run
from directory_sync.pages.run_history import Quarantine
from directory_sync.pages.user_answer import UserQuery, answer_query
from directory_sync.pages.user_search import find_logins
from directory_sync.reasons import advise_on_reason
from directory_sync.report import Quarantined
from directory_sync.staging import store

log = logging.getLogger(__name__)

PAGES_FOLDER = Path(__file__).parent
ASSET_TYPES = {
    "chart.umd.min.js": "text/javascript",
    "pages.js": "text/javascript",
    "pages.css": "text/css",
}

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Pages load nothing from other sites and run nothing inline; no cache keeps names and emails."""

templates = Jinja2Templates(directory=PAGES_FOLDER / "templates")
templates.env.globals["count_nouns"] = count_nouns


class NothingHereError(Exception):
    """There is no page to show; the reader gets this sentence instead, with the HTTP status."""

    def __init__(self, sentence: str, *, status: int) -> None:
        super().__init__(sentence)
        self.status = status


MOST_QUARANTINED = 200
"""How many quarantined records a page shows; report.json has all."""

ChangeFilterForm = Annotated[ChangeFilter, Form()]
UserQueryForm = Annotated[UserQuery, Form()]


def make_app() -> FastAPI:
    """The application. It checks permissions on every path, also where there is no page."""
    # Airflow guards no plugin's routes, so these dependencies do. FastAPI runs them for none of its
    # own routes, which show documentation, so those are off.
    app = FastAPI(
        title="Directory Sync",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[SIGNED_IN_DEPENDENCY],
    )
    app.get("/static/{name}")(send_asset)
    # What a reader asks for comes as a form: an address with a login in it would stay in access
    # logs, browser histories and referrers (docs/pages.md).
    run = "/dags/{dag_id}/runs/{run_id}"
    app.get(run, dependencies=[MAY_READ_RUNS_DEPENDENCY])(show_run_page)
    app.post(run, dependencies=[MAY_READ_RUNS_DEPENDENCY])(show_filtered_run_page)
    app.post(f"{run}/changes.csv", dependencies=[MAY_READ_RUNS_DEPENDENCY])(send_changes_csv)
    app.get("/dags/{dag_id}", dependencies=[MAY_READ_RUNS_DEPENDENCY])(show_directory_page)
    app.post("/dags/{dag_id}", dependencies=[MAY_READ_RUNS_DEPENDENCY])(show_explanation)
    # Nor does FastAPI run them where no route fits. This one fits every other path, and comes last
    # because the first route that fits answers.
    app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])(
        refuse_unknown_path
    )
    app.exception_handler(NothingHereError)(_render_nothing_here)
    # The handler of the nearest class answers.
    app.exception_handler(TransientError)(_render_sentence(503))
    app.exception_handler(MissingFilesError)(_render_sentence(404))
    app.exception_handler(DirectorySyncError)(_render_sentence(500))
    app.exception_handler(StarletteHTTPException)(_render_refusal)
    app.exception_handler(RequestValidationError)(_render_wrong_request)
    app.middleware("http")(_add_headers)
    return app


def send_asset(name: str) -> Response:
    """Send a style or script of ours, or the copy of the chart library that lies beside them."""
    if name not in ASSET_TYPES:
        raise HTTPException(404)
    return FileResponse(PAGES_FOLDER / "static" / name, media_type=ASSET_TYPES[name])


def show_run_page(request: Request, dag_id: str, run_id: str, user: Reader) -> Response:
    """The tab "Directory changes" of a run."""
    return show_filtered_run_page(request, dag_id, run_id, user, ChangeFilter())


def show_filtered_run_page(
    request: Request, dag_id: str, run_id: str, user: Reader, asked: ChangeFilterForm
) -> Response:
    """The tab "Directory changes", with the changes that its form asks for."""
    sync_dag, run, found = _open_published_run(dag_id, run_id)
    values = may_see_values(user, sync_dag.sync)
    with store.open_parquet(found.folder, "plan.parquet") as file:
        rows = changes.read_page(file, asked, values=values)
    quarantine = found.quarantine[:MOST_QUARANTINED]
    return _render_page(
        request,
        "run.html",
        root="../../../",
        values=values,
        sync_dag=sync_dag,
        run=run,
        report=found.report,
        dry_run_reason=found.run.dry_run_reason if found.run else "",
        headline=run_summary.make_headline(found.report),
        tiles=run_summary.make_tiles(found.report),
        held=run_summary.list_held_causes(found.report),
        stages=run_summary.list_stages(found),
        quarantine=quarantine,
        more_quarantined=found.quarantined - len(quarantine),
        logins=_find_logins(found, quarantine, values=values),
        left_over=find_left_over(found, values=values),
        advise_on_reason=advise_on_reason,
        asked=asked,
        rows=rows,
        hidden_group=make_hidden_name,
    )


def send_changes_csv(dag_id: str, run_id: str, user: Reader, asked: ChangeFilterForm) -> Response:
    """Every change that the form asks for, on all its pages, as a CSV file."""
    sync_dag, run, found = _open_published_run(dag_id, run_id)
    values = may_see_values(user, sync_dag.sync)

    def parts() -> Iterator[bytes]:
        try:
            with store.open_parquet(found.folder, "plan.parquet") as file:
                yield from changes_csv.write_csv(file, asked, values=values)
        except DirectorySyncError:
            raise
        except Exception as error:
            # Once the answer has begun, the server logs an error with its message, which may quote
            # a value.
            raise TransientError(f"The download failed: {describe_error(error)}") from None

    sent = parts()
    first = next(sent)  # so that a missing file gives an error page, not an empty download
    name = quote(f"directory-changes-{run.run_id}.csv", safe="")
    disposition = f"attachment; filename*=UTF-8''{name}"
    return StreamingResponse(
        chain([first], sent), media_type="text/csv", headers={"Content-Disposition": disposition}
    )


def show_directory_page(request: Request, dag_id: str, user: Reader) -> Response:
    """The tab "Directory" of a DAG."""
    return _render_directory_page(request, dag_id, user, None)


def show_explanation(request: Request, dag_id: str, user: Reader, asked: UserQueryForm) -> Response:
    """The tab "Directory", with the explanation of the user that its form names."""
    return _render_directory_page(request, dag_id, user, asked)


def _render_directory_page(
    request: Request, dag_id: str, user: Any, asked: UserQuery | None
) -> Response:
    sync = _require_sync_dag(dag_id).sync
    store.require_access(sync.staging_url)
    values = may_see_values(user, sync)
    sync_dags = [
        sync_dag
        for sync_dag in list_sync_dags(sync)
        if sync_dag.dag_id == dag_id or may_read_runs(user, sync_dag.dag_id)
    ]
    dag_ids = [sync_dag.dag_id for sync_dag in sync_dags]
    past = run_history.read_past_runs(sync_dags, list_newest_runs(dag_ids, run_history.RUNS_SHOWN))
    newest, holder = (
        run_history.find_newest_full_run(past),
        run_history.find_newest_holding_run(past),
    )
    quarantine = run_history.read_quarantine(past, MOST_QUARANTINED)
    read = newest.published if newest else None
    return _render_page(
        request,
        "directory.html",
        root="../",
        values=values,
        sync=sync,
        complete=run_history.find_newest_complete_run(past),
        past=[
            (run, run_summary.make_headline(run.published.report) if run.published else run.fault)
            for run in past
        ],
        waiting=list_waiting_reviews(sync.review_dag_id) if sync.review_dag_id in dag_ids else [],
        holder=holder,
        held=run_summary.list_held_causes(holder.published.report)
        if holder and holder.published
        else [],
        delays=summarize_delays(past, sync),
        quarantine=quarantine,
        more_quarantined=read.quarantined - len(quarantine) if read else 0,
        logins=_find_logins(read, quarantine, values=values) if read else {},
        advise_on_reason=advise_on_reason,
        series=json.dumps(run_history.make_chart_series(past, sync)),
        hidden_group=make_hidden_name,
        asked=asked,
        answer=answer_query(sync_dags, past, asked, values=values) if asked else None,
    )


def _find_logins(
    found: PublishedRun, quarantine: Iterable[Quarantined | Quarantine], *, values: bool
) -> dict[str, str]:
    return (
        find_logins(found, [record.key for record in quarantine if record.entity == "user"])
        if values
        else {}
    )


def refuse_unknown_path() -> Response:
    """Refuse a path that no other route has."""
    raise HTTPException(404)


def _require_sync_dag(dag_id: str) -> SyncDag:
    sync_dag = find_sync_dag(dag_id)
    if sync_dag is None:
        raise NothingHereError(
            "This DAG is no directory sync's, so there is nothing to show here. Where it is one, "
            "its settings are faulty or gone: Airflow's list of DAGs shows import errors with "
            "what to correct.",
            status=404,
        )
    return sync_dag


def _open_published_run(dag_id: str, run_id: str) -> tuple[SyncDag, AirflowRun, PublishedRun]:
    sync_dag = _require_sync_dag(dag_id)
    run = find_run(dag_id, run_id)
    if run is None:
        raise NothingHereError(
            "Airflow has no such run of this DAG: it was deleted, or never made.", status=404
        )
    url = run.folder(sync_dag.reporting_task)
    if url is None:
        # The run is there, and the sentence says how it stands.
        raise NothingHereError(run_summary.describe_unfinished(sync_dag, run), status=200)
    store.require_access(sync_dag.sync.staging_url)
    return sync_dag, run, open_published_run(sync_dag.sync, url)


def _render_page(request: Request, name: str, *, root: str, **values: Any) -> HTMLResponse:
    """Render a template. `root`: the address of the pages, relative to this page; Airflow's own
    address is one level above it.
    """
    return templates.TemplateResponse(
        request, name, {"root": root, "airflow": f"{root}../", **values}
    )


def _render_sentence(status: int) -> Callable[[Request, Exception], Response]:
    def say(request: Request, error: Exception) -> Response:
        return _render_error(request, str(error), status)

    return say


def _render_nothing_here(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, NothingHereError) else 500
    return _render_error(request, str(error), status)


def _render_error(request: Request, sentence: str, status: int) -> Response:
    # Links are relative, since Airflow may lie below a path of its own. Each slash is a level below
    # the plugin's address.
    depth = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/").count("/")
    answer = _render_page(request, "sentence.html", root="../" * depth or "./", sentence=sentence)
    answer.status_code = status
    return answer


REFUSAL_SENTENCES = {
    401: "Sign in to Airflow first.",
    403: "Airflow doesn't let you see this: you need the rights to read this DAG's runs and to "
    "read plugins.",
    404: "There is no such page.",
    405: "These pages only read.",
}


def _render_refusal(_: Request, error: Exception) -> Response:
    """Answer in plain text: a person without access gets no page of ours."""
    status = error.status_code if isinstance(error, StarletteHTTPException) else 500
    return Response(
        REFUSAL_SENTENCES.get(status, "This can't be answered."), status, media_type="text/plain"
    )


def _render_wrong_request(request: Request, _: Exception) -> Response:
    return _render_error(
        request, "This page doesn't know what was asked of it. Open the tab again.", 422
    )


async def _add_headers(request: Request, call_next: Callable[[Request], Any]) -> Response:
    """Add SECURITY_HEADERS to every answer. An unforeseen error is logged by its type and place."""
    # Errors end here: Starlette's ServerErrorMiddleware, around this, raises them again for the
    # server to log, and their text may quote a value.
    try:
        answer: Response = await call_next(request)
    except Exception as error:
        log.error("a page failed: %s", describe_error(error))
        answer = Response(
            "This page failed; the API server's log says where.", 500, media_type="text/plain"
        )
    for name, value in SECURITY_HEADERS.items():
        answer.headers[name] = value
    return answer
