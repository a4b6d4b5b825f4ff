"""A proxy between the sync and Joget's database: it sees each statement, and cuts connections where
a test says so.

It knows as much of MySQL's protocol as it needs to recognise statements: a packet is three bytes of
length, a number that begins at zero with each command, and the command.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

QUERY_COMMAND = 3
"""The command COM_QUERY."""


class CutError(Exception):
    """Raised by `before` or `after`: the connection ends here, on both sides."""


@dataclass
class DatabaseProxy:
    """A proxy to a database server on the loopback interface; tests set what it does."""

    port: int = 0
    before: Callable[[str], None] = lambda _: None
    """Called with each statement before the server gets it."""
    after: Callable[[str], None] = lambda _: None
    """Called with each statement when the server has answered, before the sync gets the answer."""
    statements: list[str] = field(default_factory=list)
    """The statements that the server got, on all connections."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def open_proxy(server_port: int) -> Iterator[DatabaseProxy]:
    """Open a proxy to a server, on a free port, for the length of a block."""
    proxy = DatabaseProxy()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.port = listener.getsockname()[1]
        thread = threading.Thread(target=_accept, args=(listener, server_port, proxy), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _accept(listener: socket.socket, server_port: int, proxy: DatabaseProxy) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        server = socket.create_connection(("127.0.0.1", server_port))
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(client, server, proxy)
        for work in (connection.send, connection.answer):
            threading.Thread(target=work, daemon=True).start()


@dataclass
class _Connection:
    client: socket.socket
    server: socket.socket
    proxy: DatabaseProxy
    _asked: str = ""

    def send(self) -> None:
        """Pass the client's packets on, until one side ends."""
        with contextlib.suppress(OSError, EOFError, CutError):
            while True:
                head = self._read(4)
                body = self._read(int.from_bytes(head[:3], "little"))
                if head[3] == 0 and body[:1] == bytes([QUERY_COMMAND]):
                    statement = body[1:].decode(errors="replace")
                    with self.proxy.lock:
                        self.proxy.before(statement)
                        self.proxy.statements.append(statement)
                    self._asked = statement
                self.server.sendall(head + body)
        self._end()

    def answer(self) -> None:
        """Pass the server's bytes on, until one side ends."""
        with contextlib.suppress(OSError, CutError):
            while received := self.server.recv(1 << 16):
                if self._asked:
                    asked, self._asked = self._asked, ""
                    self.proxy.after(asked)
                self.client.sendall(received)
        self._end()

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            received = self.client.recv(length - len(parts))
            if not received:
                raise EOFError
            parts += received
        return bytes(parts)

    def _end(self) -> None:
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
                side.close()
