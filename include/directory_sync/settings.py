"""The settings file, parsed once: one validated value for each sync, and every fault at once."""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from croniter import croniter
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from directory_sync.errors import PermanentError, SettingsError

DEFAULT_PATH = Path(__file__).parent.parent / "syncs.yaml"
LONGEST_EXTRACT_HOURS = 20
"""Celery hands a task to a second worker after a day (visibility_timeout in docker-compose.yaml).
"""

# The sync `default` has the DAGs cognito_to_joget_review, _undo and _live.
RESERVED_SYNC_NAMES = frozenset({"review", "undo", "live"})

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,40}$")]
Filled = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^\S(.*\S)?$")]
Attribute = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^\S+$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0)]


def _make_tuple(value: Any) -> Any:
    # YAML has no tuples, and strict parsing takes no list for one.
    return tuple(value) if isinstance(value, list) else value


Texts = Annotated[tuple[Filled, ...], BeforeValidator(_make_tuple)]
"""A list of texts, kept as a tuple so that nothing changes it after parsing."""


Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+$")]
Regions = Annotated[tuple[Region, ...], BeforeValidator(_make_tuple)]


class Section(BaseModel):
    """A part of the settings: unknown keys and ill-typed values are faults, and nothing changes
    after parsing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Mapping(Section):
    """Which Cognito attribute fills which column of dir_user; None leaves the column to Joget."""

    username: Attribute = "email"
    """An attribute, or `preferred_username_or_email`, `cognito_username`, `sub`."""
    first_name: Attribute | None = "given_name"
    last_name: Attribute | None = "family_name"
    email: Attribute | None = "email"
    time_zone: Attribute | None = "zoneinfo"
    time_zone_default: Filled | None = None
    """Written where the pool has no time zone; None leaves Joget's."""
    locale: Attribute | None = "locale"
    locale_default: Filled | None = None

    @model_validator(mode="after")
    def _has_columns_of_defaults(self) -> "Mapping":
        for column in ("time_zone", "locale"):
            if getattr(self, column) is None and getattr(self, f"{column}_default") is not None:
                raise ValueError(
                    f"{column}_default has no effect without {column}; name an attribute there"
                )
        return self

    @property
    def attributes(self) -> tuple[str, ...]:
        """The Cognito attributes that a snapshot must hold, sorted."""
        # Each snapshot has the Cognito username and the sub in columns of their own.
        logins = {
            "preferred_username_or_email": {"preferred_username", "email"},
            "cognito_username": set[str](),
            "sub": set[str](),
        }
        others = {self.first_name, self.last_name, self.email, self.time_zone, self.locale} - {
            None,
            "sub",
        }
        return tuple(
            sorted(logins.get(self.username, {self.username}) | {name for name in others if name})
        )


class Scope(Section):
    """Which users and groups are synchronised at all."""

    statuses: Texts = ("CONFIRMED", "EXTERNAL_PROVIDER", "FORCE_CHANGE_PASSWORD", "RESET_REQUIRED")
    include_groups: Texts = ("*",)
    exclude_groups: Texts = ()
    exclude_users: Texts = ()

    def has_group(self, group_name: str, user_pool_id: str) -> bool:
        """Whether a group is synchronised."""
        return (
            # Cognito makes a group `<pool>_<Provider>` for federation, and puts each federated user
            # into it.
            not group_name.startswith(f"{user_pool_id}_")
            and any(fnmatchcase(group_name, pattern) for pattern in self.include_groups)
            and not any(fnmatchcase(group_name, pattern) for pattern in self.exclude_groups)
        )


class Policies(Section):
    """What happens where the pool and Joget disagree."""

    existing_user: Literal["adopt_sso", "adopt", "quarantine"] = "adopt_sso"
    existing_group: Literal["careful", "adopt"] = "careful"
    existing_memberships: Literal["keep", "sync"] = "keep"
    missing_user: Literal["deactivate", "delete", "keep"] = "deactivate"
    missing_runs: Annotated[int, Field(ge=1)] = 2
    missing_minutes: Count = 10
    delete_after_days: Count | None = None
    missing_group: Literal["keep", "delete"] = "keep"
    left_over: Literal["keep", "ask"] = "keep"
    renamed_user: Literal["hold", "rename", "keep"] = "hold"
    new_password: Literal["none", "random"] = "none"  # noqa: S105 - names a policy, not a password


class Limits(Section):
    """What is held for a person when a run would change more."""

    floor: Count = 5
    removed_users_percent: Percent = 5
    disabled_users_percent: Percent = 20
    removed_memberships_percent: Percent = 20
    emptied_group_percent: Percent = 50
    changed_users_percent: Percent = 50
    created_users: Count | None = None
    max_users: Count | None = None


class Proof(Section):
    """How far a listing may be off and still count as complete."""

    count_tolerance_percent: Percent = 5
    newcomers: Count = 20


