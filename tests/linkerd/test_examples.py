"""Three Linkerd 1.x configurations of the kinds that are published as its examples, each served as it stands, but for its ports.

What each is warned of stands beside it: nothing else has no meaning here.
"""

import asyncio
import contextlib
import threading
from textwrap import dedent

import pytest

from meshcore.linkerd import read_text
from tests.binder.test_binder import naming
from tests.linkerd.test_serving import ask, linkerd, ports  # noqa: F401 (fixtures)
from tests.namerd.served import memory, served
from tests.scenario.servers import eventually, response

RETRIES = """\
    # Files as discovery; requests that fail are tried again, after a while, within a budget.
    admin:
      ip: 127.0.0.1
      port: {admin}
    namers:
    - kind: io.l5d.fs
      rootDir: disco
    telemetry:
    - kind: io.l5d.recentRequests
      sampleRate: 1.0
    routers:
    - protocol: http
      identifier:
        kind: io.l5d.methodAndHost
      dtab: |
        /svc/1.1/* => /#/io.l5d.fs ;
      service:
        responseClassifier:
          # GET, HEAD, OPTIONS, PUT and DELETE
          kind: io.l5d.http.retryableIdempotent5XX
        retries:
          budget:
            minRetriesPerSec: 5
            percentCanRetry: 0.5
            ttlSecs: 15
          backoff:
            kind: jittered
            minMs: 10
            maxMs: 10000
      client:
        failureAccrual:
          kind: io.l5d.successRate
          successRate: 0.3
          requests: 10
          backoff:
            kind: constant
            ms: 10000
        loadBalancer:
          kind: ewma
          maxEffort: 10
      servers:
      - port: {in}
        ip: 127.0.0.1
    """

NODE = """\
    # One proxy a node: what its applications ask goes to the proxy of the other node, which gives it to its own.
    namers:
    - kind: io.l5d.fs
      rootDir: disco
    admin: {{port: {admin}}}
    routers:
    - protocol: http
      label: outgoing
      interpreter:
        kind: default
        transformers:
        - kind: io.l5d.port
          port: {other}
      dtab: |
        /host => /#/io.l5d.fs;
        /svc => /host;
      originator: true
      servers:
      - port: {in}
        ip: 127.0.0.1
    - protocol: http
      label: incoming
      interpreter:
        kind: default
        transformers:
        - kind: io.l5d.localhost
      dtab: |
        /host => /#/io.l5d.fs;
        /svc => /host;
      servers:
      - port: {other}
        maxConcurrentRequests: 100
    """

NAMERD = """\
    # All tables are kept by a namerd, asked over gRPC.
    admin: {{port: {admin}}}
    routers:
    - protocol: http
      interpreter:
        kind: io.l5d.mesh
        experimental: true
        dst: /$/inet/127.1/{other}
        root: /default
      servers:
      - port: {in}
        ip: 127.0.0.1
    """


def filled(text, ports):
    return dedent(text).format(**{"in": ports[0], "other": ports[1], "admin": ports[2]})


def warnings(text):
    return [str(one) for one in read_text(text, "l5d.yaml").warnings]


@pytest.fixture
def disco(tmp_path):
    """`disco(web=server)`: the folder in which names are files."""

    def fill(**servers):
        (tmp_path / "disco").mkdir()
        for name, several in servers.items():
            (tmp_path / "disco" / name).write_text("".join(f"127.0.0.1 {one.port}\n" for one in several))

    return fill


def test_files_with_retries_and_a_success_rate(raw_server, linkerd, ports, disco):  # noqa: F811
    bad, good = raw_server(response(503)), raw_server(naming("web"))
    disco(web=[bad, good])
    text = filled(RETRIES, ports)
    told = warnings(text)
    assert [warning.partition("'")[2].partition("'")[0] for warning in told] == ["telemetry", "maxEffort"], told
    running = linkerd(text)
    assert [ask(ports[0]).body for _ in range(12)] == [b"web"] * 12
    cluster = next(row for row in running.proxy.stats().clusters if row.name.endswith("/#/io.l5d.fs/web"))
    assert cluster.retries >= 1
    assert ask(ports[0], "nobody").status == 502


def test_a_proxy_on_each_node(raw_server, linkerd, ports, disco):  # noqa: F811
    server = raw_server(naming("web"))
    disco(web=[server])
    text = filled(NODE, ports)
    assert warnings(text) == []
    linkerd(text)
    assert ask(ports[0]).body == b"web"
    assert len(server.requests[0].all("via")) == 2, "it went through both routers"
    assert server.requests[0].get("l5d-dst-client") == "/%/io.l5d.localhost/#/io.l5d.fs/web"


@contextlib.contextmanager
def namerd(port, **tables):
    """A namerd of ours on a thread of its own."""
    from controlplane.namerd.settings import HttpController, Mesh

    loop, ready, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found = []

    async def serve():
        async with served(memory(HttpController(port=0), Mesh(port=port), **tables)) as one:
            found.append(one)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(20)
    try:
        yield lambda table: asyncio.run_coroutine_threadsafe(found[0].ask("PUT", "/dtabs/default", table, kind="application/dtab"), loop).result(20)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def test_tables_of_a_namerd(raw_server, linkerd, ports):  # noqa: F811
    old, new = raw_server(naming("old")), raw_server(naming("new"))
    text = filled(NAMERD, ports)
    assert warnings(text) == []
    with namerd(ports[1], default=f"/svc/web => /$/inet/127.0.0.1/{old.port}") as put:
        linkerd(text)
        assert ask(ports[0]).body == b"old"
        assert put(f"/svc/web => /$/inet/127.0.0.1/{new.port}").status == 204
        eventually(lambda: ask(ports[0]).body == b"new")
