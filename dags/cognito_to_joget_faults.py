"""Shows the faults of the settings file as an import error in Airflow, beside the valid syncs'
DAGs.

Airflow imports only files that contain the words "airflow" and "dag", so keep this sentence.
"""

from directory_sync import settings

settings.load_settings().require_valid()
