"""Tables over HTTP exactly as namerd speaks it: statuses, kinds of content, versions, streams. Rows of its own test, and more."""

import asyncio
import contextlib
import json

import pytest

from meshcore.namers import Live

from .served import DTAB, LONG_S, line, memory, served, version

HELLO = '[{"prefix":"/hello","dst":"/world"}]'


async def test_tables_are_listed_sorted_and_with_a_newline():
    async with served(memory(yeezy="", blah="/foo=>/bar", default="/foo=>/bar")) as one:
        for path in ("/dtabs", "/dtabs/"):
            answer = await one.ask("GET", path)
            assert (answer.status, answer.text) == (200, '["blah","default","yeezy"]\n')
            assert answer.headers["Content-Type"] == "application/json"
        assert (await one.ask("GET", "/dtabsfoo")).status == 404


@pytest.mark.parametrize(
    ("accept", "kind", "body"),
    [
        ("", "application/json", '[{"prefix":"/foo","dst":"/bar"}]\n'),
        ("*/*", "application/json", '[{"prefix":"/foo","dst":"/bar"}]\n'),
        ("application/dtab", "application/dtab", "/foo=>/bar\n"),
        ("text/plain; q=0.9", "text/plain", "/foo=>/bar\n"),
        ("text/html, application/dtab;charset=UTF-8, application/json", "application/dtab", "/foo=>/bar\n"),
        ("application/json;charset=UTF-8;q=0.1", "application/json", '[{"prefix":"/foo","dst":"/bar"}]\n'),
    ],
)
async def test_a_table_comes_in_the_first_kind_that_is_acceptable(accept, kind, body):
    async with served(memory(default="/foo => /bar")) as one:
        answer = await one.ask("GET", "/dtabs/default", **({"accept": accept} if accept else {}))
        assert (answer.status, answer.text, answer.headers["Content-Type"].split(";")[0]) == (200, body, kind)
        assert answer.etag == version(1)


async def test_head_tells_the_version_alone():
    async with served(memory(default="/foo => /bar")) as one:
        answer = await one.ask("HEAD", "/dtabs/default")
        assert (answer.status, answer.body, answer.etag) == (200, b"", version(1))
        assert (await one.ask("HEAD", "/dtabs/other")).status == 404
        assert (await one.ask("GET", "/dtabs/other")).status == 404


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (HELLO, "application/json"),
        (HELLO, "application/json;charset=UTF-8"),
        ("/hello=>/world", "application/dtab"),
        ("/hello => /world ;", "text/plain"),
        ("# a comment\n/hello => /world ;\n", DTAB),
    ],
)
async def test_a_table_is_created_once_in_any_kind(body, kind):
    async with served(memory()) as one:
        answer = await one.ask("POST", "/dtabs/new", body, kind=kind)
        assert (answer.status, answer.body) == (204, b"")
        got = await one.ask("GET", "/dtabs/new", accept=DTAB)
        assert (got.text, got.etag) == ("/hello=>/world\n", answer.etag)
        assert (await one.ask("POST", "/dtabs/new", body, kind=kind)).status == 409


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_what_is_no_table_is_refused(method):
    async with served(memory()) as one:
        assert (await one.ask(method, "/dtabs/new", HELLO)).status == 400
        assert (await one.ask(method, "/dtabs/new", HELLO, kind="application/xml")).status == 400
        answer = await one.ask(method, "/dtabs/new", "/hello => invalid", kind=DTAB)
        assert answer.status == 400 and "line 1, column 11" in answer.text and "simple expected but 'i' found" in answer.text
        assert (await one.ask(method, "/dtabs/new", '[{"prefix":"/hello"}]', kind="application/json")).status == 400
        assert (await one.ask(method, "/dtabs/new", b"/\xff=>/a", kind=DTAB)).status == 400
        assert (await one.ask(method, "/dtabs/-new", HELLO, kind="application/json")).status == 400
        assert (await one.ask(method, "/dtabs/new", "(" * 10_000, kind=DTAB)).status == 400
        assert (await one.ask("GET", "/dtabs/new")).status == 404


