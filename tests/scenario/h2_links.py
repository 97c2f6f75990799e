"""A client, a proxy and a server in every pairing of HTTP/1 and HTTP/2 that has HTTP/2 in it. Owns no behaviour.

Both sorts of clients answer to `get` and `post`, both sorts of servers keep `requests`, both sorts of messages have `status`,
`body`, `get`, `all`, `trailer`: a scenario that says nothing about frames is written once.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import pytest

from tests.scenario import proxies
from tests.scenario.clients import RawClient
from tests.scenario.h2_peers import H2Client, H2Server, H2ServerConnection
from tests.scenario.servers import RawServer, chunked

PAIRS = ("h2-h1", "h1-h2", "h2-h2")


class Link(NamedTuple):
    client: RawClient | H2Client
    server: RawServer | H2Server
    proxy: object
    connect: Callable[..., RawClient | H2Client]


def sends_http2(connection) -> bool:
    return isinstance(connection, H2ServerConnection)


def answering(status: int = 200, body: bytes = b"ok", fields: dict[str, str] | None = None, *, trailers: dict[str, str] | None = None):
    """A script, for either sort of server, that answers every request alike."""

    def script(connection) -> None:
        while True:
            if sends_http2(connection):
                connection.answer(status, body, {name.lower(): value for name, value in (fields or {}).items()},
                                  trailers=list((trailers or {}).items()) or None)
            elif trailers:
                connection.read_request()
                lines = "".join(f"{name}: {value}\r\n" for name, value in trailers.items())
                head = f"HTTP/1.1 {status} OK\r\n" + "".join(f"{n}: {v}\r\n" for n, v in (fields or {}).items())
                connection.send(chunked(body, trailers=lines, head=head))
            else:
                connection.answer(status, body, fields)

    return script


def linking(pair: str, raw_server, h2_server, raw_client, h2_client, h2_proxy) -> Callable[..., Link]:
    """`link(script=None, server=None, client=None, **words)`: options for the ends, words for the configuration."""
    front, back = pair.split("-")
    if front == "h1" and proxies.chosen_proxy() != "meshcore":
        pytest.skip("peers are only run with HTTP/2 in front")

    def link(script=None, *, server: dict | None = None, client: dict | None = None, **words) -> Link:
        upstream = (h2_server if back == "h2" else raw_server)(script, **(server or {}))
        running = h2_proxy(to=upstream, upstream="http2" if back == "h2" else "http1", **words)

        def connect(**options):
            return (h2_client if front == "h2" else raw_client)(running, **options)

        return Link(connect(**(client or {})), upstream, running, connect)

    return link
