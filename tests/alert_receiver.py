"""A small HTTP server that receives alerts."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class AlertReceiver:
    """What arrived, in order. While `status` is an error, it takes no message."""

    port: int = 0
    status: int = 200
    messages: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0

    @property
    def titles(self) -> list[str]:
        return [message["title"] for message in self.messages]

    @property
    def connection(self) -> str:
        """The Connection that reaches it, as AIRFLOW_CONN_… has it."""
        path = f"json://127.0.0.1:{self.port}/alerts"
        return json.dumps({"conn_type": "apprise", "extra": {"config": {"path": path}}})


@contextmanager
def alert_receiver() -> Iterator[AlertReceiver]:
    receiver = AlertReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if receiver.status == 200:
                receiver.messages.append(json.loads(body))
            else:
                receiver.refused += 1
            self.send_response(receiver.status)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
