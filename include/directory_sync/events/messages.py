"""Reading one message of the queue: which user or group changed, or why the message names none.

The bodies are EventBridge's envelopes around CloudTrail's records of Cognito's API.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

LONGEST_BODY_BYTES = 256 * 1024
"""EventBridge's largest event."""

HIDDEN_VALUES = frozenset({"HIDDEN_DUE_TO_SECURITY_REASONS", "HIDDEN_FOR_SECURITY_REASONS"})
"""What CloudTrail writes in the place of a private value (Cognito's guide, "Confidential data")."""

TIME_PATTERN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", re.ASCII)

EARLIEST_YEAR, LATEST_YEAR = 2014, 2199
"""Cognito opened in 2014. A year outside of these is no event's."""

READING_PREFIXES = (
    "AdminGet",
    "AdminList",
    "Describe",
    "Get",
    "List",
)
SIGN_IN_CALLS = frozenset(
    {
        "AdminInitiateAuth",
        "AdminRespondToAuthChallenge",
        "AdminUserGlobalSignOut",
        "ForgotPassword",
        "GlobalSignOut",
        "InitiateAuth",
        "ResendConfirmationCode",
        "RespondToAuthChallenge",
        "RevokeToken",
    }
)
"""Calls that people make all day, and that change nothing that the sync reads."""

DELETIONS = frozenset({"AdminDeleteUser", "DeleteUser"})


class SkipReason(StrEnum):
    """Why a well-formed message asks for nothing. The next full run sees what it may have meant."""

    FOREIGN_SOURCE = "foreign_source"
    FOREIGN_POOL = "foreign_pool"
    NO_API_CALL = "no_api_call"
    """Such as a page of managed login: CloudTrail records it without its user."""
    READS_ONLY = "reads_only"
    FAILED_CALL = "failed_call"
    NAMES_NOBODY = "names_nobody"


class Flaw(StrEnum):
    """What is wrong with a message that belongs among the dead letters."""

    TOO_LONG = "too_long"
    NO_ENVELOPE = "no_envelope"
    """No JSON, or not EventBridge's envelope."""
    NO_RECORD = "no_record"
    """Not CloudTrail's record, or one with a value that Cognito couldn't have written."""


@dataclass(frozen=True)
class PoolEvent:
    """A call that may have changed a user or a group of the pool. At least one of `sub`,
    `username` and `group_name` is there.
    """

    event_name: str
    happened_at: datetime
    """UTC."""
    sub: str | None = None
    username: str | None = field(default=None, repr=False)
    group_name: str | None = field(default=None, repr=False)

    @property
    def is_removal(self) -> bool:
        """Whether the call deleted a user."""
        return self.event_name in DELETIONS

    @property
    def is_disabling(self) -> bool:
        """Whether the call disabled a user."""
        return self.event_name == "AdminDisableUser"

    @property
    def removes_member(self) -> bool:
        """Whether the call took a user out of a group."""
        return self.event_name == "AdminRemoveUserFromGroup"


@dataclass(frozen=True)
class Skipped:
    """A message that asks for nothing."""

    reason: SkipReason


@dataclass(frozen=True)
class Malformed:
    """A message that nobody can read."""

    flaw: Flaw


ParsedMessage = PoolEvent | Skipped | Malformed


def _parse_time(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, str) or not TIME_PATTERN.fullmatch(value):
        raise ValueError
    moment = datetime.fromisoformat(value)
    if not EARLIEST_YEAR <= moment.year <= LATEST_YEAR:
        raise ValueError
    return moment.astimezone(UTC)


def _drop_hidden(value: Any) -> Any:
    return None if isinstance(value, str) and value in HIDDEN_VALUES | {""} else value


def _make_object(value: Any) -> Any:
    # CloudTrail writes null for an empty object.
    return {} if value is None else value


