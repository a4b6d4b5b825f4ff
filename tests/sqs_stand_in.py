"""A small server that speaks SQS's wire protocol, for the errors that moto never answers."""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]
"""HTTP status and body."""


@dataclass
class SqsStandIn:
    """What the server was asked."""

    endpoint: str = ""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Operations with their parameters, in turn."""

    @property
    def calls(self) -> Counter[str]:
        """How often each operation was called."""
        return Counter(operation for operation, _ in self.requests)


def make_error(code: str, status: int, message: str = "refused") -> Answer:
    """An error in SQS's shape."""
    return status, {"__type": f"com.amazonaws.sqs#{code}", "message": message}


@contextmanager
def serve_sqs(answer: Callable[[str, dict[str, Any]], Answer]) -> Iterator[SqsStandIn]:
    """A server that answers each call as the function says."""
    asked = SqsStandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            operation = self.headers["X-Amz-Target"].rpartition(".")[2]
            parameters = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.requests.append((operation, parameters))
            status, body = answer(operation, parameters)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.0")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    asked.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
