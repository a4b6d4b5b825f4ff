"""A stand-in for Cognito's API that throttles, cuts, repeats and lies as a test asks it to.

It speaks the wire protocol (JSON 1.1 over POST, errors as HTTP 400), so that boto3 needs only its
endpoint.
"""

import itertools
import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

LARGEST_PAGE = 60
POOL_ID = "us-east-1_StandIn"
SESSION_NAME = "someone@example.org"
"""The name of a role's session, which AWS's denials quote. If people log in with a role, it names a
person.
"""

OTHER_POOL_ID = "us-east-1_Other"
"""A second id under which the same pool answers: for a change of the pool in the settings."""


LONG_AGO = 1760000000.0
"""When a user was created, in seconds since 1970."""


def user(
    email: str,
    *,
    sub: str | None = None,
    enabled: bool = True,
    status: str = "CONFIRMED",
    created: float | None = LONG_AGO,
    **attributes: str | None,
) -> Any:
    """A user as ListUsers gives it; its sub follows from the email.

    created: seconds since 1970, or None if Cognito doesn't tell.
    """
    sub = sub or str(uuid.uuid5(uuid.NAMESPACE_URL, email))
    values = {
        "sub": sub,
        "email": email,
        "given_name": "Given",
        "family_name": "Family",
        **attributes,
    }
    return {
        "Username": sub,
        "Attributes": [
            {"Name": name, "Value": value} for name, value in values.items() if value is not None
        ],
        **({} if created is None else {"UserCreateDate": created}),
        "UserLastModifiedDate": 1760000001.5,
        "Enabled": enabled,
        "UserStatus": status,
    }


def sub_of(user: Any) -> str:
    return next((str(pair["Value"]) for pair in user["Attributes"] if pair["Name"] == "sub"), "")


FILTERED_ATTRIBUTES = (
    "username",
    "email",
    "phone_number",
    "name",
    "given_name",
    "family_name",
    "preferred_username",
)
"""Attributes that a filter of ListUsers takes, beside sub and the statuses."""


def get_value(user: Any, name: str) -> str | None:
    """One of a user's attributes, or the Cognito username."""
    if name == "username":
        return str(user["Username"])
    return next((pair["Value"] for pair in user["Attributes"] if pair["Name"] == name), None)


class ServedPool(Protocol):
    """A pool, as the stand-in serves it."""

    users: Any
    """Users, a sequence."""
    members: Any
    """Sequences of users, by group name."""

    def find_by_sub(self, value: str, *, prefix: bool) -> Sequence[Any]:
        """Find the users with this sub, or with a sub that begins with it."""


@dataclass
class Pool:
    """What the pool holds; tests change it between runs."""

    users: list[Any] = field(default_factory=list)
    members: dict[str, list[Any]] = field(default_factory=dict)
    """Users by group name."""

    def find_by_sub(self, value: str, *, prefix: bool) -> list[Any]:
        """Find the users with this sub, or with a sub that begins with it."""
        subs = ((sub_of(user), user) for user in self.users)
        return [user for sub, user in subs if sub == value or (prefix and sub.startswith(value))]


