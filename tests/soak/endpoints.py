"""The soak's upstream: one process, ports that open and close on command, every request counted by its id.

Answers `/id/<n>` with `<n>`. The count of an id lives in shared memory, so that the parent can add up without asking.
"""

from __future__ import annotations

import selectors
import socket
from multiprocessing import shared_memory
from multiprocessing.connection import Connection

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


def run(commands: Connection, counts_name: str) -> None:
    """Commands: ("open",) -> port; ("close", port) -> None; ("connections", port) -> how many; ("stop",)."""
    counts = shared_memory.SharedMemory(counts_name)
    selector = selectors.DefaultSelector()
    selector.register(commands, selectors.EVENT_READ, "commands")
    listeners: dict[int, socket.socket] = {}
    connections: dict[socket.socket, tuple[int, bytearray]] = {}
    try:
        while True:
            for key, _ in selector.select():
                if key.data == "commands":
                    if not _obey(commands.recv(), commands, selector, listeners, connections):
                        return
                elif key.data == "listener":
                    _accept(key.fileobj, selector, connections)
                else:
                    _serve(key.fileobj, selector, connections, counts.buf)
    finally:
        counts.close()


def _obey(command: tuple, commands: Connection, selector, listeners, connections) -> bool:
    if command[0] == "open":
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, "listener")
        listeners[listener.getsockname()[1]] = listener
        commands.send(listener.getsockname()[1])
    elif command[0] == "close":
        listener = listeners.pop(command[1])
        selector.unregister(listener)
        # What waits in its queue is served, not reset: a retiring server does so too.
        _accept(listener, selector, connections)
        listener.close()
        commands.send(None)
    elif command[0] == "connections":
        commands.send(sum(port == command[1] for port, _ in connections.values()))
    else:
        return False
    return True


def _accept(listener: socket.socket, selector, connections) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[sock] = (listener.getsockname()[1], bytearray())
        selector.register(sock, selectors.EVENT_READ, "connection")


def _serve(sock: socket.socket, selector, connections, counts) -> None:
    try:
        data = sock.recv(65536)
    except ConnectionResetError:
        data = b""
    if not data:
        selector.unregister(sock)
        del connections[sock]
        sock.close()
        return
    buffer = connections[sock][1]
    buffer += data
    answers = bytearray()
    while (end := buffer.find(b"\r\n\r\n")) >= 0:
        head = bytes(buffer[:end]).lower()
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(buffer) < end + 4 + length:
            break
        number = head.split(b" ", 2)[1].rsplit(b"/", 1)[1]
        counts[int(number)] = min(counts[int(number)] + 1, 255)
        answers += ANSWER % (len(number), number)
        del buffer[: end + 4 + length]
    if answers:
        sock.sendall(answers)
