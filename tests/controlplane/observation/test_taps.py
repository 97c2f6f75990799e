"""Taps over many proxies: real proxies, a real control plane, and the stream that an operator reads."""

import asyncio
import json
from pathlib import Path

import grpc
import pytest

from meshcore.api import observation_pb2, relay_pb2, relay_pb2_grpc
from meshcore.taps import format_line
from tests.controlplane.members import join
from tests.controlplane.observation.meshes import mesh
from tests.scenario.servers import response


def records(plane, event):
    lines = Path(plane.settings.data, "audit.log").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


async def ask(client, *paths, **options):
    for path in paths:
        await asyncio.to_thread(client.get, path, **options)


async def test_an_exchange_is_seen_by_an_operator_in_three_lines(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(response(404, b"x" * 100)))
    async with mesh() as made:
        await made.register("shop", "web-1", "web", {"deployment": "web"})
        await made.attach(running, "shop", "web-1", "web")
        async with made.tapping("deploy", "web", "shop") as watched:
            await ask(raw_client(running), "/users/7?secret=1", host="a.test")
            request, answer, end = await watched.first(3)
    assert (request.method, request.path, request.authority) == ("GET", "/users/7", "a.test")
    assert (answer.status, end.response_bytes, end.kind) == (404, 100, "end")
    assert request.dst_labels["deployment"] == "web" and request.direction == "in"
    assert format_line(request).startswith("req id=0:1 src=127.0.0.1:") and "latency=" in format_line(answer)
    assert watched.workloads == ["shop/web-1"] * 3


async def test_only_proxies_of_the_target_are_tapped(raw_server, proxy, raw_client):
    server = raw_server()
    web, api = proxy(to=server), proxy(to=server)
    async with mesh() as made:
        await made.attach(web, "shop", "web")
        await made.attach(api, "shop", "api")
        async with made.tapping("deploy", "web", "shop") as one, made.tapping("ns", "shop", proxies=2) as both:
            await ask(raw_client(api), "/api")
            await ask(raw_client(web), "/web")
            await both.first(6)
            await one.first(3)
            assert one.paths() == ["/web"] and sorted(both.paths()) == ["/api", "/web"]
            assert len({(event.worker, event.stream) for event in both.events}) == 2, "two proxies never share an id"