@dataclass
class Faults:
    """What goes wrong."""

    pages: Iterable[int] = ()
    """Lengths of pages, in turn and then from the start again; zero is an empty page with a token.
    """
    throttled_calls: int = 0
    """So many calls are throttled, from the first one on."""
    broken_calls: int = 0
    """So many calls end in HTTP 500, from the first one on."""
    cut_answers: int = 0
    """So many answers end in the middle, from the first one on, and the connection ends with them.
    """
    foreign_answers: bool = False
    """Each answer is a page of a proxy's, with status 200."""
    denied: str = ""
    """An operation that IAM refuses."""
    denial: str = ""
    """The message of the refusal; by default AWS's own."""
    allowed: frozenset[str] | None = None
    """The actions that IAM allows on the pool; None allows all."""
    repeated_token: bool = False
    """Every page gives the first page's token."""
    dying_token: int = 0
    """Which token, counted from 1, is refused as expired, once."""
    cut_users_after: int = 0
    """ListUsers ends after so many users, with status 200 and no token."""
    hidden_users: int = 0
    """How many users at the end ListUsers leaves out, unless it is asked for one by name."""
    cut_groups_after: int = 0
    """ListGroups ends after so many groups, with status 200 and no token."""
    repeated_users: int = 0
    """How many users, from the first one on, are listed once more at the end."""
    estimate: str = "true"
    """What DescribeUserPool says about the count: `true`, `absent`, or a number."""
    first_listing_lacks: dict[str, int] = field(default_factory=dict)
    """By group: how many members its first whole listing leaves out, at the end."""
    every_listing_lacks: dict[str, int] = field(default_factory=dict)
    """By group: how many members each listing leaves out."""
    first_listing_lacks_groups_of: frozenset[str] = frozenset()
    """Cognito usernames for which the first list of their groups is empty."""
    vanishing_group: str = ""
    """A group that is listed, and gone when its members are asked for."""
    filter: str = "works"
    """What Filter does: `works`, is `refused`, is `ignored`, or works by `prefix` only."""
    parts_lack: dict[str, int] = field(default_factory=dict)
    """By value of a prefix filter: how many users its answers leave out, at the end."""
    latency: float = 0
    """Seconds that each answer takes."""
    gate: threading.Event | None = None
    """Lists are answered once it is set."""
    quotas: dict[str, float] = field(default_factory=dict)
    """Calls a second by quota category (QUOTA_OF); calls beyond them are throttled. The calls of
    one second may come at once.
    """
    token_seconds: float = 3600
    """How long a token lives."""
    down_after: int | None = None
    """So many calls are answered, and connections are closed without an answer from then on."""
    not_served: str = ""
    """An operation that this Region doesn't serve, as an inactive replica of the pool."""


QUOTA_OF = {
    "ListUsers": "UserList",
    "ListUsersInGroup": "UserList",
    "ListGroups": "UserPoolResourceRead",
    "AdminListGroupsForUser": "UserResourceRead",
    "DescribeUserPool": "UserPoolRead",
}


class Bucket:
    """A quota of so many calls a second. The calls of one second may come at once."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left, self._at = per_second, clock()

    def take(self) -> bool:
        """Whether one more call fits."""
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class RefusedError(Exception):
    """An answer that is an error."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status


