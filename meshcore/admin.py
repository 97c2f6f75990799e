"""The admin HTTP server of one proxy: metrics, health, statistics, configuration, tap, reload. Decides nothing itself.

It runs on its own threads and only reads what the workers publish: traffic never waits for it. It listens on a unix
socket of mode 0600, or on loopback TCP when asked; there a web page must not reach it, so Host must name loopback (a
rebound DNS name does not) and an Origin must be our own. What changes something takes POST. Every wait has an end:
the head comes whole within HEAD_SECONDS and HEAD_BYTES, at most MAX_SESSIONS connections are served at once.
"""

from __future__ import annotations

import contextlib
import email.utils
import http
import ipaddress
import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from meshcore import metrics
from meshcore.errors import ConfigError, MeshError
from meshcore.stats import Stats
from meshcore.taps import TapFilterError, TapSession, tap_filter

HEAD_BYTES = 16 * 1024
HEAD_SECONDS = 5.0
# A reader that takes nothing for so long is gone.
SEND_SECONDS = 10.0
MAX_SESSIONS = 16
# Taps stay for hours: they may not take the places of /metrics and /ready.
MAX_TAPS = 6
MAX_WINDOW_SECONDS = 60.0
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


class AdminError(Exception):
    """The address can not be served: names it and the way out."""


class Reply(NamedTuple):
    status: int
    content_type: str
    body: bytes


class Request(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]


class AdminSources(NamedTuple):
    """What the endpoints ask a proxy for. reload returns the text of the diff or raises ConfigError."""

    stats: Callable[[], Stats]
    tap: Callable[..., TapSession]
    describe_config: Callable[[], Any]
    reload: Callable[[], str] | None = None
    reloads: Callable[[], Mapping[str, int]] | None = None


class _NoProxy(Exception):
    """There is none yet."""


