"""The upstream of the conformance runs: answers every request, records everything. Judges nothing but the grammar.

One thread, one selector: `settle()` returns when all that the proxy had sent before the call is read and recorded, so
that "the backend saw nothing" is a fact and not a race.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections import deque

from tests.scenario.wire import Message, Reader, WireError, agrees_with_h11

LARGE_BYTES = 8 << 20
# One for all who ask: a hundred pending answers must not look like memory of the proxy in the same process.
_LARGE = memoryview(bytes(LARGE_BYTES))


class _Connection:
    def __init__(self, sock: socket.socket, number: int):
        self.sock = sock
        self.number = number
        self.reader = Reader("request")
        self.pending: deque[memoryview] = deque()
        self.held = 0  # requests that are never answered


class Backend:
    """Records `requests` (complete), `incomplete` (cut by the proxy) and `violations` (not strict HTTP/1).

    `/large` is answered with megabytes, `/hold` never; of a body for `/stuck` nothing more is read. `in_flight` counts the
    held requests whose connection is still open, `most_in_flight` what it ever was.
    """

    def __init__(self):
        self.requests: list[Message] = []
        self.incomplete: list[Message | None] = []
        self.violations: list[str] = []
        self.in_flight = self.most_in_flight = 0
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(512)
        self._listener.setblocking(False)
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]
        self._wake, self._waker = socket.socketpair()
        self._commands: list[threading.Event | None] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._connections: dict[int, _Connection] = {}
        self._stuck: list[_Connection] = []
        self._accepted = 0
        self._thread = threading.Thread(target=self._loop, name="conformance-backend", daemon=True)
        self._thread.start()

    def settle(self) -> None:
        done = threading.Event()
        self._commands.append(done)
        self._waker.send(b".")
        done.wait(10)

    def unstick(self) -> None:
        """Read on where reading was stopped for `/stuck`."""
        stuck, self._stuck = self._stuck, []
        for connection in stuck:
            connection.reader.partial.target = b"/no-longer-stuck"
            self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        self.settle()

    def open_messages(self) -> list[Message]:
        """Requests still being received."""
        return [c.reader.partial for c in list(self._connections.values()) if c.reader.partial is not None]

    def stop(self) -> None:
        self._commands.append(None)
        self._waker.send(b".")
        self._thread.join(10)
        for connection in self._connections.values():
            connection.sock.close()
        for sock in (self._listener, self._wake, self._waker):
            sock.close()

    # --- the loop ----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        settling: list[threading.Event] = []
        while True:
            events = self._selector.select(0 if settling else None)
            busy = False
            for key, mask in events:
                if key.fileobj is self._wake:
                    self._wake.recv(100)
                elif key.fileobj is self._listener:
                    self._accept()
                    busy = True
                elif key.data is not None:
                    busy |= self._serve(key.data, mask)
            # Counted when all that was ready together is read: a closed connection frees its place before the next takes it.
            self.in_flight = sum(connection.held for connection in self._connections.values())
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            commands, self._commands = self._commands, []
            for command in commands:
                if command is None:
                    return
                settling.append(command)
                busy = True
            if settling and not busy:
                for event in settling:
                    event.set()
                settling = []

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock, self._accepted)
        self._accepted += 1
        self._connections[sock.fileno()] = connection
        self._selector.register(sock, selectors.EVENT_READ, connection)

    def _serve(self, connection: _Connection, mask: int) -> bool:
        if mask & selectors.EVENT_WRITE:
            self._flush(connection)
        if not mask & selectors.EVENT_READ or connection.sock.fileno() < 0:
            return False
        try:
            data = connection.sock.recv(262144)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            if connection.reader.mid_message:
                self.incomplete.append(connection.reader.partial)
            self._drop(connection)
            return True
        broken = False
        try:
            connection.reader.feed(data)
        except WireError as error:
            self.violations.append(str(error))
            broken = True
        while connection.reader.messages:
            message = connection.reader.messages.popleft()
            message.connection = connection.number
            difference = agrees_with_h11(message)
            if difference:
                self.violations.append(difference)
            self.requests.append(message)
            if message.target == b"/hold":
                connection.held += 1
            else:
                connection.pending += self._answer(message)
        if connection.reader.partial is not None and connection.reader.partial.target == b"/stuck" and not broken:
            self._stuck.append(connection)
            self._selector.unregister(connection.sock)
            return True
        if broken:
            self._drop(connection)
        else:
            self._flush(connection)
        return True

    def _answer(self, message: Message) -> list[memoryview]:
        body = _LARGE if message.target == b"/large" else memoryview(b"seen")
        status = b"426 Upgrade Required" if message.get("upgrade") else b"200 OK"
        head = b"HTTP/1.1 %s\r\nX-Seen: %s %s\r\nContent-Length: %d\r\n\r\n" % (status, message.method, message.target, len(body))
        return [memoryview(head)] if message.method == b"HEAD" else [memoryview(head + body)] if len(body) < 100 else [memoryview(head), body]

    def _flush(self, connection: _Connection) -> None:
        try:
            while connection.pending:
                part = connection.pending.popleft()
                sent = connection.sock.send(part[: 1 << 20])
                if sent < len(part):
                    connection.pending.appendleft(part[sent:])
        except BlockingIOError:
            connection.pending.appendleft(part)
        except (BrokenPipeError, ConnectionResetError):
            self._drop(connection)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.pending else 0)
        if self._selector.get_key(connection.sock).events != wanted:
            self._selector.modify(connection.sock, wanted, connection)

    def _drop(self, connection: _Connection) -> None:
        self._connections.pop(connection.sock.fileno(), None)
        try:
            self._selector.unregister(connection.sock)
        except KeyError:
            pass
        connection.sock.close()
