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
    vanishing_group: str = ""
    """A group that is listed, and gone when its members are asked for."""


class StandIn:
    """A running stand-in; `calls` counts requests by operation."""

    def __init__(self, pool: Pool, faults: Faults) -> None:
        self.pool = pool
        self.faults = faults
        self.calls: Counter[str] = Counter()
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
            if asked["UserPoolId"] != POOL_ID:
                return _error("ResourceNotFoundException", f"User pool {asked['UserPoolId']} does not exist.")
            if operation == "DescribeUserPool":
                return 200, {"UserPool": {"Id": POOL_ID, "EstimatedNumberOfUsers": len(self.pool.users)}}
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
            found = self.pool.users if operation == "ListUsers" else self.pool.members[group or ""]
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
