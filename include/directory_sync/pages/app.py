"""The pages' routes. Each is behind Airflow's own permissions, reads, and never writes."""

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
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as StarletteHTTPException

from include.directory_sync import staging
from include.directory_sync.errors import DirectorySyncError, TransientError, described
from include.directory_sync.pages import changes, history, telling
from include.directory_sync.pages.airflow_runs import (
    AirflowRun,
    Place,
    changing_runs,
    find_run,
    newest_runs,
    place_of,
    places_of,
    waiting_reviews,
)
from include.directory_sync.pages.changes import Wanted
from include.directory_sync.pages.explaining import explain
from include.directory_sync.pages.history import PastRun, Quarantine
from include.directory_sync.pages.left_over import find_left_over
from include.directory_sync.pages.published import Published, published
from include.directory_sync.pages.rights import (
    MAY_READ_RUNS,
    SIGNED_IN,
    Reader,
    hidden_group,
    may_read_runs,
    may_see_values,
)
from include.directory_sync.pages.seeking import Sought, logins, seek
from include.directory_sync.pages.wording import count_nouns
from include.directory_sync.report import Quarantined
from include.directory_sync.vocabulary import advise_on_reason

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
ASSETS = {"chart.umd.min.js": "text/javascript", "pages.js": "text/javascript", "pages.css": "text/css"}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "form-action 'self'; frame-ancestors 'self'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Nothing from elsewhere, nothing inline; names and emails are in no cache."""

templates = Jinja2Templates(directory=HERE / "templates")
templates.env.globals["count_nouns"] = count_nouns


class NothingHereError(Exception):
    """A sentence instead of a page."""


MOST_QUARANTINED = 200
"""Rows of quarantine that a page shows; report.json has all."""

RUNS_LOOKED_AT, MOST_RUNS = 100, 12_500
"""Runs with changes in which somebody is looked for, at first and at most, besides the last ones."""


class Asked(BaseModel):
    """Whom a reader asks about, as the form of "Explain a user" sends it."""

    model_config = ConfigDict(frozen=True)

    who: Annotated[str, Field(max_length=200)] = ""
    """A login, an email or a sub."""
    sub: Annotated[str, Field(max_length=200)] = ""
    """Of several who were found, this one."""
    back: Annotated[int, Field(ge=1, le=MOST_RUNS)] = RUNS_LOOKED_AT


WantedDep = Annotated[Wanted, Form()]
AskedDep = Annotated[Asked, Form()]


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
    quarantine = found.quarantine[:MOST_QUARANTINED]
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
        quarantine=quarantine,
        more_quarantined=found.quarantined - len(quarantine),
        logins=_logins(found, quarantine, values=values),
        left_over=find_left_over(found, values=values),
        advise_on_reason=advise_on_reason,
        asked=asked,
        rows=rows,
        hidden_group=hidden_group,
    )


def changes_csv(dag_id: str, run_id: str, user: Reader, asked: WantedDep) -> Response:
    """The changes that the form asks for, all pages of them, as a file."""
    place, run, found = _open(dag_id, run_id)
    values = may_see_values(user, place.sync)

    def parts() -> Iterator[bytes]:
        try:
            with staging.open_parquet(found.folder, "plan.parquet") as file:
                yield from changes.as_csv(file, asked, values=values)
        except DirectorySyncError:
            raise
        except Exception as error:
            raise TransientError(f"The download failed: {described(error)}") from None

    sent = parts()
    first = next(sent)  # a file that is gone is a sentence, and no empty download
    name = quote(f"directory-changes-{run.run_id}.csv", safe="")
    disposition = f"attachment; filename*=UTF-8''{name}"
    return StreamingResponse(chain([first], sent), media_type="text/csv", headers={"Content-Disposition": disposition})


def directory_page(request: Request, dag_id: str, user: Reader) -> Response:
    """The tab "Directory" of a DAG."""
    return _directory(request, dag_id, user, None)


def explain_page(request: Request, dag_id: str, user: Reader, asked: AskedDep) -> Response:
    """The same, with the way of the user whom its form names."""
    return _directory(request, dag_id, user, asked)


def _directory(request: Request, dag_id: str, user: Any, asked: Asked | None) -> Response:
    sync = _place(dag_id).sync
    staging.require_access(sync.staging_url)
    values = may_see_values(user, sync)
    places = [place for place in places_of(sync) if place.dag_id == dag_id or may_read_runs(user, place.dag_id)]
    dag_ids = [place.dag_id for place in places]
    past = history.past_runs(places, newest_runs(dag_ids, history.RUNS_SHOWN))
    newest, holder = history.newest_full(past), history.newest_holder(past)
    quarantine = history.quarantine(past, MOST_QUARANTINED)
    read = newest.published if newest else None
    return _page(
        request,
        "directory.html",
        root="../",
        values=values,
        sync=sync,
        complete=history.newest_complete(past),
        past=[(one, telling.headline(one.published.report) if one.published else one.fault) for one in past],
        waiting=waiting_reviews(sync.review_dag_id) if sync.review_dag_id in dag_ids else [],
        holder=holder,
        held=telling.held_causes(holder.published.report) if holder and holder.published else [],
        quarantine=quarantine,
        more_quarantined=read.quarantined - len(quarantine) if read else 0,
        logins=_logins(read, quarantine, values=values) if read else {},
        advise_on_reason=advise_on_reason,
        series=json.dumps(history.series(past, sync)),
        hidden_group=hidden_group,
        **_explained(places, past, asked, values=values),
    )


def _explained(places: list[Place], past: list[PastRun], asked: Asked | None, *, values: bool) -> dict[str, Any]:
    """What "Explain a user" shows: the user that was found, their way, and how far back the runs were looked at."""
    if asked is None or history.newest_full(past) is None:
        return {"asked": asked, "sought": None, "explained": None, "looked": [], "further": None}
    older = changing_runs([place.dag_id for place in places], asked.back)
    there = {(one.run.dag_id, one.run.run_id) for one in past}
    looked = past + history.past_runs(places, [run for run in older if (run.dag_id, run.run_id) not in there])
    looked.sort(key=lambda one: one.ended, reverse=True)
    sought = Sought((asked.sub,)) if asked.sub else seek(asked.who, looked, values=values)
    explained = explain(sought.subs[0], looked, values=values) if len(sought.subs) == 1 else None
    return {
        "asked": asked,
        "sought": sought,
        "explained": explained if explained and explained.is_known else None,
        "looked": looked,
        "further": min(asked.back * 5, MOST_RUNS) if len(older) == asked.back < MOST_RUNS else None,
    }


def _logins(found: Published, quarantine: Iterable[Quarantined | Quarantine], *, values: bool) -> dict[str, str]:
    return logins(found, [one.key for one in quarantine if one.entity == "user"]) if values else {}


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
    staging.require_access(place.sync.staging_url)
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
