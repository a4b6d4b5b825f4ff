"""Airflow's plugin: the tabs "Directory changes" on each run and "Directory" on each DAG.

Each of Airflow's processes imports this, so nothing here is heavy.
"""

from asyncio import to_thread
from collections.abc import Awaitable, Callable, MutableMapping
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

URL_PREFIX = "/directory-sync"
"""Where the pages lie below Airflow's address."""

Messages = Callable[[], Awaitable[MutableMapping[str, Any]]]
Answers = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class PagesWhenAsked:
    """An ASGI application that is imported at its first request."""

    def __init__(self) -> None:
        # Each of Airflow's processes loads the plugin, and only the API server is ever asked.
        self._pages: Any = None
        self._importing = Lock()

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Messages, send: Answers
    ) -> None:
        """Answer a request. If the pages can't be imported, nobody sees anything, and the server's
        log says why.
        """
        if self._pages is None:
            # The import takes seconds, so it has a thread: the server answers tasks meanwhile.
            await to_thread(self._import)
        await self._pages(scope, receive, send)

    def _import(self) -> None:
        with self._importing:
            if self._pages is None:
                from directory_sync.pages.routes import make_app

                self._pages = make_app()


def list_apps() -> list[dict[str, Any]]:
    """For `fastapi_apps`."""
    return [{"app": PagesWhenAsked(), "url_prefix": URL_PREFIX, "name": "Directory Sync"}]


def list_views() -> list[dict[str, Any]]:
    """For `external_views`. If Airflow finds one view invalid, it shows none of them."""
    # Airflow may be served below a path, which it doesn't add to a view's address.
    base = urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
    return [
        {
            "name": "Directory changes",
            "href": f"{base}{URL_PREFIX}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "directory-changes",
        },
        {
            "name": "Directory",
            "href": f"{base}{URL_PREFIX}/dags/{{DAG_ID}}",
            "destination": "dag",
            "url_route": "directory",
        },
    ]


class DirectorySyncPages(AirflowPlugin):
    """Airflow finds it by its class: in plugins/, or by the installed package's entry point."""

    name = "directory_sync_pages"
    fastapi_apps = list_apps()
    external_views = list_views()
