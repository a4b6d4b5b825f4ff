"""Shows the faults of the settings file as an import error in Airflow, beside the DAGs of the syncs that are valid.

Airflow imports only files that hold the words "airflow" and "dag": this sentence is needed.
"""

from include.directory_sync import settings

settings.load().require_valid()
