"""Names over HTTP: bind, addr, resolve and delegate as namerd answers them, once and as streams."""

import gc
import json

import pytest

from .served import DTAB, line, memory, served

NAMERS = [{"kind": "io.l5d.static", "names": {"/web": ["127.0.0.1 1"], "/web2": ["127.0.0.1 2 * 0.5"]}}]
TABLE = "/svc/web=>/#/io.l5d.static/web ; /svc/both=>9*/#/io.l5d.static/web & 1*/#/io.l5d.static/web2 ; /svc/no=>~ | /nothing"
WEB = {
    "type": "leaf",
    "bound": {
        "addr": {"type": "bound", "addrs": [{"ip": "127.0.0.1", "port": 1, "meta": {}}], "meta": {}},
        "id": "/#/io.l5d.static/web",
        "path": "/",
    },
}


def settings(**more):
    return memory(namers=NAMERS, default=TABLE, **more)


async def test_a_name_is_bound_with_its_addresses():
    async with served(settings()) as one:
        assert await one.json("/bind/default?path=/svc/web") == WEB
        answer = await one.ask("GET", "/bind/default?path=/svc/web/users/7")
        assert json.loads(answer.body)["bound"]["path"] == "/users/7" and answer.text.endswith("\n")
        both = await one.json("/bind/default?path=/svc/both")
        assert [branch["weight"] for branch in both["union"]] == [9.0, 1.0] and both["type"] == "union"
        second = both["union"][1]["tree"]["bound"]["addr"]
        assert second["addrs"] == [{"ip": "127.0.0.1", "port": 2, "meta": {"endpoint_addr_weight": 0.5}}]
        assert second["meta"] == {"namer_nametree_weight": 1.0}
        assert await one.json("/bind/default?path=/svc/no") == {"type": "neg"}


async def test_a_table_in_the_question_goes_over_that_of_the_namespace():
    async with served(settings()) as one:
        found = await one.json("/bind/default?path=/svc/web&dtab=/svc/web=>/%23/io.l5d.static/web2")
        assert found["bound"]["id"] == "/#/io.l5d.static/web2"


async def test_a_namespace_that_is_not_there_is_an_empty_table():
    async with served(settings()) as one:
        assert await one.json("/bind/other?path=/svc/web") == {"type": "neg"}
        assert (await one.json("/bind/other?path=/$/inet/127.0.0.1/80"))["bound"]["id"] == "/$/inet/127.0.0.1/80"


async def test_the_addresses_of_an_id_and_of_a_name():
    async with served(settings()) as one:
        assert await one.json("/addr/default?path=/%23/io.l5d.static/web") == WEB["bound"]["addr"]
        assert await one.json("/addr/default?path=/%25/io.l5d.port/4141/%23/io.l5d.static/web") == WEB["bound"]["addr"]
        assert await one.json("/addr/default?path=/%23/io.l5d.static/none") == {"type": "neg"}
        assert await one.json("/resolve/default?path=/svc/web") == WEB["bound"]["addr"]
        ports = {(await one.json("/resolve/default?path=/svc/both"))["addrs"][0]["port"] for _ in range(100)}
        assert ports == {1, 2}
        assert await one.json("/resolve/default?path=/svc/no") == {"type": "neg"}


@pytest.mark.parametrize("verb", ["bind", "resolve", "delegate", "addr"])
async def test_bad_input_is_the_callers_fault(verb):
    """namerd answers 500 to bind and resolve with a dtab that is none."""
    async with served(settings()) as one:
        answer = await one.ask("GET", f"/{verb}/default?path=invalid-param")
        assert answer.status == 400 and answer.text == "Invalid path: '/' expected but 'i' found at '[i]nvalid-param'\n"
        if verb != "addr":
            answer = await one.ask("GET", f"/{verb}/default?path=/svc&dtab=invalid-param")
            assert answer.status == 400 and answer.text.startswith("Invalid dtab: '/' expected but 'i' found")


async def test_a_watch_of_a_name_follows_its_table():
    async with served(settings()) as one, one.watch("/bind/default?path=/svc/web&watch=true") as lines:
        assert json.loads(await line(lines)) == WEB
        await one.ask("PUT", "/dtabs/default", "/svc/web=>/#/io.l5d.static/web2", kind=DTAB)
        assert json.loads(await line(lines))["bound"]["id"] == "/#/io.l5d.static/web2"
        await one.ask("PUT", "/dtabs/default", "/svc/web=>!", kind=DTAB)
        assert json.loads(await line(lines)) == {"type": "fail"}
        await one.ask("DELETE", "/dtabs/default")
        assert json.loads(await line(lines)) == {"type": "neg"}


