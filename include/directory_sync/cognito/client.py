"""Calling Cognito: every page of a list, inside the quota, with errors that quote nothing."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
)
from botocore.exceptions import (
    ConnectionError as UnreachableError,
)

from directory_sync import connections
from directory_sync.cognito.rate_limit import ProgressLine, RateLimiter
from directory_sync.cognito.regions import AbsenceUnprovenError, RegionDownError, RegionOrder
from directory_sync.errors import PermanentError, TransientError
from directory_sync.settings import Sync

log = logging.getLogger(__name__)

USERS_IN_A_PAGE = 60
"""Cognito's largest page (API reference, ListUsers, Limit)."""

LIST_GROUPS_CALLS_PER_SECOND = 5
"""Cognito's quota of ListGroups for one pool, beside that of the whole account."""

ROWS_OF_LISTS = {"ListUsers": "Users", "ListGroups": "Groups", "ListUsersInGroup": "Users"}
"""The member of an answer that has its rows, by operation."""

MOST_LISTS_AT_ONCE = 16
"""Lists under way at once: at 30 requests a second, answers of up to half a second still use the
whole rate.
"""

ATTEMPTS_OF_A_CALL = 6
"""How often botocore tries one call, with growing delays."""

ATTEMPTS_BEFORE_NEXT_REGION = 3
"""How often botocore tries one call where another Region can be asked next."""

ATTEMPTS_OF_A_TRIAL = 2
CONNECT_SECONDS, CONNECT_SECONDS_OF_A_TRIAL = 60, 5
"""Seconds that an attempt waits for a connection. A run has botocore's default; a trial is shorter,
since somebody waits for its result. So is each attempt where another Region can be asked instead.
"""

ANSWER_TO_A_CUT = b'{"__type": "RequestTimeoutException"}'

THROTTLING_CODES = frozenset({"TooManyRequestsException", "ThrottlingException"})

TRANSIENT_CODES = frozenset(
    {
        "LimitExceededException",
        "InternalErrorException",
        "InternalFailure",
        "ServiceUnavailable",
        "RequestTimeout",
        "ExpiredTokenException",
    }
)


class StoppedError(Exception):
    """A list was stopped because another one failed."""


class _InvalidParameterError(Exception):
    """A bad filter, or a bad or expired token: Cognito doesn't say which."""


class ThrottledError(TransientError):
    """Cognito throttled a call, and botocore's retries of it."""


class GroupGoneError(Exception):
    """A group was deleted after the groups were listed, and before its members were."""


class UserGoneError(TransientError):
    """A user was deleted after the pool was asked for them, and before their groups were."""


class TokenDiedError(Exception):
    """Cognito doesn't accept a list's token any more: the list has to begin again."""


class FilterRefusedError(Exception):
    """The pool doesn't take this filter."""


