"""The tabs "Directory changes" on each run and "Directory" on each DAG."""

from airflow.plugins_manager import AirflowPlugin

from directory_sync.orchestration import plugin


class DirectorySyncPages(AirflowPlugin):
    """Airflow finds it by its class."""

    name = "directory_sync_pages"
    fastapi_apps = plugin.list_apps()
    external_views = plugin.list_views()
