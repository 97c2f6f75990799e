"""Calls with a deadline of 50 ms through two proxies to a server that hangs: how long until the proxy has answered each.

    python -m tests.soak.grpc_deadline --calls 40 --within-ms 60

The caller is a bare client of HTTP/2 that asks and looks at the clock; grpcio would end the call itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from meshcore import Proxy
from tests.scenario.h2_peers import H2Client, H2Server, H2ServerConnection

DEADLINE_MS = 50
CALL = {"content-type": "application/grpc", "te": "trailers", "grpc-timeout": f"{DEADLINE_MS}m"}
DEADLINE_EXCEEDED = "4"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=40)
    parser.add_argument("--within-ms", type=float, default=60.0)
    asked = parser.parse_args(argv)
    took_ms, trouble = calls(asked.calls)
    late = [one for one in took_ms if one > asked.within_ms]
    print(
        f"{len(took_ms)} calls answered after {min(took_ms):.1f} to {max(took_ms):.1f} ms, median {statistics.median(took_ms):.1f}; "
        f"{len(late)} later than {asked.within_ms:g} ms"
    )
    for line in trouble:
        print(f"TROUBLE: {line}")
    return bool(late or trouble)


def calls(n: int) -> tuple[list[float], list[str]]:
    """How long each took, and what went wrong."""
    took_ms, trouble = [], []
    server = H2Server(_hang)
    try:
        with Proxy(_config(server.address)) as far, Proxy(_config("%s:%d" % far.addresses["web"])) as near:
            client = H2Client(near.addresses["web"])
            client.get("/nowhere", {"content-type": "text/plain"})  # the connections on the way are there from here on
            for _ in range(n):
                began = time.monotonic()
                stream = client.request("POST", "/test.Echo/Hang", CALL, b"\0\0\0\0\0")
                answer = client.response(stream)
                took_ms.append(1000 * (time.monotonic() - began))
                if (answer.status, answer.get("grpc-status")) != (200, DEADLINE_EXCEEDED):
                    trouble.append(f"answered {answer.status} with grpc-status {answer.get('grpc-status')}")
            client.close()
    finally:
        server.stop()
    return took_ms, trouble


def _hang(connection: H2ServerConnection) -> None:
    while True:
        request = connection.next_request(complete=False)
        if request.path == "/nowhere":
            connection.respond(request.stream)


def _config(upstream: str) -> dict[str, object]:
    return {
        "workers": 1,
        "listeners": [{"name": "web", "address": "127.0.0.1:0"}],
        "clusters": [{"name": "next", "protocol": "http2", "endpoints": [upstream], "breaker": {"consecutive_failures": 0}}],
        "routes": [{"name": "all", "to": "next"}],
    }


if __name__ == "__main__":
    sys.exit(main())
