"""The tap: what passes by, who asked for it, and that traffic never waits for whoever watches."""

import itertools
import threading

import pytest

from meshcore.taps import format_json, format_line
from tests.scenario.servers import response

pytestmark = pytest.mark.usefixtures("only_meshcore")


class Watching:
    """Collects the events of one tap session in a thread."""

    def __init__(self, running, **filters):
        self.events = []
        self._arrived = threading.Condition()
        self._events = running.tap(**{"max_rps": 1000, **filters})
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self):
        for event in self._events:
            with self._arrived:
                self.events.append(event)
                self._arrived.notify_all()

    def first(self, n: int):
        """The first n events; they must come."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.events) >= n, 10), self.events
            return self.events[:n]


def test_exchange_is_seen_in_three_events(raw_server, proxy, raw_client):
    server = raw_server(response(404, b"x" * 100))
    running = proxy(to=server)
    watching = Watching(running)
    client = raw_client(running)
    client.get("/a/b?secret=1", host="a.test:80")
    request, answer, end = watching.first(3)
    assert [e.kind for e in (request, answer, end)] == ["req", "rsp", "end"]
    assert {(e.worker, e.stream) for e in (request, answer, end)} == {(request.worker, request.stream)}
    assert (request.method, request.path, request.authority.split(":")[0]) == ("GET", "/a/b", "a.test")
    assert (request.route, request.cluster) == ("all", "backend")
    assert request.src.startswith("127.0.0.1:")
    assert answer.dst == server.address
    assert (answer.status, end.response_bytes) == (404, 100)
    assert answer.latency_us > 0


def test_answer_of_the_proxy_itself_is_seen_with_its_reason(proxy, raw_client):
    running = proxy(to=[])
    watching = Watching(running)
    raw_client(running).get()
    events = watching.first(3)
    assert "no_endpoint" in {e.reason for e in events}
    assert 503 in {e.status for e in events}


@pytest.mark.parametrize("filters, paths", [
    ({"path": "/a"}, ["/a", "/a/b"]),
    ({"method": "POST"}, ["/post"]),
    ({"authority": "b.test"}, ["/b-host"]),
    ({"route": "special"}, ["/special"]),
    ({"to": "other"}, ["/special"]),
    ({"from_": "192.0.2.0/24"}, []),
])
def test_filters_choose(raw_server, proxy, raw_client, filters, paths):
    one, two = raw_server(), raw_server()
    running = proxy(routes=[{"name": "special", "match": {"path": "/special"}, "to": "other"}, {"name": "all", "to": "backend"}],
                    clusters=[{"name": "backend", "endpoints": [one.address]}, {"name": "other", "endpoints": [two.address]}])
    watching, everything = Watching(running, **filters), Watching(running)
    client = raw_client(running)
    for path in ("/a", "/a/b", "/x", "/special"):
        client.get(path)
    client.get("/b-host", host="b.test")
    client.post("/post", b"x")
    everything.first(18)
    watching.first(3 * len(paths))
    assert [e.path for e in watching.events if e.kind == "req"] == paths


def test_rate_is_a_ceiling(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    watching = Watching(running, max_rps=1)
    client = raw_client(running)
    for _ in range(200):
        client.get()
    watching.first(3)
    assert sum(e.kind == "req" for e in watching.events) <= 3


def test_watcher_that_does_not_read_slows_nobody(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    unread = running.tap(max_rps=100_000)
    client = raw_client(running)
    for _ in range(1000):
        client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n" * 5)
        for _ in range(5):
            assert client.read_response().status == 200
    assert list(itertools.islice(unread, 1))[0].kind == "req"


def test_session_that_ends_leaves_the_others(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    first = running.tap(max_rps=1000)
    second = Watching(running)
    client = raw_client(running)
    client.get("/1")
    next(iter(first))
    close = getattr(first, "close", None)
    if close:
        close()
    client.get("/2")
    assert {e.path for e in second.first(6) if e.kind == "req"} == {"/1", "/2"}


def test_nothing_off_the_wire_reaches_a_terminal_raw(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    watching = Watching(running)
    client = raw_client(running)
    client.send(b"GET /x\"%1b[2J HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \xc2\x9b31m\r\n\r\n")
    client.read_message()
    client.close()
    raw_client(running).get("/after")
    watching.first(3)
    for event in watching.events:
        for text in (format_line(event, wide=True), format_json(event)):
            assert text.isprintable() or text.isascii()
            assert "\x1b" not in text and "\n" not in text
