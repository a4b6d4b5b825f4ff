"""The pages' routes. Each is behind Airflow's own permissions, reads, and never writes."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response, StreamingResponse
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException as StarletteHTTPException

from include.directory_sync import staging
from include.directory_sync.errors import DirectorySyncError, TransientError, described
from include.directory_sync.pages import changes, explaining, history, telling
from include.directory_sync.pages.airflow_runs import AirflowRun, Place, find_run, newest_runs, place_of
from include.directory_sync.pages.changes import Wanted
from include.directory_sync.pages.published import Published, published
from include.directory_sync.pages.rights import MAY_READ_RUNS, SIGNED_IN, Reader, may_read_runs, may_see_values
from include.directory_sync.wording import quarantine_to_do

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
ASSETS = {"chart.umd.min.js": "text/javascript", "pages.js": "text/javascript", "pages.css": "text/css"}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Nothing from elsewhere, nothing inline; names and emails are in no cache."""

templates = Jinja2Templates(directory=HERE / "templates")


class NothingHereError(Exception):
    """A sentence instead of a page."""


WantedDep = Annotated[Wanted, Form()]


def make_app() -> FastAPI:
    """The application, without documentation routes; a request for anything else is refused like the pages."""
    app = FastAPI(title="Directory Sync", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[SIGNED_IN])
    app.get("/static/{name}")(asset)
    run = "/dags/{dag_id}/runs/{run_id}"
    app.get(run, dependencies=[MAY_READ_RUNS])(run_page)
    app.post(run, dependencies=[MAY_READ_RUNS])(run_page_of)
    app.post(f"{run}/changes.csv", dependencies=[MAY_READ_RUNS])(changes_csv)
    app.get("/dags/{dag_id}", dependencies=[MAY_READ_RUNS])(directory_page)
    app.post("/dags/{dag_id}", dependencies=[MAY_READ_RUNS])(explain_page)
    app.api_route("/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])(nothing)
    app.exception_handler(NothingHereError)(_sentence(200))
    app.exception_handler(TransientError)(_sentence(503))
    app.exception_handler(DirectorySyncError)(_sentence(200))
    app.exception_handler(StarletteHTTPException)(_refusal)
    app.exception_handler(RequestValidationError)(_wrong_request)
    app.middleware("http")(_with_headers)
    return app


def asset(name: str) -> Response:
    """A style or script of ours, or of a library in the version that lies beside it."""
    if name not in ASSETS:
        raise HTTPException(404)
    return FileResponse(HERE / "static" / name, media_type=ASSETS[name])


def run_page(request: Request, dag_id: str, run_id: str, user: Reader) -> Response:
    """The tab "Directory changes" of a run."""
    return run_page_of(request, dag_id, run_id, user, Wanted())


def run_page_of(request: Request, dag_id: str, run_id: str, user: Reader, asked: WantedDep) -> Response:
    """The same, with the changes that its form asks for."""
    place, run, found = _open(dag_id, run_id)
    values = may_see_values(user, place.sync)
    with staging.open_parquet(found.folder, "plan.parquet") as file:
        rows = changes.page(file, asked, values=values)
    return _page(
        request,
        "run.html",
        root="../../../",
        values=values,
        place=place,
        run=run,
        report=found.report,
        dry_run_reason=found.run.dry_run_reason if found.run else "",
        headline=telling.headline(found.report),
        tiles=telling.tiles(found.report),
        held=telling.held_causes(found.report),
        stages=telling.stages(found),
        quarantine=[(one, quarantine_to_do(one.reason)) for one in found.report.quarantine[:MOST_QUARANTINED]],
        asked=asked,
        rows=rows,
        hidden_group=changes.hidden_group,
    )


MOST_QUARANTINED = 200
"""Rows of quarantine that a page shows; directory.parquet has all."""


def changes_csv(dag_id: str, run_id: str, user: Reader, asked: WantedDep) -> Response:
    """The changes that the form asks for, all pages of them, as a file."""
    place, run, found = _open(dag_id, run_id)
    values = may_see_values(user, place.sync)

    def lines() -> Any:
        with staging.open_parquet(found.folder, "plan.parquet") as file:
            yield from changes.as_csv(file, asked, values=values)

    name = quote(f"directory-changes-{run.run_id}.csv", safe="")
    disposition = f"attachment; filename*=UTF-8''{name}"
    return StreamingResponse(lines(), media_type="text/csv", headers={"Content-Disposition": disposition})


def directory_page(request: Request, dag_id: str, user: Reader) -> Response:
    """The tab "Directory" of a DAG."""
    return _directory(request, dag_id, user, None, "")


def explain_page(
    request: Request,
    dag_id: str,
    user: Reader,
    who: Annotated[str, Form()] = "",
    sub: Annotated[str, Form()] = "",
) -> Response:
    """The same, with the way of the user whom its form names by a login, an email or a sub."""
    return _directory(request, dag_id, user, who[:200], sub[:200])


def _directory(request: Request, dag_id: str, user: Any, who: str | None, sub: str) -> Response:
    place = _place(dag_id)
    sync = place.sync
    values = may_see_values(user, sync)
    kinds = {dag: found for dag in (sync.dag_id, sync.review_dag_id, sync.undo_dag_id) if (found := place_of(dag))}
    readable = {dag: found for dag, found in kinds.items() if dag == dag_id or may_read_runs(user, dag)}
    runs = newest_runs(list(readable), history.RUNS_SHOWN)
    past = history.past_runs(readable, runs)
    newest = explaining.newest_full(past)
    complete = next(
        (one for one in past if history.is_full(one) and one.published and one.published.report.complete), None
    )
    subs = [sub] if sub else []
    if who is not None and newest and not sub:
        subs = explaining.find_subs(who, newest, past, values=values)
    return _page(
        request,
        "directory.html",
        root="../",
        values=values,
        place=place,
        sync=sync,
        newest=newest,
        complete=complete,
        past=past,
        headlines={one.run.run_id: telling.headline(one.published.report) for one in past if one.published},
        waiting=[run for run in runs if run.tasks.get("review_held") == "awaiting_input"],
        held=telling.held_causes(newest.report) if newest else [],
        quarantine=[(one, quarantine_to_do(one.reason)) for one in history.quarantine(past)[:MOST_QUARANTINED]],
        series=json.dumps(history.series(past, sync)),
        who=who,
        subs=subs,
        explained=explaining.explain(subs[0], newest, past, values=values) if newest and len(subs) == 1 else None,
        hidden_group=changes.hidden_group,
    )


def nothing() -> Response:
    """Whatever else is asked for."""
    raise HTTPException(404)


def _place(dag_id: str) -> Place:
    place = place_of(dag_id)
    if place is None:
        raise NothingHereError(
            "This DAG is no directory sync's, so there is nothing to show here. Where it is one, its settings are "
            "faulty or gone: Airflow's list of DAGs shows import errors with what to correct."
        )
    return place


def _open(dag_id: str, run_id: str) -> tuple[Place, AirflowRun, Published]:
    place = _place(dag_id)
    run = find_run(dag_id, run_id)
    if run is None:
        raise NothingHereError("Airflow has no such run of this DAG: it was deleted, or never made.")
    url = run.folder(place.reporting_task)
    if url is None:
        raise NothingHereError(telling.unfinished(place, run))
    return place, run, published(place.sync, url)


def _page(request: Request, name: str, *, root: str, **values: Any) -> HTMLResponse:
    """`root`: the pages' own address, relative to this one's; Airflow's is one above."""
    return templates.TemplateResponse(request, name, {"root": root, "airflow": f"{root}../", **values})


def _sentence(status: int) -> Callable[[Request, Exception], Response]:
    def say(request: Request, error: Exception) -> Response:
        return _said(request, str(error), status)

    return say


def _said(request: Request, sentence: str, status: int) -> Response:
    depth = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/").count("/")
    answer = _page(request, "sentence.html", root="../" * depth or "./", sentence=sentence)
    answer.status_code = status
    return answer


REFUSALS = {
    401: "Sign in to Airflow first.",
    403: "Airflow doesn't let you see this: it takes the rights to read this DAG's runs, and to read plugins.",
    404: "There is no such page.",
    405: "These pages only read.",
}


def _refusal(_: Request, error: Exception) -> Response:
    """In plain text: nothing else is given to whom Airflow refuses."""
    status = error.status_code if isinstance(error, StarletteHTTPException) else 500
    return Response(REFUSALS.get(status, "This can't be answered."), status, media_type="text/plain")


def _wrong_request(request: Request, _: Exception) -> Response:
    return _said(request, "The page was asked for something that it doesn't know. Open the tab again.", 422)


async def _with_headers(request: Request, call_next: Callable[[Request], Any]) -> Response:
    """Of an error that nobody thought of, its kind and place go to the log, and no value that it may quote."""
    try:
        answer: Response = await call_next(request)
    except Exception as error:
        log.error("a page failed: %s", described(error))  # and not its text
        answer = Response("This page failed; the API server's log says where.", 500, media_type="text/plain")
    for name, value in HEADERS.items():
        answer.headers[name] = value
    return answer
