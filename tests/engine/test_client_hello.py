"""Whom a TLS client asks for, from its ClientHello, however it is cut into records and segments, and whatever it says."""

import os
import random
import ssl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshcore._fastpath import client_hello

MAX_NAME = 255
MAX_BYTES = 17_664


def hello_of(name: str | None, **settings_) -> bytes:
    """What OpenSSL says first."""
    context = ssl.create_default_context()
    context.check_hostname = False
    for key, value in settings_.items():
        setattr(context, key, value)
    sent = ssl.MemoryBIO()
    session = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return sent.read()


def vector(data: bytes, width: int) -> bytes:
    return len(data).to_bytes(width, "big") + data


def server_name(name: bytes, kind: int = 0) -> bytes:
    return b"\0\0" + vector(vector(bytes([kind]) + vector(name, 2), 2), 2)


def message(extensions: bytes | None, *, session: bytes = b"", suites: bytes = b"\x13\x01", compression: bytes = b"\0", version: bytes = b"\x03\x03") -> bytes:
    body = version + bytes(32) + vector(session, 1) + vector(suites, 2) + vector(compression, 1)
    return b"\1" + vector(body + (b"" if extensions is None else vector(extensions, 2)), 3)


def record(data: bytes) -> bytes:
    return b"\x16\x03\x01" + vector(data, 2)


def records(data: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cuts), len(data)]
    return b"".join(record(data[start:end]) for start, end in zip(edges, edges[1:], strict=False) if start != end)


@pytest.mark.parametrize("name", ["a.test", "A.Test", "x_y-1.b.test", "xn--mgba3a4f.test", "a", "a" * 63 + ".test"])
def test_the_name_of_openssl_s_hello_is_read(name):
    for versions in ({}, {"maximum_version": ssl.TLSVersion.TLSv1_2}):
        assert client_hello(hello_of(name, **versions)) == ("whole", name.lower().encode())


def test_a_hello_may_name_nobody():
    assert client_hello(hello_of(None)) == ("whole", b"")
    assert client_hello(record(message(None))) == ("whole", b"")
    assert client_hello(record(message(b""))) == ("whole", b"")


def test_every_beginning_of_a_hello_awaits_more_and_every_end_is_passed_over():
    whole = hello_of("a.test")
    for n in range(len(whole)):
        assert client_hello(whole[:n]) == ("more", b"")
    assert client_hello(whole + b"\x14\x03\x03\0\1\1") == ("whole", b"a.test")


@settings(max_examples=200)
@given(cuts=st.lists(st.integers(1, 120), max_size=60, unique=True), n=st.integers(0, 2000))
def test_the_verdict_is_the_same_however_a_hello_is_cut_into_records(cuts, n):
    data = records(message(server_name(b"a.test") + b"\0\x15" + vector(bytes(60), 2)), cuts)
    assert client_hello(data) == ("whole", b"a.test")
    part = data[:n]
    assert client_hello(part) == (("whole", b"a.test") if n >= len(data) else ("more", b""))


@pytest.mark.parametrize("name", [b"a.test.", b".a.test", b"a..test", b"a b", b"a\0.test", b"\xc3\xa4.test", b"10.0.0.1", b"[::1]", b"a:443", b"x" * 256, b"*.test"])
def test_what_is_no_host_name_names_nobody(name):
    assert client_hello(record(message(server_name(name)))) == ("whole", b"")


def test_the_longest_name_fits():
    name = b".".join([b"x" * 63] * 4)
    assert len(name) == MAX_NAME
    assert client_hello(record(message(server_name(name)))) == ("whole", name)


NAMED = server_name(b"a.test")
BROKEN = {
    "no record of a handshake": b"\x17\x03\x01" + vector(message(NAMED), 2),
    "another version's record": b"\x16\x02\x01" + vector(message(NAMED), 2),
    "SSL 2": b"\x80\x2e\x01\x03\x01",
    "an empty record": record(b"") + record(message(NAMED)),
    "a record too long": b"\x16\x03\x01\x40\x01" + message(NAMED),
    "another message": record(b"\2" + message(NAMED)[1:]),
    "a message too long": record(b"\1\x00\x40\x00"),
    "another record between": record(message(NAMED)[:20]) + b"\x15\x03\x01\0\2\1\0" + record(message(NAMED)[20:]),
    "a session id too long": record(message(NAMED, session=bytes(33))),
    "no cipher suite": record(message(NAMED, suites=b"")),
    "half a cipher suite": record(message(NAMED, suites=b"\1\2\3")),
    "no compression method": record(message(NAMED, compression=b"")),
    "a version of no TLS": record(message(NAMED, version=b"\2\0")),
    "two names": record(message(NAMED + NAMED)),
    "two in one list": record(message(b"\0\0" + vector(vector(b"\0\0\1a\0\0\1b", 2), 2))),
    "a name of another kind": record(message(server_name(b"a.test", 1))),
    "an empty name": record(message(server_name(b""))),
    "an empty list": record(message(b"\0\0" + vector(vector(b"", 2), 2))),
    "an extension cut short": record(message(NAMED[:-1])),
    "an extension without its length": record(message(NAMED + b"\0\1\0")),
    "something behind the extensions": record(b"\1" + vector(message(NAMED)[4:] + b"x", 3)),
    "a message of no octets": record(b"\1\0\0\0"),
    "a message that ends early": record(b"\1" + vector(message(NAMED)[4:30], 3)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_no_server_would_take_is_no_hello(what):
    assert client_hello(BROKEN[what])[0] == "none"


def test_a_verdict_never_changes_with_what_follows():
    for data in [*BROKEN.values(), hello_of("a.test")]:
        told = [client_hello(data[:n]) for n in range(len(data) + 1)]
        first = next((number for number, verdict in enumerate(told) if verdict[0] != "more"), len(told))
        assert len(set(told[first:])) <= 1


def test_more_is_never_asked_for_beyond_the_bound():
    longest = b"\1\0\x3f\xfc" + bytes(16_380)
    cut_small = b"".join(record(longest[at : at + 1]) for at in range(0, 255)) + record(longest[255:])
    assert len(cut_small) <= MAX_BYTES
    assert client_hello(cut_small)[0] == "none"
    assert client_hello(b"".join(record(longest[at : at + 1]) for at in range(0, 300)))[0] == "none"


def test_random_octets_are_told_from_a_hello_and_read_no_further():
    """Mutations of a real hello: whatever the verdict, a name is one that OpenSSL's own reading could have found there."""
    rng = random.Random(int(os.environ.get("MESHCORE_SEED") or 1))
    whole = hello_of("a.test")
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 255, rng.randrange(256)))
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        verdict, name = client_hello(bytes(data))
        assert verdict in ("more", "whole", "none") and (not name or name in bytes(data).lower())