class StandIn:
    """A running stand-in; `calls` counts requests by operation."""

    def __init__(self, pool: ServedPool, faults: Faults) -> None:
        self.pool = pool
        self.faults = faults
        self.calls: Counter[str] = Counter()
        self.filters: Counter[str] = Counter()
        """How often ListUsers began with each filter; "" is none."""
        self.throttled = 0
        self.waiting: list[str] = []
        """Operations that came to a closed gate, in order; tests may clear it."""
        self.pool_ids = {POOL_ID, OTHER_POOL_ID}
        """The ids under which the pool answers."""
        self.first_at: float | None = None
        """When the first call came, on the monotonic clock."""
        self.last_at = 0.0
        self.longest_pause = 0.0
        """Seconds between two calls."""
        self._buckets = {category: Bucket(rate) for category, rate in faults.quotas.items()}
        self.listings: Counter[str] = Counter()
        """How often a listing of each group's members began; tests may clear it."""
        self._lengths: Iterator[int] = itertools.cycle(faults.pages or [LARGEST_PAGE])
        self._tokens: dict[str, tuple[str, int, float]] = {}
        self._lock = threading.Lock()
        self.endpoint = ""
        self.replicas: dict[str, StandIn] = {}
        """The pool's replicas, by Region; tests add them. They answer at the same endpoint."""

    def find_region(self, signature: str) -> "StandIn":
        """Find what answers in the Region for which a request was signed (its Authorization)."""
        signed = re.search(r"Credential=[^/]+/\d+/([^/]+)/", signature)
        return self.replicas.get(signed[1] if signed else "", self)

    @property
    def is_down(self) -> bool:
        """Whether connections are closed without an answer."""
        after = self.faults.down_after
        return after is not None and self.calls.total() >= after

    def answer(self, operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Make the status and body of the answer to one request."""
        if self.faults.latency:
            time.sleep(self.faults.latency)
        if self.faults.gate and operation.startswith("List"):
            self.waiting.append(operation)
            self.faults.gate.wait()
        with self._lock:
            try:
                self._admit(operation, asked)
                if operation == "DescribeUserPool":
                    return 200, {"UserPool": {"Id": asked["UserPoolId"], **self._estimate()}}
                return 200, self._page(operation, asked)
            except RefusedError as refusal:
                return refusal.status, {"__type": refusal.code, "message": str(refusal)}

    def _admit(self, operation: str, asked: dict[str, Any]) -> None:
        self.calls[operation] += 1
        made = self.calls.total()
        now = time.monotonic()
        self.first_at = self.first_at or now
        self.longest_pause = max(self.longest_pause, now - (self.last_at or now))
        self.last_at = now
        allowed = self.faults.allowed
        action = f"cognito-idp:{operation}"
        if operation == self.faults.denied or (allowed is not None and action not in allowed):
            raise RefusedError(
                "AccessDeniedException",
                self.faults.denial
                or f"User: arn:aws:sts::111122223333:assumed-role/sync/{SESSION_NAME} is not "
                f"authorized to perform: {action} on resource: "
                f"arn:aws:cognito-idp:us-east-1:111122223333:userpool/{asked['UserPoolId']} "
                f"because no identity-based policy allows the {action} action",
            )
        if operation == self.faults.not_served:
            raise RefusedError("OperationNotEnabledException", "This operation is not enabled.")
        if made <= self.faults.broken_calls:
            raise RefusedError("InternalErrorException", "broken", status=500)
        bucket = self._buckets.get(QUOTA_OF[operation])
        if made <= self.faults.throttled_calls or (bucket and not bucket.take()):
            self.throttled += 1
            raise RefusedError("TooManyRequestsException", "Rate exceeded")
        if asked["UserPoolId"] not in self.pool_ids:
            raise RefusedError(
                "ResourceNotFoundException", f"User pool {asked['UserPoolId']} does not exist."
            )
        if asked.get("Limit", LARGEST_PAGE) > LARGEST_PAGE:
            raise RefusedError("InvalidParameterException", "Limit over 60")

    def _page(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        token_name = "PaginationToken" if operation == "ListUsers" else "NextToken"
        sent = {name: value for name, value in asked.items() if name != token_name}
        bound_to = f"{operation} {json.dumps(sent, sort_keys=True)}"
        start = self._start(bound_to, asked[token_name]) if token_name in asked else 0
        found = self._list_rows(operation, asked, start)
        end = start + min(next(self._lengths), asked.get("Limit", LARGEST_PAGE))
        body: dict[str, Any] = {
            "Users" if operation.startswith("ListUsers") else "Groups": found[start:end]
        }
        if end < len(found):
            body[token_name] = self._token(bound_to, end)
        return body

    def _start(self, bound_to: str, token: str) -> int:
        of, start, born = self._tokens.get(token, ("", 0, 0.0))
        if of != bound_to or time.monotonic() - born > self.faults.token_seconds:
            raise RefusedError("InvalidParameterException", "Invalid pagination token")
        return start

    def _token(self, bound_to: str, end: int) -> str:
        token = "the same" if self.faults.repeated_token else uuid.uuid4().hex
        self._tokens[token] = (bound_to, end, time.monotonic())
        if self.faults.dying_token and len(self._tokens) % self.faults.dying_token == 0:
            self.faults.dying_token = 0
            del self._tokens[token]
        return token

    def _list_rows(self, operation: str, asked: dict[str, Any], start: int) -> Sequence[Any]:
        if operation == "ListGroups":
            groups = [{"GroupName": name, "UserPoolId": POOL_ID} for name in self.pool.members]
            return groups[: self.faults.cut_groups_after or None]
        if operation == "ListUsers":
            if start == 0:
                self.filters[asked.get("Filter", "")] += 1
            return self._users(asked.get("Filter"))
        if operation == "AdminListGroupsForUser":
            return self._groups_of(asked["Username"])
        group = asked["GroupName"]
        if group not in self.pool.members or group == self.faults.vanishing_group:
            raise RefusedError("ResourceNotFoundException", "Group not found.")
        return self._members(group, start)

    def _estimate(self) -> dict[str, int]:
        if self.faults.estimate == "absent":
            return {}
        true = self.faults.estimate == "true"
        return {
            "EstimatedNumberOfUsers": len(self.pool.users) if true else int(self.faults.estimate)
        }

    def _groups_of(self, username: str) -> Sequence[Any]:
        if all(user["Username"] != username for user in self.pool.users):
            raise RefusedError("UserNotFoundException", "User does not exist.")
        self.listings[username] += 1
        if self.listings[username] == 1 and username in self.faults.first_listing_lacks_groups_of:
            return []
        return [
            {"GroupName": name, "UserPoolId": POOL_ID}
            for name, members in self.pool.members.items()
            if any(member["Username"] == username for member in members)
        ]

    def _users(self, wanted: str | None) -> Sequence[Any]:
        if wanted is None or self.faults.filter == "ignored":
            shown = len(self.pool.users) - self.faults.hidden_users
            listed: Sequence[Any] = self.pool.users[: self.faults.cut_users_after or shown]
            repeated: Sequence[Any] = self.pool.users[: self.faults.repeated_users]
            return [*listed, *repeated] if repeated else listed
        parsed = re.fullmatch(r'"?sub"? *(\^?=) *"([^"]*)"', wanted)
        refused = {"refused": ("=", "^="), "prefix": ("=",)}.get(self.faults.filter, ())
        named = re.fullmatch(r'(\w+) = "([^"]*)"', wanted)
        if named and named[1] != "sub" and named[1] in FILTERED_ATTRIBUTES and "=" not in refused:
            return [user for user in self.pool.users if get_value(user, named[1]) == named[2]]
        if parsed is None or parsed[1] in refused:
            raise RefusedError("InvalidParameterException", "Error while parsing filter.")
        found: Sequence[Any] = self.pool.find_by_sub(parsed[2], prefix=parsed[1] == "^=")
        return found[: len(found) - self.faults.parts_lack.get(parsed[2], 0)]

    def _members(self, group: str, start: int) -> Sequence[Any]:
        if start == 0:
            self.listings[group] += 1
        lacking = self.faults.every_listing_lacks.get(group, 0)
        if self.listings[group] == 1:
            lacking = max(lacking, self.faults.first_listing_lacks.get(group, 0))
        members: Sequence[Any] = self.pool.members[group]
        return members[: len(members) - lacking]


@contextmanager
def stand_in(pool: ServedPool, faults: Faults | None = None) -> Iterator[StandIn]:
    """Serve the pool on a free port of the loopback interface for the length of a block."""
    served = StandIn(pool, faults or Faults())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = (
            True  # headers and body go out one after the other, and would wait for each other
        )

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            region = served.find_region(self.headers.get("Authorization", ""))
            if region.is_down:
                self.close_connection = True
                return
            status, body = region.answer(self.headers["X-Amz-Target"].rpartition(".")[2], asked)
            content = (
                b"<html>Log in</html>"
                if region.faults.foreign_answers
                else json.dumps(body).encode()
            )
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if region.calls.total() <= region.faults.cut_answers:
                self.close_connection = True
                content = content[: len(content) // 2]
            with suppress(BrokenPipeError):  # a test killed the process that asked
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
