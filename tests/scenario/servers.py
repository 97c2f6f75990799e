"""Upstreams for tests: a scripted server, one thread per connection. Owns the sockets it accepts; knows no proxy.

A script is a function of a `ServerConnection`, run once per connection, in plain blocking style:

    def truncating(connection):
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 10\\r\\n\\r\\nhello")

What it returns from is closed. A server without a script answers every request with 200.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from typing import Callable

from tests.scenario.wire import Message, Reader, WireError, agrees_with_h11

# Long enough that only a hang reaches it, short enough that a hang is seen.
PATIENCE_S = 10.0


def response(status: int = 200, body: bytes = b"ok", headers: dict[str, str] | None = None, reason: str = "OK") -> bytes:
    """A response by length."""
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in (headers or {}).items())]
    if status in (204, 304) or status < 200:
        body = b""
    else:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*pieces: bytes, trailers: str = "", head: str = "HTTP/1.1 200 OK\r\n") -> bytes:
    """A chunked response, one chunk per piece."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n" + trailers.encode() + b"\r\n"


def reset(sock: socket.socket) -> None:
    """Close with RST: linger on, zero seconds."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class PeerGone(Exception):
    """The other side closed: a script that does not care just ends."""


class ServerConnection:
    """One accepted connection, as a script sees it."""

    def __init__(self, sock: socket.socket, number: int, server: "RawServer"):
        self.sock = sock
        self.number = number
        self.server = server
        self.reader = Reader("request")
        self.closed = False
        self.ended: str | None = None  # "fin" or "rst" once the peer has stopped sending
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive(self, at_most: int = 65536) -> bytes:
        try:
            data = self.sock.recv(at_most)
        except ConnectionResetError:
            data, self.ended = b"", "rst"
        if not data:
            self.ended = self.ended or "fin"
        return data

    def read_request(self) -> Message:
        """The next complete request. Raises PeerGone when the connection ends instead."""
        while not self.reader.messages:
            data = self.receive()
            if not data:
                if self.reader.mid_message:
                    self.server._note_incomplete(self.reader.partial)
                raise PeerGone
            self.reader.feed(data)
        message = self.reader.messages.popleft()
        message.connection = self.number
        self.server._note(message)
        return message

    def read_head(self) -> Message:
        """The head of the next request, body still to come."""
        while self.reader.partial is None or not bytes(self.reader.partial.raw).endswith(b"\r\n\r\n"):
            if self.reader.messages:
                return self.reader.messages[0]
            data = self.receive(1)
            if not data:
                raise PeerGone
            self.reader.feed(data)
        return self.reader.partial

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone from error

    def answer(self, status: int = 200, body: bytes = b"ok", headers: dict[str, str] | None = None) -> Message:
        """Read one request, answer it."""
        request = self.read_request()
        self.send(response(status, body if request.method != b"HEAD" else b"", headers))
        return request

    def switch(self, data: bytes) -> None:
        """Send a 101 or a 2xx to CONNECT; from here on `receive_tunnel` reads raw octets."""
        self.reader.tunnel_from_here()
        self.send(data)

    def receive_tunnel(self, n: int) -> bytes:
        """Exactly n octets of a tunnel, fewer only at its end."""
        while len(self.reader.tunnel) < n:
            data = self.receive()
            if not data:
                break
            self.reader.feed(data)
        data = bytes(self.reader.tunnel[:n])
        del self.reader.tunnel[:n]
        return data

    def wait_closed(self) -> str:
        """Wait until the peer stops sending: "fin" or "rst"."""
        while self.ended is None:
            data = self.receive()
            if data and self.reader.tunnel is None:
                self.reader.feed(data)
        if self.reader.mid_message:
            self.server._note_incomplete(self.reader.partial)
        return self.ended

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.closed = True
        self.sock.close()

    def reset(self) -> None:
        self.closed = True
        reset(self.sock)


Script = Callable[[ServerConnection], None]


def answer_all(connection: ServerConnection) -> None:
    while True:
        connection.answer()


def answering(answer: bytes | Callable[[Message], bytes]) -> Script:
    """The script that answers every request with these bytes, or with what `answer(request)` returns."""

    def script(connection: ServerConnection) -> None:
        while True:
            request = connection.read_request()
            connection.send(answer(request) if callable(answer) else answer)

    return script


def refusing_port() -> int:
    """A port of 127.0.0.1 that refuses connections (it was free a moment ago)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class BlackHole:
    """An address that never completes a handshake: a listener whose backlog is full and stays so."""

    def __init__(self):
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._listener.getsockname())
            self._fillers.append(filler)

    def stop(self) -> None:
        for sock in [*self._fillers, self._listener]:
            sock.close()


class RawServer:
    """A listening server. Everything it saw can be asked after: `requests`, `incomplete`, `accepted`, `trouble`."""

    connection_type: Callable[[socket.socket, int, "RawServer"], ServerConnection] = ServerConnection

    def __init__(self, script: Script | bytes | None = None, *, name: str = "", port: int = 0, backlog: int = 512):
        self.script = answering(script) if isinstance(script, bytes) else script or answer_all
        self.name = name
        self.requests: list[Message] = []
        self.incomplete: list[Message | None] = []
        self.connections: list[ServerConnection] = []
        self.trouble: list[str] = []
        self._changed = threading.Condition()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen(backlog)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._stopping = False
        threading.Thread(target=self._accept, name=f"raw-server-{self.port}", daemon=True).start()

    @property
    def accepted(self) -> int:
        return len(self.connections)

    def wait(self, condition: Callable[["RawServer"], bool], timeout_s: float = PATIENCE_S) -> None:
        """Block until `condition(server)` holds; an assertion error when it never does."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout_s):
                raise AssertionError(f"{self!r} waited {timeout_s} s in vain")

    def wait_requests(self, n: int) -> list[Message]:
        self.wait(lambda server: len(server.requests) >= n)
        return self.requests

    def stop(self) -> None:
        """Refuse new connections and reset the open ones."""
        self._stopping = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for connection in self.connections:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def __repr__(self) -> str:
        return f"<RawServer {self.name} {self.address}: {self.accepted} connections, {len(self.requests)} requests, trouble {self.trouble}>"

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = self.connection_type(sock, len(self.connections), self)
            with self._changed:
                self.connections.append(connection)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: ServerConnection) -> None:
        try:
            self.script(connection)
        except PeerGone:
            pass
        except WireError as error:
            self.trouble.append(f"connection {connection.number}: {error}")
        except TimeoutError:
            if not self._stopping:
                self.trouble.append(f"connection {connection.number}: nothing came for {PATIENCE_S} s")
        except OSError as error:
            if not (self._stopping or connection.closed):
                self.trouble.append(f"connection {connection.number}: {error!r}")
        except Exception as error:  # a failed assertion in a script must fail the test, not a thread
            self.trouble.append(f"connection {connection.number}: {error!r}")
        finally:
            if not connection.closed:
                connection.close()
            with self._changed:
                self._changed.notify_all()

    def _note(self, message: Message) -> None:
        difference = agrees_with_h11(message)
        with self._changed:
            if difference:
                self.trouble.append(f"{message.first_line!r}: {difference}")
            self.requests.append(message)
            self._changed.notify_all()

    def _note_incomplete(self, message: Message | None) -> None:
        with self._changed:
            self.incomplete.append(message)
            self._changed.notify_all()


def eventually(claim: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Poll until `claim()` is true. For counters that another thread is about to write; never for speed."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        if time.monotonic() > deadline:
            raise AssertionError("never became true")
        time.sleep(0.002)