@pytest.mark.parametrize(
    ("text", "place"),
    [("/svc => ;;", "line 1, column 9"), ("/svc => /a | & /b", "line 1"), ("/a => /b;\n/c => 0.5 *", "line 2"), ("/svc => (/a | /b", "line 1"),
     ("/a=>/b;\n/c=>/d;\n/e => -1 * /f & 2 * /g", "line 3"), ("/svc", "line 1"), ("=> /a", "line 1"), ("/a => 1e999 * /b & 1 * /c", "line 1"),
     ("/a => /b /c", "line 1")],
)  # fmt: skip
async def test_a_table_that_cannot_be_read_is_refused_at_its_place_and_the_old_one_stays(text, place):
    async with served(memory(default="/foo=>/bar")) as one:
        before = await one.ask("GET", "/dtabs/default", accept=DTAB)
        answer = await one.ask("PUT", "/dtabs/default", text, kind=DTAB)
        assert answer.status == 400 and place in answer.text and "column" in answer.text, answer.text
        after = await one.ask("GET", "/dtabs/default", accept=DTAB)
        assert (after.text, after.etag) == (before.text, before.etag)


async def test_a_put_without_a_version_writes_in_any_case():
    async with served(memory(default="/foo=>/bar")) as one:
        for name in ("default", "fresh"):
            assert (await one.ask("PUT", f"/dtabs/{name}", HELLO, kind="application/json")).status == 204
            assert (await one.ask("GET", f"/dtabs/{name}", accept=DTAB)).text == "/hello=>/world\n"


async def test_a_put_with_a_version_writes_over_that_one_only():
    async with served(memory(default="/foo=>/bar")) as one:
        etag = (await one.ask("GET", "/dtabs/default")).etag
        first = await one.ask("PUT", "/dtabs/default", "/a=>/b", kind=DTAB, match=etag)
        assert first.status == 204
        assert (await one.ask("PUT", "/dtabs/default", "/c=>/d", kind=DTAB, match=etag)).status == 412
        assert (await one.ask("PUT", "/dtabs/default", "/c=>/d", kind=DTAB, match="yolo")).status == 412
        assert (await one.ask("PUT", "/dtabs/default", "/c=>/d", kind=DTAB, match="garbage!")).status == 412
        assert (await one.ask("PUT", "/dtabs/other", "/c=>/d", kind=DTAB, match=etag)).status == 404
        assert (await one.ask("PUT", "/dtabs/default", "/c=>", kind=DTAB, match=first.etag)).status == 400
        assert (await one.ask("PUT", "/dtabs/default", "/e=>/f", kind=DTAB, match=f'"{first.etag}"')).status == 204


async def test_a_table_is_removed_once():
    async with served(memory(default="/foo=>/bar")) as one:
        assert (await one.ask("DELETE", "/dtabs/default", match=version(99))).status == 412
        assert (await one.ask("DELETE", "/dtabs/default")).status == 204
        assert (await one.ask("DELETE", "/dtabs/default")).status == 404
        assert (await one.ask("GET", "/dtabs/default")).status == 404
        assert await one.json("/dtabs") == []


async def test_weights_come_back_exactly():
    """namerd prints two decimals: a canary of 0.001 becomes nothing, and its neighbour everything."""
    async with served(memory()) as one:
        table = "/svc=>0.001*/a & 0.999*/b"
        assert (await one.ask("POST", "/dtabs/canary", table, kind=DTAB)).status == 204
        assert (await one.ask("GET", "/dtabs/canary", accept=DTAB)).text == f"{table}\n"


async def test_a_table_that_can_never_work_is_refused_with_its_cycle_unless_that_is_wanted():
    async with served(memory()) as one:
        answer = await one.ask("POST", "/dtabs/loop", "/svc=>/host ; /host=>/svc", kind=DTAB)
        assert answer.status == 400 and "/svc/… -> /host/… -> /svc/…" in answer.text
        assert (await one.ask("POST", "/dtabs/loop?faults=allowed", "/svc=>/host ; /host=>/svc", kind=DTAB)).status == 204


async def test_a_watch_tells_each_table_that_is_another_one():
    async with served(memory(default="/foo=>/bar")) as one, one.watch("/dtabs/default?watch=true") as lines:
        assert json.loads(await line(lines)) == [{"prefix": "/foo", "dst": "/bar"}]
        for number in (1, 1, 1, 2):
            await one.ask("PUT", "/dtabs/default", f"/foo=>/{number}", kind=DTAB)
        assert [json.loads(await line(lines))[0]["dst"] for _ in range(2)] == ["/1", "/2"]


async def test_a_watch_of_a_table_that_is_not_there_waits_for_it():
    async with served(memory()) as one, one.watch("/dtabs/later?watch=true") as lines:
        await one.ask("PUT", "/dtabs/later", "/foo=>/bar", kind=DTAB)
        assert json.loads(await line(lines)) == [{"prefix": "/foo", "dst": "/bar"}]
        await one.ask("DELETE", "/dtabs/later")
        await one.ask("PUT", "/dtabs/later", "/foo=>/baz", kind=DTAB)
        assert json.loads(await line(lines)) == [{"prefix": "/foo", "dst": "/baz"}]