class Approval(Section):
    """Who answers what is held, and how long the question stays open."""

    timeout_hours: Annotated[float, Field(gt=0)] = 72
    approvers: Texts = ()


class Events(Section):
    """Changes as they happen, from the pool's events in a queue."""

    queue_url: Annotated[str, StringConstraints(pattern=r"^https?://\S+/\S+$")] | None = None
    """An SQS queue; None: no live DAG."""
    leavers_at_once: bool = True
    """Whether a user whom an event and a direct question show deleted or disabled is deactivated at
    once; if not, the next run for everybody decides."""
    promise_minutes: Annotated[float, Field(gt=0)] | None = None
    """An alert is sent when a change took longer to reach Joget."""


class Alerts(Section):
    """Who is told when a sync's state changes."""

    notifier: Filled | None = None
    """A Connection for Airflow's notifiers."""

    @field_validator("notifier")
    @classmethod
    def _is_a_connection(cls, notifier: str | None) -> str | None:
        if notifier and "://" in notifier:
            raise ValueError("is an address; name an Airflow Connection instead")
        return notifier


class Rules(Section):
    """The settings that decide what becomes of each user and group. After they are changed, the
    next run reports what the change alone does.
    """

    mapping: Mapping
    scope: Scope
    policies: Policies


class Sync(Section):
    """One pool, one Joget organization, one DAG."""

    name: Name
    schedule: str | None = None
    # Pattern and length are those of Cognito's API (UserPoolIdType).
    user_pool_id: Annotated[str, StringConstraints(pattern=r"^[\w-]+_[0-9a-zA-Z]+$", max_length=55)]
    region: Region
    read_regions: Regions = ()
    """Regions with a replica of the pool that is read instead of the one in `region`."""
    organization: Filled
    aws_conn_id: Filled = "cognito_aws"
    joget_conn_id: Filled = "joget_mysql"
    staging_url: str
    staging_retention_days: Annotated[int, Field(ge=1)] | None = 30
    requests_per_second: Annotated[float, Field(gt=0)] = 15
    extract_timeout_hours: Annotated[float, Field(ge=0.5, le=LONGEST_EXTRACT_HOURS)] = 12
    airflow_pool: Filled | None = None
    load_queue: Filled | None = None
    """The queue of the tasks that reach Joget, where only some workers can reach it."""
    mapping: Mapping = Mapping()
    scope: Scope = Scope()
    policies: Policies = Policies()
    limits: Limits = Limits()
    proof: Proof = Proof()
    approval: Approval = Approval()
    events: Events = Events()
    alerts: Alerts = Alerts()

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if name in RESERVED_SYNC_NAMES:
            raise ValueError(f"'{name}' is the ending of another DAG's id; choose another name")
        return name

    @field_validator("schedule")
    @classmethod
    def _is_cron(cls, schedule: str | None) -> str | None:
        if schedule is not None and not croniter.is_valid(schedule):
            raise ValueError(
                'is no cron expression; write five fields such as "0 * * * *", or null for by hand '
                "only"
            )
        return schedule

    @field_validator("staging_url")
    @classmethod
    def _is_a_store(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            return url.rstrip("/")
        if parts.scheme in {"", "file"}:
            raise ValueError(
                "must be a URL: s3://<aws connection>@<bucket>/<prefix>, or file:///<absolute path>"
            )
        connection, at, bucket = parts.netloc.rpartition("@")
        if not (connection and at and bucket):
            raise ValueError("names no Connection; write s3://<aws connection>@<bucket>/<prefix>")
        if ":" in connection:
            raise ValueError("holds credentials; name an Airflow Connection instead")
        return url.rstrip("/")

    @property
    def dag_id(self) -> str:
        """The id of this sync's DAG."""
        return "cognito_to_joget" if self.name == "default" else f"cognito_to_joget_{self.name}"

    @property
    def review_dag_id(self) -> str:
        """The id of the DAG that asks a person about what is held."""
        return f"{self.dag_id}_review"

    @property
    def undo_dag_id(self) -> str:
        """The id of the DAG that takes a run back."""
        return f"{self.dag_id}_undo"

    @property
    def live_dag_id(self) -> str:
        """The id of the DAG that applies changes as they happen, where events.queue_url is set."""
        return f"{self.dag_id}_live"

    @property
    def rules(self) -> Rules:
        """Mapping, scope and policies."""
        return Rules(mapping=self.mapping, scope=self.scope, policies=self.policies)


@dataclass(frozen=True)
class Settings:
    """The valid syncs of a settings file, and the faults of the others, a sentence each."""

    path: Path
    syncs: tuple[Sync, ...]
    faults: tuple[str, ...]

    def require_valid(self) -> None:
        """Raise SettingsError with every fault of the file, if it has any."""
        if self.faults:
            faults = "\n".join(f"  - {fault}" for fault in self.faults)
            raise SettingsError(
                f"{len(self.faults)} fault(s) in the settings file {self.path}:\n{faults}"
            )

    def find_sync(self, name: str) -> Sync:
        """The valid sync of that name. Raises SettingsError with every fault of the file, or
        PermanentError where a file without faults has no such sync.
        """
        for sync in self.syncs:
            if sync.name == name:
                return sync
        # The sync may be one of the faulty ones; then its faults say more than "no such sync".
        self.require_valid()
        names = ", ".join(sync.name for sync in self.syncs) or "none"
        raise PermanentError(
            f"{self.path} holds no sync named {name!r}. It has: {names}. Correct the name or the "
            "settings, then run again."
        )


def get_settings_path() -> Path:
    """The settings file: DIRECTORY_SYNC_CONFIG, or include/syncs.yaml."""
    return Path(os.environ.get("DIRECTORY_SYNC_CONFIG") or DEFAULT_PATH)


def load_settings(path: Path | None = None) -> Settings:
    """Read a settings file. It never raises an error: everything wrong is a fault of the returned
    value.
    """
    # Airflow imports this with the DAGs: an error would take the DAGs of the valid syncs away too.
    advice = "" if path else "; set DIRECTORY_SYNC_CONFIG to the path of your settings"
    path = path or get_settings_path()
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        return Settings(path, (), (f"the file does not exist{advice}",))
    except (OSError, UnicodeDecodeError) as error:
        return Settings(path, (), (f"the file can't be read: {type(error).__name__}",))
    except yaml.YAMLError as error:
        return Settings(path, (), (f"the file is no YAML: {_describe_yaml_fault(error)}",))
    return Settings(path, *parse_settings(content))


def find_sync(name: str) -> Sync:
    """The valid sync of that name in the settings file; raises as Settings.find_sync."""
    return load_settings().find_sync(name)


def parse_settings(content: Any) -> tuple[tuple[Sync, ...], tuple[str, ...]]:
    """The valid syncs of a parsed settings file and the faults of everything else."""
    if (
        not isinstance(content, dict)
        or not isinstance(content.get("syncs"), list)
        or not content["syncs"]
    ):
        return (), ("the file must hold a list `syncs` with at least one sync",)
    faults = [f"{key}: unknown key; only `syncs` is known" for key in content if key != "syncs"]
    syncs: list[Sync] = []
    for position, raw in enumerate(content["syncs"], start=1):
        label = (
            f"sync {raw['name']!r}"
            if isinstance(raw, dict) and isinstance(raw.get("name"), str)
            else ""
        )
        label = label or f"sync number {position}"
        try:
            syncs.append(Sync.model_validate(raw))
        except ValidationError as error:
            faults += [
                f"{label}: {_describe_fault(detail)}"
                for detail in error.errors(include_input=False)
            ]
    twins = _find_duplicates(syncs)
    faults += twins.values()
    return tuple(sync for position, sync in enumerate(syncs) if position not in twins), tuple(
        faults
    )


def _find_duplicates(syncs: list[Sync]) -> dict[int, str]:
    """A fault for each sync, by position, that shares a name, a Joget organization or a queue with
    another: none of them may run.
    """
    faults = {}
    for position, sync in enumerate(syncs):
        others = [other for at, other in enumerate(syncs) if at != position]
        if any(other.name == sync.name for other in others):
            faults[position] = f"sync {sync.name!r}: another sync has the same name"
        elif sync.events.queue_url and any(
            other.events.queue_url == sync.events.queue_url for other in others
        ):
            faults[position] = (
                f"sync {sync.name!r}: another sync has the same events.queue_url, and each would "
                "take the other's messages"
            )
        elif any(_describe_target(other) == _describe_target(sync) for other in others):
            faults[position] = (
                f"sync {sync.name!r}: another sync has the same joget_conn_id and organization"
            )
    return faults


def _describe_target(sync: Sync) -> tuple[str, str]:
    return sync.joget_conn_id, sync.organization


def _describe_fault(detail: Any) -> str:
    setting = ".".join(str(part) for part in detail["loc"]) or "the sync"
    if detail["type"] == "extra_forbidden":
        return f"{setting}: unknown setting"
    if detail["type"] == "missing":
        return f"{setting}: is required"
    return f"{setting}: {detail['msg'].removeprefix('Value error, ')}"


def _describe_yaml_fault(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it can't be parsed"
    return f"{problem} (line {mark.line + 1})" if mark else problem


class _UniqueKeyLoader(yaml.SafeLoader):
    """Loads YAML, and treats a key given twice as a fault."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; raises ConstructorError naming a repeated key."""
        # SafeLoader silently keeps the last value of such a key.
        seen = set[Any]()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
