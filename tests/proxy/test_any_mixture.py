"""Random mixtures of everything legal: methods, framings, sizes, pipelining, cuts, closes; each answer is the right one.

The path of a request tells the server how to answer it; the answer carries a digest of the body that arrived. So every
exchange proves itself, whatever its neighbours on the same connections did. A failure prints its seed.
"""

import hashlib
import random
import threading
import time

import pytest

from tests.conftest import SEED
from tests.scenario.clients import RawClient, random_pieces
from tests.scenario.servers import eventually

SIZES = [0, 1, 5, 100, 4095, 4096, 16_384, 40_000, 131_072, 200_000, 700_000]
REQUEST_SIZES = [0, 0, 1, 100, 16_384, 60_000, 150_000]


def octets(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(min(size, 4096)) * (size // 4096 + 1)


def body_of(seed: int, size: int) -> bytes:
    return octets(seed, size)[:size]


def in_chunks(body: bytes, rng: random.Random) -> bytes:
    out, at = bytearray(), 0
    while at < len(body):
        n = rng.choice([1, 10, 1000, 16_384, 100_000])
        part = body[at : at + n]
        out += b"%x\r\n%s\r\n" % (len(part), part)
        at += n
    return bytes(out) + b"0\r\n\r\n"


def answering_as_told(connection):
    """`/framing/status/size/interim/close/pieces/seed`"""
    while True:
        request = connection.read_request()
        framing, status, size, interim, close, pieces, seed = request.path[1:].split("/")
        rng = random.Random(int(seed))
        body = body_of(int(seed), int(size))
        head = f"HTTP/1.1 {status} Whatever\r\nX-Seen: {hashlib.sha256(request.body).hexdigest()[:16]}-{request.body_bytes}\r\n"
        bodiless = request.method == b"HEAD" or status in ("204", "304")
        if close == "1":
            head += "Connection: close\r\n"
        if framing == "chunked" and status != "204":
            data = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + (b"" if bodiless else in_chunks(body, rng))
        elif framing == "length" and status != "204":
            data = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + (b"" if bodiless else body)
        else:
            data = head.encode() + b"\r\n" + (b"" if bodiless else body)
        data = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * int(interim) + data
        for piece in random_pieces(data, rng, 40) if pieces == "1" else [data]:
            connection.send(piece)
            if pieces == "1" and rng.random() < 0.05:
                time.sleep(0.001)
        if close == "1" or (framing == "close" and not bodiless):
            return


def random_request(rng: random.Random) -> tuple[bytes, dict]:
    """The octets of a request, and what its answer must be."""
    method = rng.choice(["GET", "GET", "POST", "PUT", "HEAD", "DELETE"])
    framing = rng.choice(["length", "length", "chunked", "chunked", "close"])
    status = rng.choice(["200"] * 6 + ["204", "304", "404"])
    size, seed = rng.choice(SIZES), rng.randrange(1 << 30)
    close, pieces = int(rng.random() < 0.1), int(rng.random() < 0.5)
    interim = rng.choice([0, 0, 0, 1, 2])
    if framing == "close" and status in ("204", "304"):
        framing = "length"
    head = f"{method} /{framing}/{status}/{size}/{interim}/{close}/{pieces}/{seed} HTTP/1.1\r\nHost: a.test\r\n"
    body = body_of(seed + 1, rng.choice(REQUEST_SIZES)) if method in ("POST", "PUT") or rng.random() < 0.1 else b""
    if body and rng.random() < 0.5:
        data = head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + in_chunks(body, rng)
    elif body or method in ("POST", "PUT"):
        data = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        data = head.encode() + b"\r\n"
    has_body = method != "HEAD" and status not in ("204", "304")
    digest = f"{hashlib.sha256(body).hexdigest()[:16]}-{len(body)}"
    return data, {"method": method, "status": int(status), "body": body_of(seed, size) if has_body else b"", "seen": digest, "path": head}


def visit(address, seed: int, turns: int, wrong: list) -> None:
    rng = random.Random(seed)
    client = RawClient(address)
    try:
        for turn in range(turns):
            batch = [random_request(rng) for _ in range(rng.choice([1, 1, 1, 2, 5]))]
            for _, due in batch:
                client.reader.expect(due["method"])
            data = b"".join(data for data, _ in batch)
            parts = random_pieces(data, rng, 30) if rng.random() < 0.5 else [data]
            # Large pipelines must be read while they are written, or both sides wait for ever.
            sender = threading.Thread(target=client.send_pieces, args=(parts,))
            sender.start()
            for _, due in batch:
                answer = client.read_response()
                got = (answer.status, hashlib.sha256(answer.body).hexdigest(), answer.get("x-seen"))
                want = (due["status"], hashlib.sha256(due["body"]).hexdigest(), due["seen"])
                if got != want:
                    wrong.append(f"seed {seed} turn {turn} {due['path'].splitlines()[0]}: {answer.status} {answer.body_bytes} octets "
                                 f"{answer.get('x-seen')} {answer.reason}, due {due['status']} {len(due['body'])} {due['seen']}")
                    return
                if answer.get("connection") == "close":
                    wrong.append(f"seed {seed} turn {turn}: closed for no reason, {answer.first_line!r}")
                    return
            sender.join(10)
    except Exception as error:
        wrong.append(f"seed {seed}: {error!r}")
    finally:
        client.close()


VARIANTS = {
    "one client": {"n_clients": 1},
    "four clients": {},
    "two workers": {"workers": 2},
    "a queue": {"cluster": {"max_connections": 1, "queue_timeout": "30s"}},
    "no pool": {"cluster": {"pool": {"max_idle": 0}}},
    "filters": {"filters": True},
}


def leaving_a_mark(running) -> None:
    @running.on_request(route="all")
    def mark(request):
        request.headers["x-mark"] = "m" * 50

    @running.on_response(route="all")
    def mark_back(response):
        response.headers["x-mark"] = "m"


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_any_mixture_is_answered_rightly(raw_server, proxy, only_meshcore, variant):
    words = {"n_clients": 4, "cluster": {}, "filters": False, **variant}
    n_clients, filters = words.pop("n_clients"), words.pop("filters")
    servers = [raw_server(answering_as_told) for _ in range(2)]
    running = proxy(to=servers, **{**words, "cluster": {"breaker": {"consecutive_failures": 0}, **words["cluster"]}})
    if filters:
        leaving_a_mark(running)
    wrong: list[str] = []
    threads = [threading.Thread(target=visit, args=(running.addresses["web"], SEED + n, 20, wrong)) for n in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong, f"MESHCORE_SEED={SEED}: " + "; ".join(wrong)
    eventually(lambda: running.stats().cluster("backend").in_flight == 0)
    assert sum(e.failures for e in running.stats().endpoints) == 0
    assert sum(len(server.requests) for server in servers) >= n_clients * 20
