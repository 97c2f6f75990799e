"""Parsers of first octets under mutated input: none crashes or reads beyond its end, and no verdict is taken back."""

from __future__ import annotations

import random

import pytest

from meshcore._fastpath import base64_pieces, client_hello, detect_protocol, read_proxy_header
from tests.engine.test_client_hello import hello_of, message, record, records, server_name
from tests.fuzz.mutation import broken

HELLOS = [
    hello_of("a.test"), hello_of(None), record(message(server_name(b"a.test"))), record(message(None)),
    records(message(server_name(b"x.b.test")), [1, 5, 40]), records(message(server_name(b"y" * 200)), list(range(1, 60, 7))),
]  # fmt: skip
FIRSTS = [
    *HELLOS, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"REPORT /x HTTP/1.0\r\n", b"SSH-2.0-x\r\n", b"\0\0\0\x08\x04\xd2\x16\x2f",
    b"M" * 40 + b" / HTTP/1.1\r\n",
]  # fmt: skip
SOURCE4, SOURCE6 = b"\x7f\0\0\1", bytes(15) + b"\1"
HEADERS = [
    b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 80\r\n", b"PROXY TCP6 ::1 ::1 40000 80\r\n", b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ::2 65535 1\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + SOURCE4 * 2 + b"\x9c\x40\0\x50", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24" + SOURCE6 * 2 + b"\x9c\x40\0\x50",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14" + SOURCE4 * 2 + b"\x9c\x40\0\x50\x04\0\5hello",
]  # fmt: skip


def proxy_header(versions: int):
    def verdict(data: bytes) -> object:
        told = read_proxy_header(data, versions)
        return "more" if told == 0 else told

    return verdict


SUBJECTS = {
    "detect": (FIRSTS, detect_protocol, 1100),
    "ClientHello": (HELLOS, lambda data: "more" if (told := client_hello(data))[0] == "more" else told, 3000),
    "PROXY header v1": (HEADERS, proxy_header(1), 600),
    "PROXY header v2": (HEADERS, proxy_header(2), 600),
    "PROXY header": (HEADERS, proxy_header(3), 600),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_no_verdict_is_taken_back_whatever_comes(name, rng: random.Random):
    corpus, verdict, room = SUBJECTS[name]
    n = 0
    for data in broken(rng, corpus):
        data = data[:room]
        whole = verdict(data)
        for cut in {0, 1, len(data) // 2, *(rng.randrange(len(data) + 1) for _ in range(3))}:
            early = verdict(data[:cut])
            assert early in ("more", whole), (data, cut, early, whole)
        n += 1
    assert n > 100


def test_a_header_that_is_read_is_the_one_that_would_be_written(rng: random.Random):
    for data in broken(rng, HEADERS):
        told = read_proxy_header(data, 3)
        if isinstance(told, dict):
            assert told["size"] <= len(data) if "size" in told else told


def test_base64_of_any_octets_in_any_pieces(rng: random.Random):
    import base64

    for data in broken(rng, [base64.b64encode(bytes(range(n))) for n in (0, 1, 2, 3, 60, 200)]):
        at = rng.randrange(len(data) + 1)
        assert base64_pieces([data], True) == base64_pieces([data[:at], data[at:]], True)


