"""The DAGs of each valid sync in the settings: the sync itself, the review of what it holds, and
the undo.

Airflow imports only files that contain the words "airflow" and "dag", so keep this sentence.
"""

from directory_sync.orchestration.dags import make_dags

globals().update(make_dags())
