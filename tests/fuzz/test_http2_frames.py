"""A live proxy fed with mutated HTTP/2: whatever a client sends, or an endpoint answers, others are served as before."""

from __future__ import annotations

import contextlib
import random
import socket
import threading

import pytest

from tests.fuzz.mutation import SECONDS, broken
from tests.scenario import h2_frames as h2
from tests.scenario import h2_hpack as hpack
from tests.scenario.servers import answer_all

pytestmark = pytest.mark.usefixtures("only_meshcore")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def block(*fields: tuple[str, str]) -> bytes:
    return hpack.stateless(fields)


GET = hpack.stateless(hpack.request("GET", "/"))
POST = hpack.stateless([*hpack.request("POST", "/x"), ("content-length", "5")])
CLIENTS = [
    PREFACE + h2.settings() + h2.headers(1, GET),
    PREFACE + h2.settings({h2.ENABLE_CONNECT_PROTOCOL: 1, 4: 1 << 20}) + h2.settings(ack=True) + h2.headers(1, POST, end_stream=False) + h2.data(1, b"hello", end_stream=True),
    PREFACE + h2.settings() + h2.headers(1, GET[:9], end_headers=False) + h2.continuation(1, GET[9:]) + h2.headers(3, GET) + h2.rst_stream(3),
    PREFACE + h2.settings() + h2.ping() + h2.window_update(0, 1000) + h2.priority(5, 0) + h2.headers(1, GET, padding=7) + h2.goaway(),
    PREFACE + h2.settings() + h2.headers(1, hpack.stateless([*hpack.request("POST", "/x"), ("te", "trailers")]), end_stream=False) + h2.data(1, b"x" * 300, padding=3)
    + h2.headers(1, block(("x-sum", "1")), end_stream=True),
    PREFACE + h2.settings() + h2.headers(1, hpack.stateless([(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":path", "/"), (":authority", "a.test")]), end_stream=False)
    + h2.data(1, b"\x81\x05hello"),
]  # fmt: skip
OK = block((":status", "200"), ("content-length", "2"))
SERVERS = [
    h2.settings() + h2.settings(ack=True) + h2.headers(1, OK, end_stream=False) + h2.data(1, b"ok", end_stream=True),
    h2.settings({3: 5}) + h2.headers(1, block((":status", "103")), end_stream=False) + h2.headers(1, block((":status", "200")), end_stream=False) + h2.data(1, b"ok")
    + h2.headers(1, block(("grpc-status", "0")), end_stream=True),
    h2.settings() + h2.ping() + h2.window_update(1, 70_000) + h2.headers(1, block((":status", "204"))) + h2.goaway(1),
    h2.settings() + h2.rst_stream(1, h2.REFUSED_STREAM) + h2.goaway(0),
    h2.settings() + h2.push_promise(1, 2, GET) + h2.headers(1, OK),
]  # fmt: skip


def said(address: tuple[str, int], data: bytes, rng: random.Random) -> None:
    """Say it in a piece or two, and leave; sometimes after a look at the answer."""
    with contextlib.suppress(OSError), socket.create_connection(address, 10) as sock:
        at = rng.randrange(len(data) + 1)
        for part in (data[:at], data[at:]):
            sock.sendall(part)
        if rng.random() < 0.5:
            sock.settimeout(0.02)
            sock.recv(65536)


@pytest.mark.parametrize("behind", ["h1", "h2"])
def test_what_a_client_sends_harms_nobody_else(behind, raw_server, h2_server, h2_proxy, h2_client, raw_client, rng):
    # Its endpoint sees only what the proxy makes of it, which is well-formed: a scripted server that finds fault fails the test.
    server = raw_server(answer_all) if behind == "h1" else h2_server()
    running = h2_proxy(to=server, upstream="http1" if behind == "h1" else "http2", timeouts={"head": "200ms", "keep_alive": "200ms"})
    neighbour = h2_client(running)
    assert neighbour.get().status == 200
    for number, data in enumerate(broken(rng, CLIENTS, 2 * SECONDS)):
        # Most mutations behind the preface: before it there is only one thing to say.
        said(running.addresses["web"], data if rng.random() < 0.2 or data.startswith(PREFACE) else PREFACE + data, rng)
        if number % 200 == 0:
            assert raw_client(running).get().status == 200
    assert h2_client(running).get().status == 200


def test_what_an_endpoint_answers_harms_nobody_else(h2_proxy, raw_server, raw_client, rng):
    answers = broken(rng, SERVERS, 2 * SECONDS)
    left = [True]

    def hostile(listener: socket.socket) -> None:
        while left[0]:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), sock:
                sock.settimeout(0.5)
                sock.recv(65536)
                data = next(answers, None)
                if data is None:
                    left[0] = False
                    data = SERVERS[0]
                sock.sendall(data)
                if rng.random() < 0.3:
                    sock.settimeout(0.02)
                    sock.recv(65536)

    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    threading.Thread(target=hostile, args=(listener,), daemon=True).start()
    good = raw_server(answer_all)
    running = h2_proxy(
        config={
            "workers": 1,
            "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
            "routes": [
                {"name": "bad", "match": {"prefix": "/bad"}, "to": "bad", "timeout": "100ms", "retries": {"max_attempts": 1}},
                {"name": "good", "to": "good"},
            ],
            "clusters": [
                {"name": "bad", "endpoints": ["127.0.0.1:%d" % listener.getsockname()[1]], "protocol": "http2", "breaker": {"consecutive_failures": 0},
                 "pool": {"idle_timeout": "50ms", "max_requests_per_connection": 1}},
                {"name": "good", "endpoints": [good.address], "pool": {"max_idle": 0}},
            ],
        }
    )  # fmt: skip
    n = 0
    try:
        while left[0]:
            # Answered, cut or refused, but in the form of HTTP/1 and in time.
            with contextlib.suppress(AssertionError):
                raw_client(running).get("/bad")
            n += 1
            if n % 50 == 0:
                assert raw_client(running).get("/good").status == 200
    finally:
        left[0] = False
        listener.close()
    assert raw_client(running).get("/good").status == 200