async def test_a_watch_of_a_name_in_a_namespace_that_comes_later_follows_it():
    async with served(settings()) as one, one.watch("/bind/later?path=/svc&watch=true") as lines:
        assert json.loads(await line(lines)) == {"type": "neg"}
        gc.collect()
        await one.ask("PUT", "/dtabs/later", "/svc=>/#/io.l5d.static/web", kind=DTAB)
        assert json.loads(await line(lines)) == WEB


async def test_a_watch_of_an_id_follows_its_addresses(tmp_path):
    (tmp_path / "web").write_text("127.0.0.1 1\n")
    namers = [{"kind": "io.l5d.fs", "rootDir": str(tmp_path)}]
    async with served(memory(namers=namers, default="/svc=>/#/io.l5d.fs")) as one:
        async with one.watch("/bind/default?path=/svc/web&watch=true") as lines:
            assert json.loads(await line(lines))["bound"]["addr"]["addrs"][0]["port"] == 1
            (tmp_path / "web.new").write_text("127.0.0.1 2\n")
            (tmp_path / "web.new").rename(tmp_path / "web")
            assert json.loads(await line(lines))["bound"]["addr"]["addrs"][0]["port"] == 2


async def test_a_name_that_fails_says_why():
    async with served(memory(default="/svc=>/$/io.buoyant.nonsense/x")) as one:
        answer = await one.ask("GET", "/bind/default?path=/svc")
        assert answer.status == 500 and "no namer of that kind" in answer.text
        async with one.watch("/bind/default?path=/svc&watch=true") as lines:
            assert "no namer of that kind" in await line(lines)
            assert await line(lines) == ""  # and the stream ends


async def test_a_delegation_shows_every_alternative():
    table = "/svc=>/#/io.l5d.static/web2 | /#/io.l5d.static/web"
    async with served(memory(namers=NAMERS, default=table)) as one:
        shown = await one.json("/delegate/default?path=/svc/x")
        assert shown["type"] == "alt" and shown["path"] == "/svc/x"
        assert [branch["bound"]["addr"]["addrs"][0]["port"] for branch in shown["alt"]] == [2, 1]
        assert shown["alt"][0]["dentry"] == {"prefix": "/svc", "dst": "/#/io.l5d.static/web2 | /#/io.l5d.static/web"}
        body = json.dumps({"namespace": "default", "dtab": "/svc=>/#/io.l5d.static/web", "path": "/svc/x"})
        posted = await one.ask("POST", "/delegate", body, kind="application/json")
        assert posted.status == 200 and not posted.text.endswith("\n")
        assert (await one.ask("POST", "/delegate", "{", kind="application/json")).status == 400
        assert (await one.ask("POST", "/delegate", body, kind="text/plain")).status == 415
        assert (await one.ask("PUT", "/delegate", body, kind="application/json")).status == 405
        free = await one.json("/delegate?dtab=/a=>/b&path=/a/x")
        assert free["type"] == "delegate" and free["delegate"]["type"] == "neg"


async def test_alternatives_are_kept_for_who_asks():
    table = "/svc=>/#/io.l5d.static/web2 | /#/io.l5d.static/web"
    async with served(memory(namers=NAMERS, default=table)) as one:
        found = await one.json("/bind/default?path=/svc&alternatives=true")
        assert [branch["bound"]["id"][-4:] for branch in found["alt"]] == ["web2", "/web"]
        assert (await one.json("/bind/default?path=/svc"))["type"] == "leaf"


async def test_ids_in_use_are_told():
    async with served(settings()) as one:
        assert await one.json("/bound-names") == []


async def test_a_namer_that_never_answers_is_a_timeout_and_not_a_wait_for_ever(monkeypatch, tmp_path):
    monkeypatch.setattr("controlplane.namerd.http_names.BINDING_S", 0.05)
    namers = [{"kind": "io.l5d.serversets", "zkAddrs": [{"host": "127.0.0.1", "port": 1}]}]
    async with served(memory(namers=namers, default="/svc=>/#/io.l5d.serversets")) as one:
        assert (await one.ask("GET", "/bind/default?path=/svc/web")).status == 504
