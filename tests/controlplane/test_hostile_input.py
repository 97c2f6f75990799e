"""Input that is wrong, hostile or of another version, against a running control plane: told, and nothing else changes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from pathlib import Path

import aiohttp
import grpc
import pytest

from controlplane.cli import main
from controlplane.model import Endpoint, Service, TrafficPolicy
from controlplane.server import ControlPlane
from meshcore.api import admin_pb2, admin_pb2_grpc, discovery_pb2, discovery_pb2_grpc, observation_pb2, observation_pb2_grpc, registry_pb2, relay_pb2
from tests.controlplane.members import Watching, join, settings
from tests.controlplane.observation.meshes import mesh
from tests.scenario.servers import response

Code = grpc.StatusCode
SERVICE = "- {kind: service, namespace: shop, name: web}\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


def operator(plane: ControlPlane):
    options = [("grpc.default_authority", "localhost"), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(f"unix:{plane.settings.admin_path}", options=options)


async def meshctl(plane: ControlPlane, *words: str, text: str = "") -> tuple[int, str]:
    """What it says, and its exit status. One at a time: standard streams are the process's."""
    said = io.StringIO()

    def run() -> int:
        before, sys.stdin = sys.stdin, io.StringIO(text)
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as ended:
                main(["--control-plane", f"unix:{plane.settings.admin_path}", *words])
        finally:
            sys.stdin = before
        return ended.value.code

    return await asyncio.to_thread(run), said.getvalue()


# -- files (C-CFG-BAD-YAML, C-CFG-TYPES) ------------------------------------------------------------------------------------


async def test_text_that_is_no_good_yaml_is_refused_at_its_place_and_quickly(tmp_path):
    cases = [
        ("- {kind: service\n  namespace: shop\n", 2), ("- kind: service\n\tname: web\n", 2), ("- kind: service\n  kind: endpoint\n", 2),
        ("- !!python/object/apply:os.system ['touch /tmp/owned']\n", 1), ("- !mine {kind: service}\n", 1), (BOMB, None),
        (SERVICE + "---\n" + SERVICE, 2), ("- &a [*a]\n", 1), ("- kind: \x00\n", None), ("{" * 5_000, 1), ("- {kind: service, name: [}\n", 1),
    ]  # fmt: skip
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        for text, line in cases:
            code, said = await meshctl(plane, "apply", "-f", "-", text=text)
            assert code == 78 and "Traceback" not in said, (text[:40], said)
            assert f"<stdin>:{line}:" in said if line else "<stdin>" in said, (text[:40], said)
        assert (await plane.catalogue.list(Service)).entries == ()


async def test_values_of_the_wrong_type_or_size_are_told_with_their_path(tmp_path):
    policy = "- {kind: traffic_policy, namespace: shop, name: p, service: web, connect_timeout_ms: 100, retry_budget: 0.1}\n"
    cases = [(policy.replace("100", value), "connect_timeout_ms") for value in ("'5'", "5s", "'5s'", "-1", "1e99", ".nan", "5.5", "~", "[5]", "true")]
    cases += [(policy.replace("0.1", value), "retry_budget") for value in (".nan", ".inf", "-0.1", "'0.1'", "1e99")]
    async with ControlPlane(settings(tmp_path / "plane")) as plane, operator(plane) as channel:
        for text, path in cases:
            code, said = await meshctl(plane, "apply", "-f", "-", text=text)
            assert code == 78 and "<stdin>:1:" in said and path in said, text
        stub = admin_pb2_grpc.AdminStub(channel)
        for value, path in (
            [(b'"5"', "connect_timeout_ms"), (b"-1", "connect_timeout_ms"), (b"1e99", "connect_timeout_ms"), (b"5.5", "connect_timeout_ms")]
            + [(b"null", "connect_timeout_ms"), (b"99999999999999999999", "connect_timeout_ms"), (b'"5s"', "connect_timeout_ms"), (b"NaN", "JSON")]
        ):
            octets = b'{"namespace":"shop","name":"p","service":"web","connect_timeout_ms":%s}' % value
            entry = admin_pb2.Entry(kind="traffic_policy", key="shop/p", json=octets)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.Apply(admin_pb2.Values(entries=[entry]), timeout=20)
            assert error.value.code() is Code.INVALID_ARGUMENT and path in error.value.details(), value
        assert (await plane.catalogue.list(TrafficPolicy)).entries == ()


# -- streams (C-CFG-PUSH-BAD, C-VERSION-SKEW) -------------------------------------------------------------------------------


