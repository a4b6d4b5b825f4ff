"""A stand-in for Cognito's API that throttles, cuts, repeats and lies as a test asks it to.

It speaks the wire protocol (JSON 1.1 over POST, errors as HTTP 400), so that boto3 needs only its endpoint.
"""

import itertools
import json
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LARGEST_PAGE = 60
POOL_ID = "us-east-1_StandIn"
OTHER_POOL_ID = "us-east-1_Other"
"""A second id under which the same pool answers: for a change of the pool in the settings."""


def user(
    email: str, *, sub: str | None = None, enabled: bool = True, status: str = "CONFIRMED", **attributes: str
) -> Any:
    """A user as ListUsers gives it; its sub follows from the email."""
    sub = sub or str(uuid.uuid5(uuid.NAMESPACE_URL, email))
    values = {"sub": sub, "email": email, "given_name": "Given", "family_name": "Family", **attributes}
    return {
        "Username": sub,
        "Attributes": [{"Name": name, "Value": value} for name, value in values.items() if value is not None],
        "UserCreateDate": 1760000000.0,
        "UserLastModifiedDate": 1760000001.5,
        "Enabled": enabled,
        "UserStatus": status,
    }


def sub_of(user: Any) -> str:
    return next(str(pair["Value"]) for pair in user["Attributes"] if pair["Name"] == "sub")


@dataclass
class Pool:
    """What the pool holds; tests change it between runs."""

    users: list[Any] = field(default_factory=list)
    members: dict[str, list[Any]] = field(default_factory=dict)
    """Users by group name."""


@dataclass
class Faults:
    """What goes wrong."""

    pages: Iterable[int] = ()
    """Lengths of pages, in turn and again from the start; zero is an empty page that goes on."""
    throttled_calls: int = 0
    """The first so many calls are throttled."""
    broken_calls: int = 0
    """The first so many calls end in HTTP 500."""
    denied: str = ""
    """An operation that IAM refuses."""
    repeated_token: bool = False
    """Every page gives the first page's token."""
    dying_token: int = 0
    """The token of every so manyth page is refused as expired, once."""
    cut_users_after: int = 0
    """ListUsers ends after so many users, with status 200 and no token."""
    repeated_users: int = 0
    """The first so many users are listed once more at the end."""
    estimate: str = "true"
    """What DescribeUserPool says of the count: `true`, `absent`, or a number."""
    first_listing_lacks: dict[str, int] = field(default_factory=dict)
    """By group: how many members its first whole listing leaves out, at the end."""
    every_listing_lacks: dict[str, int] = field(default_factory=dict)
    """By group: how many members each listing leaves out."""
    vanishing_group: str = ""
    """A group that is listed, and gone when its members are asked for."""


class StandIn:
    """A running stand-in; `calls` counts requests by operation."""

    def __init__(self, pool: Pool, faults: Faults) -> None:
        self.pool = pool
        self.faults = faults
        self.calls: Counter[str] = Counter()
        self.listings: Counter[str] = Counter()
        """How often each group's members were listed from the start; tests may clear it."""
        self._lengths: Iterator[int] = itertools.cycle(faults.pages or [LARGEST_PAGE])
        self._tokens: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self.endpoint = ""

    def answer(self, operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and body for one request."""
        with self._lock:
            self.calls[operation] += 1
            made = self.calls.total()
            if operation == self.faults.denied:
                return _error("AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized")
            if made <= self.faults.broken_calls:
                return 500, {"__type": "InternalErrorException", "message": "broken"}
            if made <= self.faults.throttled_calls:
                return _error("TooManyRequestsException", "Rate exceeded")
            if asked["UserPoolId"] not in (POOL_ID, OTHER_POOL_ID):
                return _error("ResourceNotFoundException", f"User pool {asked['UserPoolId']} does not exist.")
            if operation == "DescribeUserPool":
                return 200, {"UserPool": {"Id": asked["UserPoolId"], **self._estimate()}}
            return self._list(operation, asked)

    def _list(self, operation: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if asked.get("Limit", LARGEST_PAGE) > LARGEST_PAGE:
            return _error("InvalidParameterException", "Limit over 60")
        group = asked.get("GroupName")
        if group is not None and (group not in self.pool.members or group == self.faults.vanishing_group):
            return _error("ResourceNotFoundException", "Group not found.")
        token_name = "PaginationToken" if operation == "ListUsers" else "NextToken"
        bound_to = f"{operation} {group}"
        start = 0
        if token := asked.get(token_name):
            if self._tokens.get(token, ("", 0))[0] != bound_to:
                return _error("InvalidParameterException", "Invalid pagination token")
            start = self._tokens[token][1]
        if operation == "ListGroups":
            found: list[Any] = [{"GroupName": name, "UserPoolId": POOL_ID} for name in self.pool.members]
        else:
            found = self._users() if operation == "ListUsers" else self._members(group or "", start)
        end = start + min(next(self._lengths), asked.get("Limit", LARGEST_PAGE))
        body: dict[str, Any] = {"Groups" if operation == "ListGroups" else "Users": found[start:end]}
        if end < len(found):
            token = "the same" if self.faults.repeated_token else uuid.uuid4().hex
            self._tokens[token] = (bound_to, end)
            if self.faults.dying_token and len(self._tokens) % self.faults.dying_token == 0:
                self.faults.dying_token = 0
                del self._tokens[token]
            body[token_name] = token
        return 200, body

    def _estimate(self) -> dict[str, int]:
        if self.faults.estimate == "absent":
            return {}
        true = self.faults.estimate == "true"
        return {"EstimatedNumberOfUsers": len(self.pool.users) if true else int(self.faults.estimate)}

    def _users(self) -> list[Any]:
        listed = self.pool.users[: self.faults.cut_users_after or None]
        return listed + self.pool.users[: self.faults.repeated_users]

    def _members(self, group: str, start: int) -> list[Any]:
        if start == 0:
            self.listings[group] += 1
        lacking = self.faults.every_listing_lacks.get(group, 0)
        if self.listings[group] == 1:
            lacking = max(lacking, self.faults.first_listing_lacks.get(group, 0))
        members = self.pool.members[group]
        return members[: len(members) - lacking]


def _error(code: str, message: str) -> tuple[int, dict[str, Any]]:
    return 400, {"__type": code, "message": message}


@contextmanager
def stand_in(pool: Pool, faults: Faults | None = None) -> Iterator[StandIn]:
    """Serve the pool on a free port of the loopback interface for the length of a block."""
    served = StandIn(pool, faults or Faults())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = served.answer(self.headers["X-Amz-Target"].rpartition(".")[2], asked)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
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
