"""The sync's pages inside Airflow: what a run changed, how runs went, and why a user is as they
are. They only read.
"""