async def test_what_is_pushed_and_cannot_be_is_refused_counted_and_changes_nothing(tmp_path):
    """By an operator, and by a member on its stream: both are told why, and who watches is told nothing."""
    async with ControlPlane(settings(tmp_path / "plane", metrics="127.0.0.1:0")) as plane, operator(plane) as channel:
        good = Endpoint(namespace="shop", service="web", name="a", address="192.0.2.1", port=80)
        policy = TrafficPolicy(namespace="shop", name="p", service="web", connect_timeout_ms=700)
        await plane.catalogue.put(Service(namespace="shop", name="web"), good, policy, by="test")
        member = await join(plane)
        async with member.channel() as own:
            seen = await Watching(own).hello()
            await seen.begin(1, "web")
            await seen.until(lambda s: len(s.endpoints.get(1, ())) == 1)
            messages = plane.discovery.messages
            stub = admin_pb2_grpc.AdminStub(channel)
            bad = admin_pb2.Entry(kind="traffic_policy", key="shop/p", json=b'{"namespace":"shop","name":"p","service":"web","connect_timeout_ms":-7}')
            fine = admin_pb2.Entry(kind="service", key="shop/new", json=b'{"namespace":"shop","name":"new"}')
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub.Apply(admin_pb2.Values(entries=[fine, bad]), timeout=20)
            assert error.value.code() is Code.INVALID_ARGUMENT and "connect_timeout_ms: got -7" in error.value.details()
            for address in (b"not one", b"999.1.1.1"):
                claim = registry_pb2.Claim(register=registry_pb2.Register(name="web-1", addresses=[address.decode()]))
                call = own.stream_stream("/meshcore.registry.Registry/Keep")(timeout=20)
                await call.write(claim.SerializeToString())
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await call.read()
                assert error.value.code() is Code.INVALID_ARGUMENT and error.value.details()
            assert plane.discovery.messages == messages
            assert (await plane.catalogue.list(TrafficPolicy)).entries[0].value == policy
            assert [entry.value.name for entry in (await plane.catalogue.list(Service)).entries] == ["web"]  # nothing of it counts
            async with aiohttp.ClientSession() as session, session.get(f"http://{plane.pages.address}/metrics") as page:
                assert "meshcore_control_plane_calls_refused_total 3\n" in await page.text()
            await seen.begin(2, "web")
            await seen.until(lambda s: 2 in s.exists)


def with_unknown_field(message) -> bytes:
    """As a later version would send it: a number that nobody here knows, of each wire type."""
    return message.SerializeToString() + b"\x98\x3f\x07" + b"\x9a\x3f\x03new" + b"\x9d\x3f\x00\x00\x00\x00"


