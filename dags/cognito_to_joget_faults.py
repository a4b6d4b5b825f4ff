"""Shows the faults of the settings file as an import error, beside the DAGs of the syncs that are valid."""

from include.directory_sync import settings

settings.load().require_valid()