async def test_a_workload_that_appears_while_a_tap_runs_is_tapped(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        async with made.tapping("deploy", "web", "shop", proxies=0) as watched:
            await made.attach(running, "shop", "web")
            await watched.until(lambda: watched.progress.proxies == 1)
            await asyncio.sleep(0.2)
            await ask(raw_client(running), "/late")
            assert (await watched.first(1))[0].path == "/late"


async def test_the_ceiling_is_that_of_all_proxies_together_and_what_is_hidden_is_counted(raw_server, proxy, raw_client):
    server = raw_server()
    several = [proxy(to=server) for _ in range(3)]
    async with mesh() as made:
        for number, running in enumerate(several):
            await made.attach(running, "shop", f"web-{number}", "web")
        async with made.tapping("ns", "shop", max_rps=2, proxies=3) as watched:
            await asyncio.gather(*(ask(raw_client(running), *["/x"] * 50) for running in several))
            await watched.until(lambda: watched.progress.hidden + len(watched.paths()) >= 150)
            windows = {event.time_unix_ns // 1_000_000_000 for event in watched.events}
            assert len(watched.paths()) <= 2 * (len(windows) + 1)
            assert watched.progress.hidden + len(watched.paths()) == 150
            assert len(watched.events) == 3 * len(watched.paths()), "what is shown is shown whole"


async def test_conditions_reach_the_engine(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(lambda c: [c.send(response(503 if r.target == b"/bad" else 200)) for r in iter(c.read_request, None)]))
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        async with made.tapping("deploy", "web", "shop", status="5xx", headers=True) as watched:
            client = raw_client(running)
            await ask(client, "/good", "/bad", "/good", headers={"X-Kind": "tea", "Authorization": "Bearer hidden"})
            request = (await watched.first(3))[0]
    assert watched.paths() == ["/bad"]
    assert dict(request.fields)["x-kind"] == "tea" and dict(request.fields)["authorization"] == "[redacted]"


async def test_who_watches_is_told_of_workloads_without_a_proxy():
    async with mesh() as made:
        await made.register("shop", "bare", labels={"deployment": "web"})
        async with made.tapping("deploy", "web", "shop", proxies=0) as watched:
            await watched.until(lambda: watched.progress.unmeshed == 1)


async def test_every_session_is_audited_with_what_was_asked_and_what_was_shown(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        async with made.tapping("deploy", "web", "shop", path="/users") as watched:
            await ask(raw_client(running), "/users/1", "/users/2", "/other")
            await watched.first(6)
        async with asyncio.timeout(10):
            while not records(made.plane, "tap_end"):
                await asyncio.sleep(0.02)
        (begin,), (end,) = records(made.plane, "tap_begin"), records(made.plane, "tap_end")
    assert begin["actor"] == "local operator" and begin["fields"]["target"] == "deploy/web in shop"
    assert "path=/users" in begin["fields"]["conditions"]
    assert (end["fields"]["session"], end["fields"]["requests"]) == (begin["fields"]["session"], 2)


async def test_the_end_of_a_tap_leaves_no_session_in_the_proxy(raw_server, proxy):
    running = proxy(to=raw_server())
    async with mesh() as made:
        member = await made.attach(running, "shop", "web")
        for _ in range(20):  # more than a proxy serves at a time
            async with made.tapping("deploy", "web", "shop"):
                assert member.relay.sessions == 1
        async with asyncio.timeout(10):
            while member.relay.sessions:
                await asyncio.sleep(0.02)
        assert made.plane.observing.taps.count == 0


async def test_a_proxy_that_goes_away_and_comes_back_is_tapped_again(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        async with made.tapping("deploy", "web", "shop") as watched:
            await made.members["web"].leave()
            await watched.until(lambda: watched.progress.proxies == 0)
            await made.attach(running, "shop", "web")
            await watched.until(lambda: watched.progress.proxies == 1)
            await asyncio.sleep(0.2)
            await ask(raw_client(running), "/again")
            assert (await watched.first(1))[0].path == "/again"


async def test_a_question_that_cannot_be_meant_is_refused_with_what_was_expected():
    async with mesh() as made:
        for kind, name, ask, why in (
            ("planet", "", {}, "unsupported resource type"), ("svc", "web", {}, "runs no proxy"), ("deploy", "a/b", {}, "names no resource"),
            ("deploy", "web", {"status": "9xx"}, "--status"), ("deploy", "web", {"max_rps": -1}, "--max-rps"), ("", "", {}, "no resource"),
        ):  # fmt: skip
            resource = observation_pb2.Resource(kind=kind, name=name, namespace="shop")
            call = made.operator.Tap(observation_pb2.TapRequest(target=resource, ask=relay_pb2.Ask(**{"max_rps": 1, **ask})))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call.read()
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT and why in error.value.details()


async def test_a_proxy_does_not_speak_for_the_workload_of_another():
    async with mesh() as made:
        await made.register("shop", "db", "db", {"deployment": "db"})
        web = await join(made.plane, "shop", "web")
        for workload, code in (("bank/db", "PERMISSION_DENIED"), ("nothing", "PERMISSION_DENIED"), ("shop/db", None)):
            call = relay_pb2_grpc.RelayStub(web.channel()).Attach()
            await call.write(relay_pb2.Up(hello=relay_pb2.Hello(workload=workload)))
            if code:
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await call.read()
                assert error.value.code().name == code
            else:
                async with asyncio.timeout(10):
                    while not len(made.plane.observing.attached):
                        await asyncio.sleep(0.02)
                (member,) = made.plane.observing.attached.members()
                assert member.labels["serviceaccount"] == "web" and member.labels["deployment"] == "db"
            call.cancel()
