"""What one run was asked to do: a sync's settings and the trigger form's parameters, resolved
once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from directory_sync.errors import PermanentError
from directory_sync.settings import Rules, Section, Sync, Texts


class Parameters(Section):
    """The trigger form, as people fill it in; None or empty means: as the settings say."""

    dry_run: bool = False
    user_pool_id: str | None = None
    organization: str | None = None
    users: Texts | None = None
    replay_run_id: str | None = None


class Run(Section):
    """One run, as staging's run.json holds it: every later task reads this and no settings."""

    run_id: str
    sync: Sync
    dry_run: bool
    dry_run_reason: str | None = None
    users: Texts = ()
    """The users that the run is for, by sub. Until `extract_users` has found these, what a person
    typed: subs, logins, emails or usernames. Empty, without `groups` too: everybody.
    """
    groups: Texts = ()
    """The groups that the run is for, by name, beside its users."""
    leavers: Texts = ()
    """Subs that may be removed at once if the pool, asked by name, doesn't have them."""
    is_live: bool = False
    """Whether events started it."""
    replay_run_id: str | None = None
    """An earlier run: its snapshot is planned once more, for comparison."""
    previous: Rules | None = None
    """The rules of the sync's newest run, where the settings have changed since."""

    @property
    def home(self) -> str:
        """Where the files of all runs of this sync and pool lie, below the sync's staging_url."""
        return f"{self.sync.name}/{self.sync.user_pool_id}"

    @property
    def folder(self) -> str:
        """Where the run's files lie, below the sync's staging_url."""
        return f"{self.home}/{make_folder_name(self.run_id)}"

    @property
    def is_for_some(self) -> bool:
        """Whether the run is for some users or groups only."""
        return bool(self.users or self.groups)

    @property
    def attributes(self) -> tuple[str, ...]:
        """The Cognito attributes that its snapshot must hold, sorted."""
        # After a change of the settings, the snapshot is planned with the previous ones too
        # (before_change), to tell what the change alone does.
        mappings = [self.sync.mapping, *([self.previous.mapping] if self.previous else [])]
        return tuple(sorted({name for mapping in mappings for name in mapping.attributes}))

    @property
    def changed_settings(self) -> tuple[str, ...]:
        """The settings among the rules that changed since the newest run, such as
        `mapping.first_name`.
        """
        if not self.previous:
            return ()
        now, then = self.sync.rules.model_dump(), self.previous.model_dump()
        pairs = ((section, name) for section, names in now.items() for name in names)
        return tuple(
            f"{section}.{name}"
            for section, name in pairs
            if now[section][name] != then[section][name]
        )

    @property
    def before_change(self) -> "Run":
        """The same run under the rules of the newest run before it."""
        rules = self.previous or self.sync.rules
        return self.model_copy(
            update={"sync": self.sync.model_copy(update=dict(rules)), "previous": None}
        )


@dataclass(frozen=True)
class Attempt:
    """One try of one task: `<task id>.<try>.<unique>`, unique also when a run is cleared and starts
    anew.
    """

    name: str
    run_id: str
    backfill_since: datetime | None = None
    """When this run was made, if a backfill made it."""

    def of_task(self, task: str) -> "Attempt":
        """This attempt's part that does another task's work."""
        return replace(self, name=f"{task}.{self.name.partition('.')[2]}")


def make_folder_name(run_id: str) -> str:
    """A run id as a folder of staging."""
    return quote(run_id, safe="")


def refuse_unknown_keys(conf: Mapping[str, Any], form: type[Section]) -> None:
    """Raise PermanentError for a key that the form lacks: Airflow takes such keys silently."""
    unknown = sorted(set(conf) - set(form.model_fields))
    if unknown:
        # A key that can't be a parameter's name may be a login, typed in the wrong place.
        named = ", ".join(key if key.isidentifier() else "(no name)" for key in unknown)
        known = ", ".join(form.model_fields)
        raise PermanentError(
            f"Unknown parameter(s) {named}. Known are {known}; trigger the run again."
        )


def resolve_run(
    run_id: str, sync: Sync, parameters: Mapping[str, Any], conf: Mapping[str, Any]
) -> Run:
    """A run from its sync's settings, its parameters and the raw conf that it was triggered with.

    Raises PermanentError for an unknown key in the conf and for ill-typed values. A pool or
    organization that differs from the settings makes the run a dry run.
    """
    refuse_unknown_keys(conf, Parameters)
    try:
        asked = Parameters.model_validate({**parameters, **conf})
        changes = {"user_pool_id": asked.user_pool_id, "organization": asked.organization}
        changes = {
            name: value for name, value in changes.items() if value and value != getattr(sync, name)
        }
        # Not by model_copy, which takes new values unchecked.
        target = Sync.model_validate({**sync.model_dump(), **changes})
    except ValidationError as error:
        # Without the input: a login may have been typed into the wrong field.
        faults = "; ".join(
            f"{detail['loc'][0]}: {detail['msg']}" for detail in error.errors(include_input=False)
        )
        raise PermanentError(f"Wrong parameter(s): {faults}. Trigger the run again.") from None
    reason = f"{' and '.join(changes)} differ(s) from the settings" if changes else None
    if asked.replay_run_id:
        reason = "it compares an old snapshot with Joget now"
    if asked.dry_run:
        reason = "asked for"
    return Run(
        run_id=run_id,
        sync=target,
        dry_run=bool(reason),
        dry_run_reason=reason,
        users=asked.users or (),
        replay_run_id=asked.replay_run_id or None,
    )