async def test_a_watch_of_the_list_tells_each_list():
    async with served(memory(a="")) as one, one.watch("/dtabs?watch=true") as lines:
        assert json.loads(await line(lines)) == ["a"]
        await one.ask("PUT", "/dtabs/b", "", kind=DTAB)
        assert json.loads(await line(lines)) == ["a", "b"]
        await one.ask("DELETE", "/dtabs/a")
        assert json.loads(await line(lines)) == ["b"]


async def test_a_watch_with_heartbeats_is_never_silent_for_long():
    async with served(memory(default="")) as one, one.watch("/dtabs/default?watch=true&heartbeat=1") as lines:
        assert await line(lines) == "[]\n"
        assert await line(lines) == "\n"
        assert (await one.ask("GET", "/dtabs/default?watch=true&heartbeat=0")).status == 400


@pytest.mark.parametrize("query", ["", "&heartbeat=300", "&resume="])
async def test_a_watch_whose_reader_is_gone_is_gone_though_nothing_happens(query):
    async with served(memory(default="")) as one:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                lines = await stack.enter_async_context(one.watch(f"/dtabs/default?watch=true{query}"))
                await line(lines)
            assert one.namerd.http[0].watches.open == 20
        async with asyncio.timeout(LONG_S):
            while one.namerd.http[0].watches.open:
                await asyncio.sleep(0.01)


async def test_a_watch_goes_on_from_where_its_reader_was_and_misses_no_revision():
    async with served(memory(default="/a=>/0")) as one:
        async with one.watch("/dtabs/default?watch=true&resume=") as lines:
            first = json.loads(await line(lines))
            assert (first["dtab"], first["version"]) == ([{"prefix": "/a", "dst": "/0"}], version(1))
        for number in range(1, 6):
            await one.ask("PUT", "/dtabs/default", f"/a=>/{number}", kind=DTAB)
        await one.ask("DELETE", "/dtabs/default")
        async with one.watch(f"/dtabs/default?watch=true&resume={first['token']}") as lines:
            told = [json.loads(await line(lines)) for _ in range(6)]
            assert [one["dtab"] and one["dtab"][0]["dst"] for one in told] == ["/1", "/2", "/3", "/4", "/5", None]
            await one.ask("PUT", "/dtabs/default", "/a=>/6", kind=DTAB)
            assert json.loads(await line(lines))["dtab"][0]["dst"] == "/6"
        async with one.watch("/dtabs/default?watch=true&resume=17.nonsense") as lines:
            assert json.loads(await line(lines))["dtab"][0]["dst"] == "/6"


async def test_who_has_written_a_new_table_is_answered_as_soon_as_it_is_known_here(monkeypatch):
    """The wait for the write to come back held the namespace by nothing: it ended by its timeout."""
    waits = []
    settled_when = Live.settled_when

    async def noted(live, is_good, timeout_s):
        value = await settled_when(live, is_good, timeout_s)
        waits.append(is_good(value))
        return value

    monkeypatch.setattr(Live, "settled_when", noted)
    async with served(memory()) as one:
        for number in range(20):
            assert (await one.ask("PUT", f"/dtabs/new-{number}", "/a=>/b", kind=DTAB)).status == 204
    assert len(waits) == 20 and all(waits)


async def test_history_tells_who_wrote_what_and_when():
    async with served(memory(default="/a=>/0")) as one:
        await one.ask("PUT", "/dtabs/default", "/a=>/1", kind=DTAB)
        await one.ask("DELETE", "/dtabs/default")
        records = await one.json("/dtabs/default/history")
        assert [record["dtab"] for record in records] == ["/a=>/0", "/a=>/1", None]
        assert [record["by"] for record in records] == ["configuration", "local:127.0.0.1", "local:127.0.0.1"]
        assert records[1]["version"] == version(2) and records[2]["time"] > 1e9
        assert (await one.ask("GET", "/dtabs/nothing/history")).status == 404


async def test_many_writers_under_versions_lose_no_write():
    async with served(memory(counter="/n=>/0")) as one:

        async def increment() -> None:
            while True:
                answer = await one.ask("GET", "/dtabs/counter", accept=DTAB)
                number = int(answer.text.rpartition("/")[2])
                put = await one.ask("PUT", "/dtabs/counter", f"/n=>/{number + 1}", kind=DTAB, match=answer.etag)
                if put.status == 204:
                    return
                assert put.status == 412

        await asyncio.gather(*(increment() for _ in range(30)))
        assert (await one.ask("GET", "/dtabs/counter", accept=DTAB)).text == "/n=>/30\n"
