"""Lets Airflow find the pages' plugin where the package isn't installed."""

from directory_sync.orchestration.plugin import DirectorySyncPages

__all__ = ["DirectorySyncPages"]
