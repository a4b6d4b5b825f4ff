"""What `airflow providers list` shows of the installed package."""

from typing import Any

from directory_sync import __version__


def get_provider_info() -> dict[str, Any]:
    """Describe the package, as Airflow's entry point `apache_airflow_provider` wants it."""
    return {
        "package-name": "directory-sync",
        "name": "Directory Sync: Cognito to Joget",
        "description": "Synchronises an AWS Cognito user pool into a Joget organization.",
        "versions": [__version__],
    }
