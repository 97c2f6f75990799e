"""Statistics from real proxies to the tables that operators read."""

import asyncio

import grpc
import pytest

from controlplane.errors import Denied, Invalid
from controlplane.observation.directory import Directory, Member
from controlplane.observation.reports import Reports
from controlplane.observation.statistics_store import StatisticsStore
from controlplane.resolve.index import Index
from meshcore.api import observation_pb2, statistics_pb2
from meshcore.api.statistics_frame import Report, Row, decode, encode
from tests.controlplane.observation.meshes import mesh
from tests.scenario.servers import response

ROWS = observation_pb2.StatRequest


async def table(made, kind, name="", namespace="shop", rows=ROWS.RESOURCES, **more):
    request = ROWS(target=observation_pb2.Resource(kind=kind, name=name, namespace=namespace), rows=rows, **more)
    return await made.operator.Stat(request)


async def until(made, claim, *question, **more):
    async with asyncio.timeout(20):
        while not claim(told := await table(made, *question, **more)):
            await asyncio.sleep(0.1)
    return told


async def load(client, n, path="/"):
    for _ in range(n):
        await asyncio.to_thread(client.get, path)


async def test_what_a_proxy_counted_is_in_the_table(raw_server, proxy, raw_client):
    def script(connection):
        while request := connection.read_request():
            connection.send(response(503 if request.target == b"/bad" else 200))

    running = proxy(to=raw_server(script))
    async with mesh() as made:
        await made.register("shop", "web-1", "web", {"deployment": "web"})
        await made.register("shop", "web-2", "web", {"deployment": "web"})
        await made.attach(running, "shop", "web-1", "web")
        client = raw_client(running)
        await load(client, 30)
        await load(client, 10, "/bad")
        told = await until(made, lambda told: told.rows and told.rows[0].requests == 40, "deploy")
        (row,) = told.rows
        assert (row.namespace, row.name, row.meshed, row.running) == ("shop", "web", 1, 2)
        assert (row.successes, row.failures, row.secure) == (30, 10, 0)
        assert 0 < row.p50_ms <= row.p95_ms <= row.p99_ms < 10_000
        by_route = await table(made, "deploy", "web", rows=ROWS.ROUTES)
        assert [(one.name, one.requests) for one in by_route.rows] == [("all", 40)]
        assert not (await table(made, "deploy", "api")).rows
        assert not (await table(made, "deploy", "", "bank")).rows


async def test_what_goes_out_is_in_the_edges_and_to_and_from(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.attach(running, "shop", "web", direction="out")
        await load(raw_client(running), 5)
        told = await until(made, lambda told: told.rows and told.rows[0].requests == 5, "deploy", rows=ROWS.EDGES)
        assert [(one.name, one.other, one.requests) for one in told.rows] == [("web", "backend", 5)]
        to = observation_pb2.Resource(kind="au", name="backend")
        assert [one.requests for one in (await table(made, "deploy", "web", to=to)).rows] == [5]
        assert [one.requests for one in (await table(made, "deploy", "web")).rows] == [0], "nothing came in"


async def test_a_frame_that_was_not_received_comes_again_and_is_counted_once(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        member = await made.attach(running, "shop", "web")
        client = raw_client(running)
        for _ in range(3):
            await load(client, 7)
            await member.leave()  # perhaps between a frame and its receipt
            member = await made.attach_again(member, "shop", "web")
        await load(client, 1)
        await until(made, lambda told: told.rows and told.rows[0].requests == 22, "deploy")
        await asyncio.sleep(1.5)
        assert (await table(made, "deploy")).rows[0].requests == 22


def reports():
    store = StatisticsStore(0.0)
    return Reports(store, Directory(Index()), None, None, None, clock=lambda: 100.0), store


WEB = Member("shop", "web", {"namespace": "shop", "deployment": "web"})


def frame(sequence=1, life=7, rows=(Row("in", "r", "", {}, 5, 5, 0),), raw=None):
    return statistics_pb2.Frame(sequence=sequence, life=life, msgpack=encode(Report(rows=tuple(rows))) if raw is None else raw)


def test_the_same_frame_twice_is_counted_once_and_another_life_begins_anew():
    service, store = reports()
    for one in (frame(1), frame(1), frame(2), frame(1), frame(1, life=8)):
        service.take(WEB, one)
    assert store.sums(100.0, 60, lambda series: 1)[0][1].requests == 15
    assert (service.frames, service.again) == (3, 2)


@pytest.mark.parametrize("raw", [
    b"\xc1", b"\x80" * 3, encode(Report(rows=(Row("in", "r", "", {}, -1, 0, 0),))), b"\x91" * 10_000,
    encode(Report(rows=(Row("in", "r", "", {}, 1, 1, 0, latency=b"12345"),))), encode(Report(rows=(Row("up", "r", "", {}, 1, 1, 0),))),
    encode(Report(rows=(Row("in", "r", "", {}, 1, 1, 0, 2),))), encode(Report(rows=(Row("in", "r", "", {}, 2**60, 0, 0),))),
    encode(Report(rows=(Row("in", "r", "", {}, 1, 1, 0, latency=b"\xff\xff\x01\0\0\0"),))),
])  # fmt: skip
def test_a_frame_that_cannot_be_meant_is_refused_and_changes_nothing(raw):
    service, store = reports()
    with pytest.raises((Invalid, Denied)):
        service.take(WEB, frame(raw=raw))
    assert len(store) == 0 and service.refused == 1
    assert store.sums(100.0, 60, lambda series: 1)[0] == {}


async def test_who_has_no_certificate_reports_nothing():
    from meshcore.api import statistics_pb2_grpc
    from tests.controlplane.members import channel

    async with mesh() as made:
        call = statistics_pb2_grpc.StatisticsStub(channel(made.plane.address, made.plane.bundle_pem)).Report()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.write(frame())
            await call.read()
        assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