class AdminServer:
    """Serves `address` ("unix:/path" or "127.0.0.1:9901") from `start` to `close`.

    sources: what the endpoints call, from the server's threads; None, and set later, where the proxy is still to come.
    state: "" when ready for traffic, else the word /ready answers with 503.
    """

    def __init__(
        self,
        address: str,
        *,
        sources: AdminSources | None = None,
        more_metrics: Callable[[], str] | None = None,
        agent: Callable[[], Any] | None = None,
        version: str = "",
    ) -> None:
        self.state = "starting"
        self.sources = sources
        self._more_metrics = more_metrics
        self._agent = agent
        self._version = version
        self._closing = threading.Event()
        self._sessions = threading.BoundedSemaphore(MAX_SESSIONS)
        self._taps = threading.BoundedSemaphore(MAX_TAPS)
        self._reloading = threading.Lock()
        self._thread: threading.Thread | None = None
        self._path, self._listener = _listen(address)
        self._inode = os.stat(self._path).st_ino if self._path else 0
        self.address = f"unix:{self._path}" if self._path else _text(self._listener.getsockname())

    def start(self) -> AdminServer:
        self._thread = threading.Thread(target=self._accept, name="meshcore-admin", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop listening, end the taps, remove the socket if it is still ours. Safe to call again."""
        if self._closing.is_set():
            return
        self._closing.set()
        # Wakes accept(); on a unix socket as well.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._thread is not None:
            self._thread.join(2.0)
        self._listener.close()
        with contextlib.suppress(OSError):
            # Another proxy may have taken the name over after this one was thought dead.
            if self._path and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)

    def __enter__(self) -> AdminServer:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- the connections ---

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._closing.wait(0.05):  # out of descriptors, most likely: try again, but not at full speed
                    return
                continue
            if not self._sessions.acquire(blocking=False):
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(0)
                    _send(connection, _error(503, f"more than {MAX_SESSIONS} admin connections"))
                continue
            threading.Thread(target=self._serve, args=(connection,), name="meshcore-admin-session", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One request, one reply, close: a scrape a second does not need keep-alive, and nothing can linger."""
        try:
            with connection, contextlib.suppress(OSError):
                request = _read_request(connection)
                if request is None:
                    return
                reply = request if isinstance(request, Reply) else self._answer(connection, request)
                if reply is not None:
                    head_only = isinstance(request, Request) and request.method == "HEAD"
                    _send(connection, reply, head_only=head_only)
                    _linger(connection)
        finally:
            self._sessions.release()

    def _answer(self, connection: socket.socket, request: Request) -> Reply | None:
        refusal = self._refuse(request)
        if refusal is not None:
            return refusal
        try:
            if request.path == "/tap":
                return self._serve_tap(connection, request)
            return ENDPOINTS[request.path][1](self, request)
        except OSError:
            raise
        except _NoProxy:
            return _error(503, f"no proxy yet: {self.state}; see /agent")
        except Exception as error:  # an endpoint's fault ends its reply, not the server
            return _error(500, f"{type(error).__name__}: {error}")

    def _refuse(self, request: Request) -> Reply | None:
        if not self._path and not _is_loopback_host(request.headers.get("host", "")):
            return _error(403, "Host does not name this loopback address")
        origin = request.headers.get("origin")
        if origin is not None and (self._path or origin != f"http://{request.headers.get('host', '')}"):
            return _error(403, "cross-origin requests are refused")
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _error(403, "cross-site requests are refused")
        if request.path not in ENDPOINTS:
            return _error(404, f"no {request.path}; there are: {', '.join(ENDPOINTS)}")
        wanted = ENDPOINTS[request.path][0]
        if request.method != wanted and not (wanted == "GET" and request.method == "HEAD"):
            return _error(405, f"{request.path} takes {wanted}")
        return None

    # --- the endpoints ---

    @property
    def _proxy(self) -> AdminSources:
        if self.sources is None:
            raise _NoProxy
        return self.sources

    def _index(self, request: Request) -> Reply:
        lines = (f"{method:4} {path:9} {text}\n" for path, (method, _, text) in ENDPOINTS.items() if path != "/")
        return Reply(200, _TEXT, f"meshproxy {self._version}\n{''.join(lines)}".encode())

    def _metrics(self, request: Request) -> Reply:
        page = ""
        if self.sources is not None:
            reloads = self.sources.reloads() if self.sources.reloads is not None else None
            page = metrics.render(self.sources.stats(), version=self._version, reloads=reloads)
        if self._more_metrics is not None:
            page += self._more_metrics()
        return Reply(200, metrics.CONTENT_TYPE, page.encode())

    def _ready(self, request: Request) -> Reply:
        return Reply(503, _TEXT, f"{self.state}\n".encode()) if self.state else Reply(200, _TEXT, b"ready\n")

    def _live(self, request: Request) -> Reply:
        return Reply(200, _TEXT, b"live\n")

    def _stats_page(self, request: Request) -> Reply:
        stats = self._window(request)
        return stats if isinstance(stats, Reply) else _json(stats.to_dict())

    def _clusters(self, request: Request) -> Reply:
        stats = self._window(request)
        return stats if isinstance(stats, Reply) else _json({"clusters": stats.to_dict()["clusters"]})

    def _window(self, request: Request) -> Stats | Reply:
        """The proxy's life, or the next `window` seconds: the wait is this thread's alone."""
        try:
            window = float(request.query.get("window", "0"))
        except ValueError:
            window = -1.0
        if not 0 <= window <= MAX_WINDOW_SECONDS:
            return _error(400, f"window: expected seconds, 0 to {MAX_WINDOW_SECONDS:.0f}")
        before = self._proxy.stats()
        if not window:
            return before
        self._closing.wait(window)
        return self._proxy.stats().since(before)

    def _config(self, request: Request) -> Reply:
        return _json(self._proxy.describe_config())

    def _agent_page(self, request: Request) -> Reply:
        if self._agent is None:
            return _error(404, "this proxy has no control plane: it was not started as a sidecar")
        return _json(msgspec.to_builtins(self._agent()))

    def _reload_config(self, request: Request) -> Reply:
        reload = self._proxy.reload
        if reload is None:
            return _error(409, "this proxy was not started from a file: there is nothing to read again")
        if not self._reloading.acquire(blocking=False):
            return _error(409, "a reload is under way")
        try:
            return Reply(200, _TEXT, (reload().rstrip("\n") + "\n").encode())
        except (MeshError, OSError) as error:
            return _error(422, str(error))
        finally:
            self._reloading.release()

    def _serve_tap(self, connection: socket.socket, request: Request) -> Reply | None:
        try:
            asked = tap_filter(**request.query)
        except TapFilterError as error:
            return _error(400, str(error))
        # Fewer than the engine serves, so that the program it is embedded in keeps some.
        if not self._taps.acquire(blocking=False):
            return _error(503, f"more than {MAX_TAPS} tap sessions")
        try:
            conditions = {name: value for name, value in msgspec.structs.asdict(asked).items() if value}
            try:
                opened = self._proxy.tap(**conditions)
            except (TapFilterError, ConfigError) as error:  # a route or cluster that is not configured
                return _error(400, str(error))
            with opened as session:
                _send_head(connection, 200, "application/x-ndjson", "transfer-encoding: chunked\r\n")
                while not self._closing.is_set() and not session.closed:
                    events = session.read(0.25)
                    if events:
                        lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
                        _send_all(connection, b"%x\r\n%b\r\n" % (len(lines), lines))
                    elif _has_left(connection):
                        return None
                _send_all(connection, b"0\r\n\r\n")
        finally:
            self._taps.release()
        return None

    def _unreachable(self, request: Request) -> Reply:
        raise AssertionError("served by _serve_tap")


# path -> method, endpoint, what it is
ENDPOINTS: dict[str, tuple[str, Callable[[AdminServer, Request], Reply], str]] = {
    "/": ("GET", AdminServer._index, "this list"),
    "/metrics": ("GET", AdminServer._metrics, "Prometheus text"),
    "/ready": ("GET", AdminServer._ready, "200 while new traffic is welcome, else 503"),
    "/live": ("GET", AdminServer._live, "200 while the process answers"),
    "/stats": ("GET", AdminServer._stats_page, "statistics as JSON; ?window=SECONDS measures that long"),
    "/config": ("GET", AdminServer._config, "the configuration in force, as JSON"),
    "/clusters": ("GET", AdminServer._clusters, "clusters and their endpoints, as JSON; ?window= as above"),
    "/agent": ("GET", AdminServer._agent_page, "a sidecar's identity and its control plane, as JSON"),
    "/tap": ("GET", AdminServer._unreachable, "live exchanges, one JSON object a line; filters as query"),
    "/reload": ("POST", AdminServer._reload_config, "read the configuration file again, all or nothing"),
}


# --- listening ------------------------------------------------------------------------------------------------------


def _listen(address: str) -> tuple[str, socket.socket]:
    """The socket's path ("" for TCP) and the listening socket. Raises AdminError."""
    try:
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return path, _listen_unix(path)
        return "", _listen_tcp(address)
    except OSError as error:
        raise AdminError(f"admin address {address}: {error.strerror or error}") from error


def _listen_unix(path: str) -> socket.socket:
    _clear_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        # Before listen() nobody can connect, so there is no moment at which the mode is wider than this.
        os.chmod(path, 0o600)
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


def _clear_stale(path: str) -> None:
    """Remove a socket whose proxy is gone. One that answers, or anything that is no socket, stays."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise AdminError(f"admin address unix:{path}: a file that is no socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise AdminError(f"admin address unix:{path}: another proxy serves it; choose another with --admin")


def _listen_tcp(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host in ("localhost", "") else host)
        number = int(port)
    except ValueError:
        raise AdminError(f"admin address {address!r}: expected unix:/path or 127.0.0.1:PORT") from None
    if not ip.is_loopback:
        raise AdminError(f"admin address {address}: only loopback is served; use 127.0.0.1:{port} or unix:/path")
    listener = socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(ip), number))
        listener.listen(64)
    except BaseException:
        listener.close()
        raise
    return listener


def _text(name: tuple[Any, ...]) -> str:
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _is_loopback_host(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname if host.isprintable() and "/" not in host and "@" not in host else None
    if name == "localhost":
        return True
    try:
        return name is not None and ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# --- one request, one reply -----------------------------------------------------------------------------------------


def _read_request(connection: socket.socket) -> Request | Reply | None:
    """The request, a reply to what is none, or None when the client left. Bodies are not read: nothing takes one."""
    deadline = time.monotonic() + HEAD_SECONDS
    head = bytearray()
    while b"\r\n\r\n" not in head:
        # The deadline is for the whole head: a byte now and then does not prolong it.
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            data = connection.recv(4096)
        except TimeoutError:
            return _error(408, "the request head did not arrive in time")
        if not data:
            return None
        head += data
        if len(head) > HEAD_BYTES:
            return _error(431, "the request head is too large")
    lines = bytes(head).partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[1].startswith("/") or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        return _error(400, "not an HTTP/1 request")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or name != name.strip() or (name == "host" and name in headers):
            return _error(400, "not a valid field line")
        headers[name] = value.strip()
    if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
        return _error(413, "no endpoint takes a body")
    target = urlsplit(words[1])
    try:
        query = dict(
            parse_qsl(target.query, keep_blank_values=True, strict_parsing=bool(target.query), max_num_fields=32)
        )
    except ValueError:
        return _error(400, "the query is not valid")
    return Request(words[0], target.path, query, headers)


def _json(value: Any) -> Reply:
    return Reply(200, _JSON, json.dumps(value, ensure_ascii=True, default=str).encode() + b"\n")


def _error(status: int, text: str) -> Reply:
    return Reply(status, _TEXT, f"{text}\n".encode("utf-8", "backslashreplace"))


def _send(connection: socket.socket, reply: Reply, *, head_only: bool = False) -> None:
    _send_head(connection, reply.status, reply.content_type, f"content-length: {len(reply.body)}\r\n")
    if not head_only:
        _send_all(connection, reply.body)


def _send_head(connection: socket.socket, status: int, content_type: str, framing: str) -> None:
    phrase = http.HTTPStatus(status).phrase
    _send_all(
        connection,
        (
            f"HTTP/1.1 {status} {phrase}\r\ndate: {email.utils.formatdate(usegmt=True)}\r\n"
            f"content-type: {content_type}\r\n{framing}cache-control: no-store\r\n"
            "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
        ).encode("latin-1"),
    )


def _send_all(connection: socket.socket, data: bytes) -> None:
    """sendall with a deadline for each piece, so that a large page to a slow but living reader gets through."""
    if connection.gettimeout() != 0:
        connection.settimeout(SEND_SECONDS)
    view = memoryview(data)
    while view:
        view = view[connection.send(view[:65536]) :]


def _linger(connection: socket.socket) -> None:
    # Bytes we never read would turn our close into a reset that destroys the reply on its way.
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(0.5)
    with contextlib.suppress(OSError):
        connection.recv(65536)


def _has_left(connection: socket.socket) -> bool:
    waiting = select.poll()  # not select(): a busy proxy has descriptors beyond 1024
    waiting.register(connection, select.POLLIN)
    if not waiting.poll(0):
        return False
    try:
        return not connection.recv(4096)
    except OSError:
        return True