Moment = Annotated[datetime, BeforeValidator(_parse_time)]
# Cognito's own patterns allow no control characters (UsernameType, GroupNameType).
Named = Annotated[
    Annotated[str, StringConstraints(max_length=128, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$")] | None,
    BeforeValidator(_drop_hidden),
]
Sub = Annotated[
    Annotated[str, StringConstraints(max_length=128, pattern=r"^[0-9A-Za-z_-]+$")] | None,
    BeforeValidator(_drop_hidden),
]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class _Envelope(_Part):
    source: str
    detail_type: str = Field(alias="detail-type")
    time: str | None = None
    detail: dict[str, Any]


class _Request(_Part):
    pool: Named = Field(default=None, alias="userPoolId")
    username: Named = None
    group_name: Named = Field(default=None, alias="groupName")


class _Response(_Part):
    pool: Named = Field(default=None, alias="userPoolId")
    sub: Sub = Field(default=None, alias="userSub")


class _Additional(_Part):
    pool: Named = Field(default=None, alias="userPoolId")
    sub: Sub = None


class _Record(_Part):
    event_name: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_]+$", max_length=128)] = (
        Field(alias="eventName")
    )
    event_source: str = Field(default="cognito-idp.amazonaws.com", alias="eventSource")
    event_time: Moment | None = Field(default=None, alias="eventTime")
    error_code: str | None = Field(default=None, alias="errorCode")
    read_only: bool | None = Field(default=None, alias="readOnly")
    request: Annotated[_Request, BeforeValidator(_make_object)] = Field(
        default=_Request(), alias="requestParameters"
    )
    response: Annotated[_Response, BeforeValidator(_make_object)] = Field(
        default=_Response(), alias="responseElements"
    )
    additional: Annotated[_Additional, BeforeValidator(_make_object)] = Field(
        default=_Additional(), alias="additionalEventData"
    )

    @property
    def pool(self) -> str | None:
        return self.request.pool or self.additional.pool or self.response.pool

    @property
    def sub(self) -> str | None:
        return self.additional.sub or self.response.sub


class _Time(_Part):
    time: Moment


def parse_message(body: str, user_pool_id: str) -> ParsedMessage:
    """Read a message's body. It raises no error, whatever the body is."""
    if len(body.encode("utf-8", "surrogatepass")) > LONGEST_BODY_BYTES:
        return Malformed(Flaw.TOO_LONG)
    # pydantic's errors quote the values, so none of them leaves this function.
    try:
        envelope = _Envelope.model_validate_json(body)
    except (ValidationError, UnicodeEncodeError):
        return Malformed(Flaw.NO_ENVELOPE)
    if reason := _find_reason_of_envelope(envelope):
        return Skipped(reason)
    try:
        record = _Record.model_validate(envelope.detail)
        happened_at = record.event_time or _Time.model_validate({"time": envelope.time}).time
    except ValidationError:
        return Malformed(Flaw.NO_RECORD)
    return _read_record(record, happened_at, user_pool_id)


def _find_reason_of_envelope(envelope: _Envelope) -> SkipReason | None:
    if envelope.source != "aws.cognito-idp":
        return SkipReason.FOREIGN_SOURCE
    if envelope.detail_type != "AWS API Call via CloudTrail":
        return SkipReason.NO_API_CALL
    return None


def _read_record(record: _Record, happened_at: datetime, user_pool_id: str) -> ParsedMessage:
    if reason := _find_reason(record, user_pool_id):
        return Skipped(reason)
    event = PoolEvent(
        record.event_name,
        happened_at,
        sub=record.sub,
        username=record.request.username,
        group_name=record.request.group_name,
    )
    # A user's own calls carry a token in the place of the pool. A sub is unique everywhere, and
    # another pool's sub is nobody here. A name means nothing without its pool.
    named = event.sub or (record.pool and (event.username or event.group_name))
    return event if named else Skipped(SkipReason.NAMES_NOBODY)


def _find_reason(record: _Record, user_pool_id: str) -> SkipReason | None:
    if record.event_source != "cognito-idp.amazonaws.com":
        return SkipReason.FOREIGN_SOURCE
    if record.pool is not None and record.pool != user_pool_id:
        return SkipReason.FOREIGN_POOL
    if record.error_code:  # some records of calls that succeeded have an empty one
        return SkipReason.FAILED_CALL
    if record.read_only or _changes_nothing(record.event_name):
        return SkipReason.READS_ONLY
    return None


def _changes_nothing(event_name: str) -> bool:
    return event_name in SIGN_IN_CALLS or event_name.startswith(READING_PREFIXES)
