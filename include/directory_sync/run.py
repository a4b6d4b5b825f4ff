"""What one run was asked to do: a sync's settings and the trigger form's parameters, resolved once."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from include.directory_sync.errors import PermanentError
from include.directory_sync.settings import Section, Sync, Texts


class Parameters(Section):
    """The trigger form, as people fill it in; None or empty means: as the settings say."""

    dry_run: bool = False
    user_pool_id: str | None = None
    organization: str | None = None
    users: Texts | None = None


class Run(Section):
    """One run, as staging's run.json holds it: every later task reads this and no settings."""

    run_id: str
    sync: Sync
    dry_run: bool
    dry_run_reason: str | None = None
    users: Texts = ()
    """Subs or logins; empty: everybody."""

    @property
    def folder(self) -> str:
        """Where the run's files lie, below the sync's staging_url."""
        return f"{self.sync.name}/{self.sync.user_pool_id}/{quote(self.run_id, safe='')}"


def resolve(run_id: str, sync: Sync, parameters: Mapping[str, Any], conf: Mapping[str, Any]) -> Run:
    """A run from its sync's settings, its parameters and the raw conf that it was triggered with.

    Raises PermanentError for an unknown key in the conf (Airflow takes those silently) and for ill-typed values.
    A pool or organization that differs from the settings makes the run a dry run.
    """
    unknown = sorted(set(conf) - set(Parameters.model_fields))
    if unknown:
        known = ", ".join(Parameters.model_fields)
        raise PermanentError(f"Unknown parameter(s) {', '.join(unknown)}. Known are {known}; trigger the run again.")
    try:
        asked = Parameters.model_validate({**parameters, **conf})
        changes = {"user_pool_id": asked.user_pool_id, "organization": asked.organization}
        changes = {name: value for name, value in changes.items() if value and value != getattr(sync, name)}
        target = Sync.model_validate({**sync.model_dump(), **changes})
    except ValidationError as error:
        faults = "; ".join(f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors(include_input=False))
        raise PermanentError(f"Wrong parameter(s): {faults}. Trigger the run again.") from None
    reason = f"{' and '.join(changes)} differ(s) from the settings" if changes else None
    if asked.dry_run:
        reason = "asked for"
    return Run(run_id=run_id, sync=target, dry_run=bool(reason), dry_run_reason=reason, users=asked.users or ())
