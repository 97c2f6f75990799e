"""`meshctl tap`, `stat`, `top`, `edges` and `routes` as processes, against a running mesh."""

import asyncio
import json
import re
import sys
import time

import pytest

from tests.controlplane.observation.meshes import mesh
from tests.proxy.test_tcp import connect, echo, server, tcp_proxy  # noqa: F401 (fixtures)
from tests.scenario.servers import response


async def meshctl(made, *words, **options):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from controlplane.cli import main; main()", "--control-plane", f"unix:{made.plane.settings.admin_path}", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, **options,
    )  # fmt: skip


async def said(made, *words):
    process = await meshctl(made, *words)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def tapping(made, *words):
    """A running `meshctl tap` whose session has begun."""
    process = await meshctl(made, "tap", *words)
    async with asyncio.timeout(30):
        while not any(member.relay.sessions for member in made.members.values()):
            await asyncio.sleep(0.05)
    return process


async def test_lines_are_those_of_the_talk_byte_for_byte_and_come_at_once(raw_server, proxy, raw_client):
    running = proxy(to=raw_server(response(200, b"x" * 560)))
    async with mesh() as made:
        await made.register("shop", "web-1", "web", {"deployment": "web"})
        await made.attach(running, "shop", "web-1", "web")
        process = await tapping(made, "deploy/web", "-n", "shop", "--max-rps", "100", "--path", "/users", "--method", "GET", "--scheme", "http",
                                "--authority", "web.shop")  # fmt: skip
        client, delays_s, lines = raw_client(running), [], []
        for number in range(20):
            began_s = time.monotonic()
            await asyncio.to_thread(client.get, f"/users/{number}", host="web.shop")
            async with asyncio.timeout(20):
                lines += [(await process.stdout.readline()).decode() for _ in range(3)]
            delays_s.append(time.monotonic() - began_s)
        process.terminate()
        await process.communicate()
    flow = r"id=0:\d+ src=127\.0\.0\.1:\d+ dst=web-1"
    assert re.fullmatch(rf"req {flow} :method=GET :authority=web\.shop :path=/users/0\n", lines[0])
    assert re.fullmatch(rf"rsp {flow} :status=200 latency=\d+µs\n", lines[1])
    assert re.fullmatch(rf"end {flow} duration=\d+µs response-length=560B\n", lines[2])
    print(f"the three lines of a request were there after {sorted(delays_s)[10] * 1000:.1f} ms (median of 20)")


async def test_json_has_one_object_a_line(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.attach(running, "shop", "web")
        process = await tapping(made, "deploy/web", "-n", "shop", "-o", "json", "--headers")
        await asyncio.to_thread(raw_client(running).get, "/x")
        async with asyncio.timeout(20):
            objects = [json.loads(await process.stdout.readline()) for _ in range(3)]
        process.terminate()
        await process.communicate()
    assert [(one["kind"], one["workload"]) for one in objects] == [("req", "shop/web"), ("rsp", "shop/web"), ("end", "shop/web")]
    assert objects[0]["dst_labels"]["deployment"] == "web" and objects[0]["fields"]


async def test_tables_have_the_columns_and_cells_of_conduit(raw_server, proxy, raw_client):
    running = proxy(to=raw_server())
    async with mesh() as made:
        await made.register("shop", "idle", labels={"deployment": "idle"})
        await made.attach(running, "shop", "web")
        client = raw_client(running)
        for _ in range(20):
            await asyncio.to_thread(client.get, "/")
        row = {"requests": 0}
        async with asyncio.timeout(30):
            while row["requests"] < 20:
                await asyncio.sleep(0.1)  # one frame may hold the first of them only
                (row,) = [row for row in json.loads((await said(made, "stat", "deploy", "-n", "shop", "--json"))[1]) if row["name"] == "web"]
        code, out, _ = await said(made, "stat", "deploy", "-n", "shop")
        header, idle, web = out.splitlines()
        assert (code, header.split()) == (0, "NAME MESHED SUCCESS RPS LATENCY_P50 LATENCY_P95 LATENCY_P99 SECURED".split())
        assert idle.split() == ["idle", "0/1", "-", "-", "-", "-", "-", "-"]
        assert re.fullmatch(r"web +1/1 +100\.00% +\d+\.\drps +\d+ms +\d+ms +\d+ms +0%", web)
        assert len({len(line) for line in out.splitlines()}) == 1, "figures end in one column"
        assert (row["requests"], row["success_percent"]) == (20, 100.0)
        assert (await said(made, "stat", "all", "-n", "shop"))[1].splitlines()[2].startswith("deploy/web ")
        assert (await said(made, "stat", "deploy", "-n", "nobody"))[::2] == (0, "No traffic found.\n")
        assert (await said(made, "routes", "deploy/web", "-n", "shop"))[1].splitlines()[1].split()[:2] == ["all", "-"]
        assert (await said(made, "edges", "deploy", "-n", "shop"))[2] == "No traffic found.\n"
        assert (await said(made, "top", "-n", "shop", "--once"))[1].splitlines()[1].startswith("web ")


async def test_a_wide_table_has_the_connections_and_octets_of_tcp(server, tcp_proxy, connect):  # noqa: F811
    running = tcp_proxy(server(echo))
    async with mesh() as made:
        await made.attach(running, "shop", "db")
        client = connect(running)
        await asyncio.to_thread(client.sendall, b"x" * 6_000)
        row = {"tcp_read_bytes_per_s": 0}
        async with asyncio.timeout(30):
            while not row["tcp_read_bytes_per_s"] or not row["tcp_written_bytes_per_s"]:
                await asyncio.sleep(0.1)
                (row,) = json.loads((await said(made, "stat", "deploy", "-n", "shop", "--json"))[1]) or [row]
        assert (row["tcp_open"], row["tcp_opened"], row["requests"]) == (1, 1, 0)
        _, out, _ = await said(made, "stat", "deploy", "-n", "shop", "-o", "wide")
        header, db = out.splitlines()
        assert header.split()[-4:] == ["SECURED", "TCP_CONN", "READ_BYTES/SEC", "WRITE_BYTES/SEC"]
        assert re.fullmatch(r"db +1/1 +- +- +- +- +- +- +1 +\d+\.\dB/s +\d+\.\dB/s", db)
        await made.members["db"].leave()  # its connections may be open, and nobody will tell of their end
        async with asyncio.timeout(30):
            while row["tcp_open"]:
                await asyncio.sleep(0.1)
                (row,) = json.loads((await said(made, "stat", "deploy", "-n", "shop", "--json"))[1])


@pytest.mark.parametrize(("words", "why"), [
    (("stat", "planet"), "unsupported resource type [planet]"), (("tap", "svc/web"), "runs no proxy"),
    (("tap", "deploy/web", "--status", "9xx"), "--status"), (("tap", "deploy/web", "--path", "users"), "--path"),
    (("stat", "deploy", "--to", "svc/a", "--from", "svc/b"), "exclude each other"), (("stat", "deploy", "-t", "9d"), "1s to 24h"),
])  # fmt: skip
async def test_a_question_that_cannot_be_meant_is_refused_in_words(words, why):
    async with mesh() as made:
        code, out, err = await said(made, *words)
    assert code != 0 and not out and why in err, err
