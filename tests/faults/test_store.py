"""What happens when the object store is slow or refuses, and when staged files are cut, changed or
gone.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from directory_sync.errors import PermanentError, TransientError
from tests.company import Company, people
from tests.directory_sync.tasks.test_wrong_input import refused


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-10])


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("file", ["desired_users.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", [cut, change, remove])
def test_staged_files_that_are_cut_changed_or_gone_are_never_loaded(
    company: Company, damage: Callable[[Path], None], file: str
) -> None:
    company.pool.users = people(3)
    company.run()
    company.pool.users = people(4)
    transformed = company.prepare()
    before = company.joget.contents()
    folder = Path(transformed.url.removeprefix("file://"))
    if damage is change and file == "manifest.json":
        (folder / file).write_text(
            (folder / file).read_text(encoding="utf-8").replace('"sha256": "', '"sha256": "0')
        )
    else:
        damage(folder / file)
    with pytest.raises(PermanentError, match=r"lear the run from extract_users on"):
        company.load(transformed)
    assert company.joget.contents() == before
    assert company.run()["users"]["created"] == 1


@contextmanager
def store(status: int, body: str, seconds: float) -> Iterator[str]:
    """Serve a store that gives each request the same answer after so many seconds; yields its
    endpoint.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = (
            "HTTP/1.1"  # else a client that waits for "100 Continue" never sends its body
        )

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            time.sleep(seconds)
            self.close_connection = True
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_HEAD = do_POST = answer  # noqa: N815 - the base class's names

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def error(code: str) -> str:
    """Make S3's answer to a request that it refuses."""
    return f"<Error><Code>{code}</Code><Message>No</Message></Error>"


REFUSES = (
    403,
    error("AccessDenied"),
    0.0,
    PermanentError,
    "refuses us s3:PutObject. Give the Connection",
)
EXPIRED = (
    400,
    error("ExpiredToken"),
    0.0,
    TransientError,
    "our session has expired (ExpiredToken)",
)
SLOW = (200, "", 1.0, TransientError, "can't be reached")


@pytest.mark.parametrize("answers", [REFUSES, EXPIRED, SLOW], ids=["refuses", "expired", "slow"])
def test_a_store_that_refuses_is_permanent_and_one_that_is_slow_or_ended_the_session_is_not(
    company: Company,
    monkeypatch: pytest.MonkeyPatch,
    answers: tuple[int, str, float, type[Exception], str],
) -> None:
    status, body, seconds, kind, text = answers
    company.pool.users = people(3)
    before = company.settings["staging_url"]
    with store(status, body, seconds) as endpoint:
        connection = json.loads(os.environ["AIRFLOW_CONN_COGNITO_AWS"])
        connection["extra"]["endpoint_url"] = endpoint
        connection["extra"]["config_kwargs"] = {"read_timeout": 0.1, "retries": {"max_attempts": 0}}
        # Airflow keeps the store of a Connection for the life of a process, so each has a
        # Connection of its own.
        monkeypatch.setenv(f"AIRFLOW_CONN_STORE_{status}", json.dumps(connection))
        company.configure(staging_url=f"s3://store_{status}@bucket/prefix")
        assert text in refused(company, kind)
    company.configure(staging_url=before)
    assert company.run()["users"]["created"] == 3
