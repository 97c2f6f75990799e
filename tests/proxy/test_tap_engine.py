"""The tap: what passes by, who asked for it, and that traffic never waits for whoever watches."""

import itertools
import threading
import time

import pytest

from meshcore.taps import captured_lines, format_json, format_line
from tests.scenario.servers import chunked, response

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


@pytest.mark.parametrize("asked", [{}, {"headers": True, "body": 100}])
def test_a_session_that_ends_before_an_exchange_it_saw_begin_leaves_it_alone(asked, raw_server, proxy, raw_client):
    """Its records were asked for in a session that was gone: through a null pointer."""
    go_on = threading.Event()

    def script(connection):
        while connection.read_request():
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            assert go_on.wait(10)
            connection.send(b"k")

    running = proxy(to=raw_server(script))
    watching, other = Watching(running, **asked), Watching(running)
    client = raw_client(running)
    client.request("GET", "/")
    watching.first(2)
    watching._events.close()
    go_on.set()
    assert client.read_response().text == "ok"
    assert other.first(3)[2].status == 200


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


@pytest.mark.parametrize("asked, paths", [
    ({"status": "5xx"}, ["/503", "/none"]),
    ({"status": "404"}, ["/404"]),
    ({"status": "404-503"}, ["/404", "/503", "/none"]),
    ({"reason": "no_endpoint"}, ["/none"]),
    ({"min_latency": "80ms"}, ["/slow"]),
    ({"status": "5xx", "path": "/no"}, ["/none"]),
])
def test_who_asks_how_it_ended_sees_the_whole_exchange_once_that_is_known(raw_server, proxy, raw_client, asked, paths):
    def script(connection):
        while request := connection.read_request():
            if request.target == b"/slow":
                time.sleep(0.1)
            connection.send(response(int(request.target[1:]) if request.target[1:].isdigit() else 200))

    server = raw_server(script)
    running = proxy(routes=[{"name": "none", "match": {"path": "/none"}, "to": "nobody"}, {"name": "all", "to": "backend"}],
                    clusters=[{"name": "backend", "endpoints": [server.address]}, {"name": "nobody", "endpoints": []}])
    watching, everything = Watching(running, **asked), Watching(running)
    client = raw_client(running)
    for path in ("/200", "/404", "/503", "/slow", "/none"):
        client.get(path)
    everything.first(15)
    watching.first(3 * len(paths))
    assert [e.kind for e in watching.events] == ["req", "rsp", "end"] * len(paths)
    assert [e.path for e in watching.events if e.kind == "req"] == paths
    request, answer = next(e for e in everything.events if e.path == paths[0]), watching.events[1]
    assert abs(watching.events[0].time_unix_ns - request.time_unix_ns) < 50_000_000, "the times are those that were"
    assert answer.status in (404, 503, 200)


def test_a_ceiling_counts_what_is_shown_and_not_what_was_waited_for(raw_server, proxy, raw_client):
    server = raw_server(lambda c: [c.send(response(503 if r.target == b"/bad" else 200)) for r in iter(c.read_request, None)])
    running = proxy(to=server)
    watching = Watching(running, status="503", max_rps=1)
    client = raw_client(running)
    for _ in range(100):
        client.get("/good")
    client.get("/bad")
    assert watching.first(3)[0].path == "/bad"


def test_fields_are_captured_without_their_secrets(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(response(200, b"ok", {"Set-Cookie": "id=hidden", "X-Colour": "green"})))
    watching, other = Watching(running, headers=True), Watching(running)
    raw_client(running).get("/", headers={"Authorization": "Bearer hidden", "X-Kind": "tea", "Cookie": "a=hidden"})
    request, answer, end = watching.first(3)
    assert ("x-kind", "tea") in request.fields and ("x-colour", "green") in answer.fields
    assert dict(request.fields)["authorization"] == dict(request.fields)["cookie"] == dict(answer.fields)["set-cookie"] == "[redacted]"
    assert "hidden" not in "".join(map(format_json, watching.events)) + "".join("".join(captured_lines(e)) for e in watching.events)
    assert not end.fields and all(not e.fields for e in other.first(3))


@pytest.mark.parametrize("size", [0, 1, 700, 768, 769, 3_000, 200_000, 500_000])
def test_bodies_are_captured_up_to_a_bound_and_arrive_whole(raw_server, proxy, raw_client, size):
    body = (b"0123456789" * (size // 10 + 1))[:size]
    running = proxy(to=raw_server(response(200, body)))
    watching = Watching(running, body=2000)
    answer = raw_client(running).post("/", body)
    assert answer.body == body
    end = watching.first(3)[2]
    assert end.request_body.encode() == body[:2000] and end.response_body.encode() == body[:2000]


def test_chunked_bodies_are_captured_without_their_framing(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(chunked(b"one ", b"two ", b"three")))
    watching = Watching(running, body=100)
    client = raw_client(running)
    client.send(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nin \r\n")
    client.send(b"6\r\npieces\r\n0\r\n\r\n")
    assert client.read_response().body == b"one two three"
    end = watching.first(3)[2]
    assert (end.request_body, end.response_body) == ("in pieces", "one two three")


def test_a_session_does_not_see_the_end_of_what_began_before_it(raw_server, proxy, raw_client):
    go_on = threading.Event()

    def script(connection):
        while connection.read_request():
            go_on.wait(10)
            connection.send(response())

    running = proxy(to=raw_server(script))
    first = running.tap(max_rps=1000)
    client = raw_client(running)
    client.send(b"GET /old HTTP/1.1\r\nHost: a.test\r\n\r\n")
    assert next(iter(first)).path == "/old"
    first.close()
    second = Watching(running)
    go_on.set()
    assert client.read_response().status == 200
    client.get("/new")
    assert [e.path for e in second.first(3)] == ["/new", "", ""]


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


def test_a_reader_that_waits_is_woken_and_rung_for_once(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    session = running.tap(max_rps=1000)
    assert session.arm(), "nothing there yet"
    assert not session.bell.wait(0.05)
    client = raw_client(running)
    client.get("/1")
    assert session.bell.wait(10)
    client.get("/2")
    assert not session.bell.wait(0.05), "who was woken is not rung for again before it says that it waits"
    assert not session.arm(), "what came meanwhile must not wait for the bell"
    assert len([event for event in session.take() if event.kind == "req"]) == 2
    session.close()


def test_one_readers_bell_is_not_rung_for_anothers_events(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    mine, other = running.tap(path="/mine", max_rps=1000), running.tap(path="/other", max_rps=1000)
    assert mine.arm() and other.arm()
    raw_client(running).get("/other")
    assert other.bell.wait(10)
    assert not mine.bell.wait(0.05)
    raw_client(running).get("/mine")
    assert mine.bell.wait(10)
    mine.close()
    other.close()


def test_closing_wakes_a_reader_that_waits(proxy):
    session = proxy(to=[]).tap()
    threading.Timer(0.05, session.close).start()
    assert session.read(10) == []
    assert session.closed
