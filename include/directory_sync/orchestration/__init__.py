"""What Airflow imports: each sync's DAGs, their operators, and the plugin. Nothing here is
heavy.
"""
