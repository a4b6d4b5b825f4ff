"""The sync's pages inside Airflow: what a run changed, how runs went, and why a user is as he is. They only read."""
