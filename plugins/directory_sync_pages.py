"""The tabs "Directory changes" on each run and "Directory" on each DAG."""

from airflow.plugins_manager import AirflowPlugin

from include.directory_sync.pages import plugin


class DirectorySyncPages(AirflowPlugin):
    """Airflow finds it by its class."""

    name = "directory_sync_pages"
    fastapi_apps = plugin.apps()
    external_views = plugin.views()