class UserPool:
    """One user pool, read through one limiter for every attempt of every call."""

    def __init__(
        self, client: Any, user_pool_id: str, requests_per_second: float, progress: ProgressLine
    ) -> None:
        self._client = client
        self._pool = user_pool_id
        self.progress = progress
        self.requests_per_second = requests_per_second
        self._stop = threading.Event()
        all_calls = RateLimiter(requests_per_second)
        group_calls = RateLimiter(min(requests_per_second, LIST_GROUPS_CALLS_PER_SECOND))

        def wait(event_name: str, **_: Any) -> None:
            if event_name.endswith(".ListGroups"):
                group_calls.take()
            all_calls.take()
            if self._stop.is_set():
                raise StoppedError
            progress.call()

        def slow_down(parsed_response: dict[str, Any] | None, **_: Any) -> None:
            if parsed_response and parsed_response.get("Error", {}).get("Code") in THROTTLING_CODES:
                progress.throttle()
                if all_calls.throttled():
                    log.info(
                        "Cognito throttles; going on with %.1f calls a second", all_calls.per_second
                    )

        # All three run for each attempt, so botocore's own retries keep to the rate and are counted
        # too.
        client.meta.events.register("before-send.cognito-identity-provider", wait)
        client.meta.events.register("response-received.cognito-identity-provider", slow_down)
        client.meta.events.register("before-parse.cognito-identity-provider", _fail_cut_answer)

    def count_calls(self) -> dict[str, int]:
        """The calls so far, throttled ones too, and how many were throttled."""
        return {"calls": self.progress.calls, "throttled_calls": self.progress.throttled}

    @property
    def region(self) -> str:
        """The Region in which the pool is read."""
        return str(self._client.meta.region_name)

    @property
    def reads_replica(self) -> bool:
        """Whether what the pool lacks may only be late: the sign-in Region has to confirm it."""
        return False

    @contextmanager
    def confirming(self) -> Iterator["UserPool"]:
        """The pool in the sign-in Region, for questions about what another Region lacks.

        Raises AbsenceUnprovenError where a replica is in use and the sign-in Region is down.
        """
        yield self

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block every list ends at its next page, with StoppedError."""
        self._stop.set()
        try:
            yield
        finally:
            self._stop.clear()

    def estimated_users(self) -> int | None:
        """DescribeUserPool's EstimatedNumberOfUsers, if it gives one."""
        with self._errors("DescribeUserPool"):
            answer = self._client.describe_user_pool(UserPoolId=self._pool)
        estimated = _read_member(answer, "UserPool", "DescribeUserPool").get(
            "EstimatedNumberOfUsers"
        )
        return None if estimated is None else int(estimated)

    def users(self, wanted: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Pages of users, in Cognito's own shape; a page may be short or empty. `wanted` is a
        filter of ListUsers.

        Raises TokenDiedError where the list has to begin again, and FilterRefusedError.
        """
        yield from self._pages(
            "ListUsers", "Users", "users", **({"Filter": wanted} if wanted else {})
        )

    def groups(self) -> Iterator[list[dict[str, Any]]]:
        """Pages of groups."""
        yield from self._pages("ListGroups", "Groups", "groups")

    def members(self, group_name: str) -> Iterator[list[dict[str, Any]]]:
        """Pages of one group's users.

        Raises GroupGoneError when the group was deleted meanwhile, TokenDiedError where the list
        has to begin again.
        """
        yield from self._pages("ListUsersInGroup", "Users", "memberships", GroupName=group_name)

    def groups_of_user(self, cognito_username: str) -> Iterator[list[dict[str, Any]]]:
        """Pages of the groups that one user is in.

        Raises UserGoneError where the user was deleted meanwhile, TokenDiedError where the list
        has to begin again.
        """
        yield from self._pages(
            "AdminListGroupsForUser", "Groups", "memberships", Username=cognito_username
        )

    def read_first_rows(
        self, operation: str, limit: int, **parameters: str
    ) -> list[dict[str, Any]]:
        """The first rows of a list, by one call. `operation` is a key of ROWS_OF_LISTS.

        Raises TransientError where Cognito throttles it, and GroupGoneError.
        """
        call = getattr(self._client, xform_name(operation))
        try:
            with self._errors(operation):
                answer = call(UserPoolId=self._pool, Limit=limit, **parameters)
        except _InvalidParameterError:
            raise _make_refused_parameters_error(operation) from None
        rows: list[dict[str, Any]] = _read_member(answer, ROWS_OF_LISTS[operation], operation)
        return rows

    def read_clock(self) -> datetime | None:
        """AWS's time, to the second, from the Date header of an answer; None where it has none."""
        with self._errors("DescribeUserPool"):
            try:
                answer = self._client.describe_user_pool(UserPoolId=self._pool)
            except ClientError as error:  # a refusal has the header too
                answer = error.response
        headers = answer["ResponseMetadata"].get("HTTPHeaders", {})
        try:
            return parsedate_to_datetime(headers["date"])
        except (KeyError, ValueError):
            return None

    def _pages(
        self, operation: str, key: str, counted: str, **parameters: str
    ) -> Iterator[list[dict[str, Any]]]:
        """Pages of a list; raises TransientError for a repeated token. `counted` is the progress
        line's word for the rows.
        """
        # botocore's paginator isn't used: it can't go on from a throttled page.
        named = "PaginationToken" if operation == "ListUsers" else "NextToken"
        token: str | None = None
        tokens = set[int]()
        while True:
            page = self._page(operation, parameters | ({named: token} if token else {}))
            token = page.get(named)
            if hash(token) in tokens:
                raise TransientError(
                    f"Cognito repeated a token in {operation}, so the listing can't be trusted. "
                    "Retrying from its start."
                )
            found: list[dict[str, Any]] = _read_member(page, key, operation)
            self.progress.add(counted, len(found))
            yield found
            # Cognito gives short and empty pages in mid-list, so only a missing token ends it.
            if not token:
                return
            tokens.add(hash(token))

    def _page(self, operation: str, parameters: dict[str, str]) -> dict[str, Any]:
        """One page; waits for as long as Cognito throttles it."""
        call = getattr(self._client, xform_name(operation))
        while True:
            if self._stop.is_set():
                raise StoppedError
            try:
                with self._errors(operation):
                    answer: dict[str, Any] = call(
                        UserPoolId=self._pool, Limit=USERS_IN_A_PAGE, **parameters
                    )
                    return answer
            except ThrottledError:
                # A failed task would begin its list again. The limiter is slower by now, and the
                # task's time-out ends this loop (docs/faults.md).
                log.info("%s is still throttled; asking for the same page again", operation)
            except _InvalidParameterError:
                # Cognito has one code for a bad filter and a dead token. A page with a token isn't
                # the first one, so its filter was taken before.
                if "PaginationToken" in parameters or "NextToken" in parameters:
                    raise TokenDiedError from None
                if "Filter" in parameters:
                    raise FilterRefusedError from None
                raise _make_refused_parameters_error(operation) from None

    @contextmanager
    def _errors(self, operation: str) -> Iterator[None]:
        """Turn botocore's errors into ours."""
        try:
            yield
        except ClientError as error:
            code = error.response["Error"]["Code"]
            status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        except CredentialRetrievalError:
            raise PermanentError(
                "AWS gave no credentials for the Connection in aws_conn_id. Check its keys or role."
            ) from None
        except (UnreachableError, HTTPClientError) as error:
            raise RegionDownError(
                f"Cognito can't be reached in {operation} ({type(error).__name__}). Does this "
                f"worker resolve and reach Cognito's address of region {self.region}?"
            ) from None
        except BotoCoreError as error:
            raise PermanentError(
                f"{operation} can't be asked ({type(error).__name__}). Check region, user_pool_id "
                "and the keys of the Connection in aws_conn_id."
            ) from None
        else:
            return
        # AWS's text quotes parameters, and a traceback would show it.
        raise self._error(operation, code, status) from None

    def _make_gone_error(self, operation: str, code: str) -> Exception:
        if code == "UserNotFoundException":
            return UserGoneError(
                f"A user was deleted while the sync was reading them ({operation}). Retrying."
            )
        # The same code says that a pool doesn't exist, but this pool was just listed.
        if operation == "ListUsersInGroup":
            return GroupGoneError()
        return PermanentError(
            f"User pool {self._pool} doesn't exist in region {self.region}. A pool is in the "
            "region where it was made, and in those of its replicas: correct user_pool_id, "
            "region or read_regions in the settings, or the parameter user_pool_id."
        )

    def _error(self, operation: str, code: str, status: int) -> Exception:
        if code in {"ResourceNotFoundException", "UserNotFoundException"}:
            return self._make_gone_error(operation, code)
        if code == "OperationNotEnabledException":
            return PermanentError(
                f"Region {self.region} doesn't serve {operation} on user pool {self._pool}. No "
                f"right is missing: an inactive replica answers so ({code}). Set region to the "
                "region where users sign in, and take this one out of read_regions."
            )
        if code in THROTTLING_CODES | TRANSIENT_CODES or status >= 500:  # noqa: PLR2004 - HTTP's server errors
            kind = ThrottledError if code in THROTTLING_CODES else RegionDownError
            return kind(
                f"Cognito answered {code} to {operation}, also to the retries within the call."
            )
        if code == "InvalidParameterException":
            return _InvalidParameterError()
        return PermanentError(
            f"Cognito refused {operation} on user pool {self._pool} ({code}) in region "
            f"{self.region}. The Connection in aws_conn_id needs cognito-idp:{operation} on this "
            "pool's ARN (docs/iam-policy.json), in this region, and valid keys."
        )


class ReplicatedPool(UserPool):
    """A pool whose lists are read in the first of several Regions that answers.

    Replication lags, so what a replica lacks is confirmed in the sign-in Region. Everything that
    isn't overridden here is asked there too.
    """

    def __init__(self, sign_in: UserPool, in_order: Sequence[UserPool]) -> None:
        # The client, its limiter and the progress line of the sign-in Region.
        vars(self).update(vars(sign_in))
        self.sign_in, self.in_order = sign_in, tuple(in_order)
        self._order = RegionOrder(in_order)
        self._is_sign_in_down = False

    @property
    def reads_replica(self) -> bool:
        """Whether a replica is in use."""
        return self._order.in_use is not self.sign_in

    @contextmanager
    def confirming(self) -> Iterator[UserPool]:
        """The pool in the sign-in Region; see UserPool."""
        try:
            # Once is enough: each of many questions would wait for the time-outs of its attempts.
            if not self._is_sign_in_down:
                yield self.sign_in
                return
        except RegionDownError as error:
            if not self.reads_replica:
                raise
            self._is_sign_in_down = True
            log.warning("%s What a replica lacks isn't proven absent", error)
        raise AbsenceUnprovenError(
            f"The sign-in region {self.region} can't be asked about what the pool's replica lacks, "
            "so nobody is missing. It is tried again."
        )

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Within the block every list of every Region ends at its next page."""
        with ExitStack() as stack:
            for pool in self.in_order:
                stack.enter_context(pool.stopped())
            yield

    def estimated_users(self) -> int | None:
        """The estimate of the Region in use."""
        return self._order.ask(lambda pool: pool.estimated_users())

    def users(self, wanted: str | None = None) -> Iterator[list[dict[str, Any]]]:
        """Pages of users, of one Region; see UserPool. Raises RegionLeftError too."""
        yield from self._order.list_pages(lambda pool: pool.users(wanted))

    def groups(self) -> Iterator[list[dict[str, Any]]]:
        """Pages of groups, of one Region. Raises RegionLeftError too."""
        yield from self._order.list_pages(lambda pool: pool.groups())

    def members(self, group_name: str) -> Iterator[list[dict[str, Any]]]:
        """Pages of one group's users, of one Region; see UserPool.

        Raises GroupGoneError only where the sign-in Region lacks the group too; RegionLeftError and
        AbsenceUnprovenError as well.
        """
        # Looked up before and after, since another thread may leave a Region meanwhile.
        was_replica = self.reads_replica
        try:
            yield from self._order.list_pages(lambda pool: _list_members(pool, group_name))
        except GroupGoneError:
            if not (was_replica or self.reads_replica):
                raise
            with self.confirming() as sign_in:
                yield from _list_members(sign_in, group_name)


def _list_members(pool: UserPool, group_name: str) -> Iterator[list[dict[str, Any]]]:
    try:
        yield from pool.members(group_name)
    except GroupGoneError:
        # The same code says that a pool doesn't exist, and perhaps only another Region was listed.
        pool.estimated_users()
        raise


def _make_refused_parameters_error(operation: str) -> PermanentError:
    return PermanentError(f"Cognito refused the parameters of {operation}; report this.")


def _fail_cut_answer(response_dict: dict[str, Any], **_: Any) -> None:
    """Turn an answer with a cut body into a time-out, so that botocore asks again."""
    headers = {name.lower(): value for name, value in response_dict["headers"].items()}
    # The header has the length before decompression, and the body is decompressed already.
    length = None if "content-encoding" in headers else headers.get("content-length")
    # botocore would take a cut body for an empty answer, and so for the end of the list.
    if length is not None and int(length) != len(response_dict["body"]):
        response_dict.update(status_code=HTTPStatus.REQUEST_TIMEOUT.value, body=ANSWER_TO_A_CUT)


def _read_member(answer: dict[str, Any], name: str, operation: str) -> Any:
    """Read a member that every answer to the operation has; raises TransientError without it."""
    # botocore gives an empty answer for a body that it can't read, such as a proxy's page, and an
    # empty answer would look like the end of a list.
    if answer.get(name) is None:
        raise RegionDownError(
            f"The answer to {operation} has no {name}, so it can't be Cognito's, or was cut. Does "
            "a proxy stand between this worker and Cognito?"
        )
    return answer[name]


def open_sign_in_pool(sync: Sync, doing: str) -> UserPool:
    """The sync's pool in its sign-in Region alone, for questions about some users: a replica may
    not know yet what just changed. Raises as open_user_pool.
    """
    return open_user_pool(sync.model_copy(update={"read_regions": ()}), doing)


def open_user_pool(sync: Sync, doing: str, *, waits: bool = True) -> UserPool:
    """The sync's pool, through its AWS Connection, in the Regions that the settings name. `waits`:
    whether a call is tried for minutes where Cognito can't be reached. A run waits; a command that
    somebody watches doesn't.

    Raises PermanentError where the Connection is missing, TransientError where it can't be looked
    up now.
    """
    progress = ProgressLine(doing)
    # The sign-in Region is the last resort, unless read_regions gives it another place.
    *first, last = dict.fromkeys([*sync.read_regions, sync.region])
    attempts = ATTEMPTS_OF_A_CALL if waits else ATTEMPTS_OF_A_TRIAL
    fewer = min(attempts, ATTEMPTS_BEFORE_NEXT_REGION)
    in_order = [_open_region(sync, region, progress, fewer, soon=True) for region in first]
    in_order.append(_open_region(sync, last, progress, attempts, soon=bool(first) or not waits))
    sign_in = next(pool for pool in in_order if pool.region == sync.region)
    return ReplicatedPool(sign_in, in_order) if first else sign_in


def _open_region(
    sync: Sync, region: str, progress: ProgressLine, attempts: int, *, soon: bool
) -> UserPool:
    """The pool in one Region, with a limiter of its own, since each Region has its own quota."""
    hook = AwsBaseHook(aws_conn_id=sync.aws_conn_id, client_type="cognito-idp", region_name=region)
    # botocore's default mode, "legacy", gives up at the first TooManyRequestsException: it comes as
    # HTTP 400.
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=CONNECT_SECONDS_OF_A_TRIAL if soon else CONNECT_SECONDS,
        max_pool_connections=MOST_LISTS_AT_ONCE,
    )
    # AwsBaseHook answers a failed lookup with the worker's own credentials (connections.py).
    with connections.hold_connection(sync.aws_conn_id, "aws", "aws_conn_id"):
        client = hook.get_client_type(region_name=region, config=hook.config.merge(config))
    return UserPool(client, sync.user_pool_id, sync.requests_per_second, progress)
