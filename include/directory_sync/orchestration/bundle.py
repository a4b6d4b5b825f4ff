"""The installed package's DAGs, for Airflow's `[dag_processor] dag_bundle_config_list`."""

from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.local import LocalDagBundle

DAG_FILES = Path(__file__).parent / "dag_files"
"""Where the wheel has the files of dags/."""


class DirectorySyncBundle(LocalDagBundle):
    """The package's own DAG files, so that nothing has to be copied into a DAGs folder."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(path=str(DAG_FILES), **settings)
