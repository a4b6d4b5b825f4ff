"""Listing a Cognito user pool: every page of every list, inside the quota."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    PaginationError,
)
from botocore.exceptions import (
    ConnectionError as UnreachableError,
)

from include.directory_sync import connections
from include.directory_sync.errors import PermanentError, TransientError
from include.directory_sync.settings import Sync

log = logging.getLogger(__name__)

PAGE = 60
"""Cognito's largest page (API reference, ListUsers, Limit)."""

LIST_GROUPS_PER_SECOND = 5
"""Cognito's quota of ListGroups for one pool, beside that of the whole account."""

WORKERS = 16
"""Groups listed at once: at 15 requests a second, answers of up to a second still use the whole rate."""

TRANSIENT_CODES = frozenset(
    {
        "TooManyRequestsException",
        "ThrottlingException",
        "LimitExceededException",
        "InternalErrorException",
        "InternalFailure",
        "ServiceUnavailable",
        "RequestTimeout",
        "ExpiredTokenException",
    }
)


class Limiter:
    """Spaces calls evenly at a rate, across threads."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1 / per_second
        self._clock, self._sleep = clock, sleep
        self._next = 0.0
        self._lock = threading.Lock()

    def take(self) -> None:
        """Wait for the next free moment."""
        with self._lock:
            now = self._clock()
            moment = max(self._next, now)
            self._next = moment + self._interval
        if moment > now:
            self._sleep(moment - now)


@dataclass
class Progress:
    """A line in the log every few seconds while a listing goes on."""

    doing: str
    every: float = 5.0
    """Seconds between two lines."""
    calls: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    _began: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self) -> None:
        """Count one request, retries included."""
        with self._lock:
            self.calls += 1

    def add(self, what: str, count: int) -> None:
        """Count what a page brought, and say so when it is time."""
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + count
            if time.monotonic() - self._said >= self.every:
                self._said = time.monotonic()
                self.say()

    def say(self) -> None:
        """Log the counts so far."""
        seconds = max(time.monotonic() - self._began, 0.001)
        found = ", ".join(f"{count:,} {what}" for what, count in self.counts.items()) or "nothing yet"
        log.info("%s: %s; %d calls, %.1f a second", self.doing, found, self.calls, self.calls / seconds)


class GroupGoneError(Exception):
    """A group was deleted between its listing and that of its members."""


class UserPool:
    """One user pool, read through one limiter for every attempt of every call."""

    def __init__(self, client: Any, user_pool_id: str, requests_per_second: float, progress: Progress) -> None:
        self._client = client
        self._pool = user_pool_id
        self.progress = progress
        all_calls = Limiter(requests_per_second)
        group_calls = Limiter(min(requests_per_second, LIST_GROUPS_PER_SECOND))

        def wait(event_name: str, **_: Any) -> None:
            if event_name.endswith(".ListGroups"):
                group_calls.take()
            all_calls.take()
            progress.call()

        # "before-send" comes before each attempt, so botocore's own retries keep to the rate as well.
        client.meta.events.register("before-send.cognito-identity-provider", wait)

    def estimated_users(self) -> int | None:
        """DescribeUserPool's EstimatedNumberOfUsers, if it gives one."""
        with self._errors("DescribeUserPool"):
            answer = self._client.describe_user_pool(UserPoolId=self._pool)
        estimated = answer["UserPool"].get("EstimatedNumberOfUsers")
        return None if estimated is None else int(estimated)

    def users(self) -> Iterator[list[dict[str, Any]]]:
        """Pages of users, in Cognito's own shape; a page may be short or empty."""
        yield from self._pages("ListUsers", "Users", "users")

    def groups(self) -> Iterator[list[dict[str, Any]]]:
        """Pages of groups."""
        yield from self._pages("ListGroups", "Groups", "groups")

    def members(self, group_name: str) -> Iterator[list[dict[str, Any]]]:
        """Pages of one group's users; raises GroupGoneError when the group was deleted meanwhile."""
        yield from self._pages("ListUsersInGroup", "Users", "memberships", GroupName=group_name)

    def _pages(self, operation: str, key: str, counted: str, **parameters: str) -> Iterator[list[dict[str, Any]]]:
        method = {"ListUsers": "list_users", "ListGroups": "list_groups"}.get(operation, "list_users_in_group")
        pages = self._client.get_paginator(method).paginate(
            UserPoolId=self._pool, PaginationConfig={"PageSize": PAGE}, **parameters
        )
        pages = iter(pages)
        tokens = set[int]()
        while True:
            with self._errors(operation):
                page = next(pages, None)
            if page is None:
                return
            token = page.get("PaginationToken") or page.get("NextToken")
            if token and hash(token) in tokens:  # botocore notices only the last one again
                raise _repeated(operation)
            tokens.add(hash(token))
            found: list[dict[str, Any]] = page.get(key) or []
            self.progress.add(counted, len(found))
            yield found

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        """Turn botocore's errors into ours, without AWS's text: it quotes parameters."""
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        except PaginationError:
            raise _repeated(operation) from None
        except CredentialRetrievalError:
            raise PermanentError(
                "AWS gave no credentials for the Connection in aws_conn_id. Check its keys or role."
            ) from None
        except (UnreachableError, HTTPClientError) as error:
            raise TransientError(f"Cognito can't be reached in {operation} ({type(error).__name__}).") from None
        except BotoCoreError as error:
            raise PermanentError(
                f"{operation} can't be asked ({type(error).__name__}). Check region, user_pool_id and the keys of the "
                f"Connection in aws_conn_id."
            ) from None
        else:
            return
        raise self._error(operation, code, status) from None

    def _error(self, operation: str, code: str, status: int) -> Exception:
        region = self._client.meta.region_name
        if code == "ResourceNotFoundException" and operation == "ListUsersInGroup":
            return GroupGoneError()
        if code == "ResourceNotFoundException":
            return PermanentError(
                f"User pool {self._pool} doesn't exist in region {region}. A pool's id begins with its region; "
                f"correct user_pool_id or region in the settings."
            )
        if code in TRANSIENT_CODES or status >= 500:  # noqa: PLR2004 - HTTP's server errors
            return TransientError(f"Cognito answered {code} to {operation}, also to the retries within the call.")
        if code == "InvalidParameterException":
            return TransientError(
                f"Cognito answered {code} to {operation}: its token may have expired. Retrying from the start."
            )
        return PermanentError(
            f"Cognito refused {operation} on user pool {self._pool} ({code}). The Connection in aws_conn_id needs "
            f"cognito-idp:{operation} on this pool's ARN, and valid keys."
        )


def _repeated(operation: str) -> TransientError:
    return TransientError(
        f"Cognito repeated a token in {operation}, so the listing can't be trusted. Retrying from its start."
    )


def connect(sync: Sync, doing: str) -> UserPool:
    """The sync's pool, through its AWS Connection; raises PermanentError where the Connection is missing."""
    connections.require(sync.aws_conn_id, "aws", "aws_conn_id")
    hook = AwsBaseHook(aws_conn_id=sync.aws_conn_id, client_type="cognito-idp", region_name=sync.region)
    # botocore's default mode, "legacy", gives up at the first TooManyRequestsException: it comes as HTTP 400.
    config = Config(retries={"mode": "standard", "total_max_attempts": 6}, max_pool_connections=WORKERS)
    client = hook.get_client_type(region_name=sync.region, config=hook.config.merge(config))
    return UserPool(client, sync.user_pool_id, sync.requests_per_second, Progress(doing))