async def test_newer_and_older_members_are_served_and_what_nobody_knows_is_passed_over(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        good = Endpoint(namespace="shop", service="web", name="a", address="192.0.2.1", port=80)
        await plane.catalogue.put(Service(namespace="shop", name="web"), good, by="test")
        member = await join(plane)
        async with member.channel() as own:
            # Newer: fields and whole messages that were not there when this control plane was built.
            call = own.stream_stream("/meshcore.discovery.Discovery/Watch")(timeout=20)
            await call.write(with_unknown_field(discovery_pb2.Asked(hello=discovery_pb2.Hello(version="99.0.0"))))
            await call.write(b"\x9a\x3f\x03new")  # a kind of message nobody knows
            await call.write(with_unknown_field(discovery_pb2.Asked(begin=discovery_pb2.Begin(id=1, path="web"))))
            heard = discovery_pb2.Told()
            while not heard.changes:
                heard = discovery_pb2.Told.FromString(await call.read())
            assert heard.changes[0].id == 1
            call.cancel()
            # Older: nothing but what the first version had to say.
            call = discovery_pb2_grpc.DiscoveryStub(own).Watch(timeout=20)
            await call.write(discovery_pb2.Asked(hello=discovery_pb2.Hello()))
            await call.write(discovery_pb2.Asked(begin=discovery_pb2.Begin(id=1, path="web")))
            told = await call.read()
            while not told.changes:
                told = await call.read()
            assert told.changes[0].is_whole
            call.cancel()
            # A service of a later version is refused as what it is here: not known.
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await own.unary_unary("/meshcore.later.Later/Do")(b"", timeout=20)
            assert error.value.code() is Code.UNIMPLEMENTED


async def test_an_operator_of_another_version_is_told_so(tmp_path, monkeypatch):
    from controlplane import server

    monkeypatch.setattr(server, "package_version", lambda: "99.0.0")
    async with ControlPlane(settings(tmp_path / "plane")) as plane:
        code, said = await meshctl(plane, "check")
        assert code == 2 and "the server 99.0.0" in said and "install the same version" in said


# -- browsers (C-ADMIN-CSRF) ------------------------------------------------------------------------------------------------


async def test_a_page_in_a_browser_reaches_nothing(tmp_path):
    async with ControlPlane(settings(tmp_path / "plane", metrics="127.0.0.1:0")) as plane, aiohttp.ClientSession() as session:
        base = f"http://{plane.pages.address}"
        port = plane.pages.address.rpartition(":")[2]
        foreign = [
            {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}, {"Host": f"evil.example:{port}"},
            {"Host": f"127.0.0.1.evil.example:{port}"}, {"Host": "10.0.0.1"}, {"Host": ""}, {"Origin": "http://127.0.0.1.evil.example"},
            {"Host": f"localhost:{port}", "Origin": "http://evil.example"}, {"Origin": "http://localhost@evil.example"}, {"Host": "[::2]:80"},
        ]  # fmt: skip
        for headers in foreign:
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS"):
                for path in ("/metrics", "/ready", "/quitquitquit", "/"):
                    async with session.request(method, base + path, headers=headers) as answer:
                        assert answer.status in (403, 400), (headers, method, path)
                        assert "Access-Control-Allow-Origin" not in answer.headers and "meshcore_" not in await answer.text()
        for headers in ({}, {"Host": "localhost"}, {"Host": f"[::1]:{port}"}, {"Origin": base}, {"Origin": f"http://localhost:{port}"}):
            async with session.get(f"{base}/live", headers=headers) as answer:
                assert answer.status == 200, headers
        async with session.post(f"{base}/quitquitquit") as answer:
            assert answer.status == 404
        async with session.get(f"{base}/live") as answer:
            assert answer.status == 200


# -- taps (C-TAP-UNAUTH, C-TAP-SECRETS, C-TAP-FLOOD, C-TAP-SLOW) -------------------------------------------------------------


async def test_who_may_not_tap_is_refused_and_stands_on_the_audit():
    async with mesh() as made:
        member = await join(made.plane, "shop", "web")
        async with member.channel() as own:
            resource = observation_pb2.Resource(kind="ns", name="shop")
            call = observation_pb2_grpc.ObservationStub(own).Tap(observation_pb2.TapRequest(target=resource, ask=relay_pb2.Ask(max_rps=1)))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call.read()
            assert error.value.code() is Code.PERMISSION_DENIED
        lines = [json.loads(line) for line in Path(made.plane.settings.data, "audit.log").read_text().splitlines()]
        (denied,) = [line for line in lines if line["outcome"] == "denied"]
        assert denied["fields"]["word"] == "tap" and denied["actor"].endswith("/ns/shop/sa/web")
        assert not [line for line in lines if line["event"] == "tap_begin"]


async def test_secrets_are_hidden_from_whoever_taps(raw_server, proxy, raw_client):
    secrets = {
        "Authorization": "Bearer s3cret", "Cookie": "session=s3cret", "Proxy-Authorization": "Basic s3cret", "X-Api-Key": "s3cret",
        "COOKIE": "b=s3cret",
    }  # fmt: skip
    running = proxy(to=raw_server(response(200, b'{"password": "s3cret"}', headers={"Set-Cookie": "s=s3cret", "Content-Type": "application/json"})))
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        async with made.tapping("deploy", "web", "shop", headers=True) as watched:
            await asyncio.to_thread(raw_client(running).get, "/x", headers={**secrets, "X-Plain": "seen"})
            events = await watched.first(3)
    fields = [field for event in events for field in event.fields]
    assert ("x-plain", "seen") in [(name.lower(), value) for name, value in fields]
    assert "s3cret" not in repr(events)


async def test_a_tap_of_everything_shows_what_was_asked_for_counts_the_rest_and_fails_no_request(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        async with made.tapping("ns", "shop", max_rps=5) as watched:

            def flood() -> list[int]:
                client = raw_client(running)
                return [client.get("/x").status for _ in range(400)]

            done = [status for statuses in await asyncio.gather(*(asyncio.to_thread(flood) for _ in range(3))) for status in statuses]
            assert done == [200] * 1_200
            await watched.until(lambda: watched.progress.hidden + watched.progress.dropped + len(watched.paths()) >= 1_200)
            seconds = {event.time_unix_ns // 1_000_000_000 for event in watched.events}
            assert len(watched.paths()) <= 5 * (len(seconds) + 1)


async def test_an_operator_who_does_not_read_holds_up_neither_traffic_nor_others(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        resource = observation_pb2.Resource(kind="ns", name="shop")
        deaf = [made.operator.Tap(observation_pb2.TapRequest(target=resource, ask=relay_pb2.Ask(max_rps=100_000, headers=True))) for _ in range(3)]
        for call in deaf:
            await call.read()  # it has begun; and now it is left alone
        async with made.tapping("ns", "shop", path="/last") as watched:

            def flood() -> list[int]:
                client = raw_client(running)
                return [client.get("/x", headers={"X-Long": "y" * 2_000}).status for _ in range(500)]

            done = [status for statuses in await asyncio.gather(*(asyncio.to_thread(flood) for _ in range(3))) for status in statuses]
            assert done == [200] * 1_500
            await asyncio.to_thread(raw_client(running).get, "/last")
            assert (await watched.first(1))[0].path == "/last"
        for call in deaf:
            call.cancel()
