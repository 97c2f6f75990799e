"""`meshctl dtab` against a served namerd: what it prints, what it refuses, what it exits with."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from controlplane.cli import meshctl
from controlplane.namerd.settings import HttpController

from .served import DTAB, memory, served, version

NAMERS = [{"kind": "io.l5d.static", "names": {"/web": ["127.0.0.1 1"]}}]


async def run(one, *words: str, text: str | None = None, code: int = 0, **environ: str) -> str:
    """What it says on stdout and stderr."""
    address = f"{one.scheme}://{one.namerd.addresses['http']}" if one is not None else "http://127.0.0.1:1"
    done = await asyncio.to_thread(
        CliRunner().invoke, meshctl, ["dtab", *words], text, env={"MESHCTL_NAMERD": address, **environ}
    )
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def write(tmp_path, text: str) -> str:
    file = tmp_path / "table.dtab"
    file.write_text(text)
    return str(file)


async def test_a_table_is_made_read_edited_and_removed(tmp_path):
    async with served(memory()) as one:
        assert await run(one, "create", "default", write(tmp_path, "/svc => /a ; # first\n/srv/long => /b")) == "created default\n"
        got = await run(one, "get", "default")
        assert got == f"# version {version(1)}\n/svc       => /a ;\n/srv/long  => /b ;\n"
        assert await run(one, "list") == "NAMESPACE   FAULT\ndefault     -\n"
        # What `get` wrote can be edited and handed back: its first line is the version it is over.
        assert await run(one, "update", "default", write(tmp_path, got + "/x => /y ;\n")) == f"updated default, version {version(2)}\n"
        refused = await run(one, "update", "default", write(tmp_path, got), code=1)
        assert "Somebody was faster" in refused
        assert await run(one, "update", "default", "-", text='[{"prefix":"/only","dst":"/this"}]') == (
            f"updated default, version {version(3)}\n"
        )
        assert json.loads(await run(one, "get", "default", "-o", "json")) == {
            "version": version(3),
            "dtab": [{"prefix": "/only", "dst": "/this"}],
        }
        assert "/srv/long" in await run(one, "get", "default", "--revision", "2")
        assert await run(one, "delete", "default") == "deleted default\n"
        assert "no such namespace" in await run(one, "get", "default", code=1)


async def test_history_diff_and_rollback(tmp_path):
    async with served(memory(default="/svc=>/a")) as one:
        await run(one, "update", "default", write(tmp_path, "/svc => 9*/a & 1*/b ; /x => /y"))
        rows = (await run(one, "history", "default")).splitlines()
        assert [row.split()[0] for row in rows] == ["REVISION", "1", "2"]
        assert "+2 -1" in rows[2] and "local:127.0.0.1" in rows[2] and version(2) in rows[2]
        told = await run(one, "diff", "default", code=1)
        assert "-/svc => /a ;" in told and "+/svc => 9.00*/a & /b ;" in told and "+/x => /y ;" in told
        assert await run(one, "diff", "default", "2", "2") == ""
        assert await run(one, "diff", "default", "1", "--file", write(tmp_path, "/svc => /a")) == ""
        assert await run(one, "rollback", "default", "1") == "default is as it was at revision 1\n"
        assert (await one.ask("GET", "/dtabs/default", accept=DTAB)).text == "/svc=>/a\n"
        assert "no revision 99" in await run(one, "rollback", "default", "99", code=1)
        await run(one, "delete", "default")
        await run(one, "rollback", "default", "2")
        assert "/x=>/y" in (await one.ask("GET", "/dtabs/default", accept=DTAB)).text


async def test_an_explanation_has_addresses_and_what_was_not_tried():
    table = "/svc=>/#/io.l5d.static/none | /#/io.l5d.static/web | /other"
    async with served(memory(namers=NAMERS, default=table)) as one:
        told = await run(one, "explain", "/svc/users")
        assert "bound to /#/io.l5d.static/web, rest /users: 127.0.0.1:1" in told
        assert "~ no such name" in told and "not tried" in told
        await run(one, "explain", "/nothing", code=1)
        assert "127.0.0.1:80" in await run(one, "explain", "/x", "--dtab", "/x=>/$/inet/127.0.0.1/80")
        assert "Invalid path" in await run(one, "explain", "nonsense", code=1)


async def test_a_watch_prints_each_revision_and_a_bad_one_is_told():
    async with served(memory(default="/svc=>/0")) as one:
        watching = asyncio.create_task(run(one, "watch", "default", "--count", "4"))
        while not one.namerd.http[0].watches.open:
            await asyncio.sleep(0.01)
        for number in (1, 2):
            await one.ask("PUT", "/dtabs/default", f"/svc=>/{number}", kind=DTAB)
        await one.ask("DELETE", "/dtabs/default")
        told = await watching
        assert [part for part in ("/svc  => /0 ;", "/svc  => /1 ;", "/svc  => /2 ;", "deleted") if part not in told] == []


async def test_a_check_tells_what_is_bad_and_how_to_go_on():
    async with served(memory(default="/svc=>/a", other="/x=>/y")) as one:
        assert await run(one, "check") == "good   2 tables, all in use\n"
        await one.namerd.book.tables.put("default", "/svc=>\x00???", "a script")
        while not one.namerd.book.bad():
            await asyncio.sleep(0.01)
        told = await run(one, "check", code=1)
        assert told.startswith("bad    default: ") and "meshctl dtab history default" in told
        assert "simple expected" in await run(one, "list")
        got = await one.ask("GET", "/dtabs/default")
        assert got.status == 200 and "\x00" not in got.headers["Warning"] and "simple expected" in got.headers["Warning"]


async def test_what_cannot_work_is_refused_with_its_place(tmp_path):
    async with served(memory()) as one:
        told = await run(one, "create", "a", write(tmp_path, "/svc => /a ;\n/srv => ??? ;"), code=1)
        assert "table.dtab:2:9:" in told
        told = await run(one, "create", "a", write(tmp_path, "/svc => /host ; /host => /svc"), code=1)
        assert "loop" in told and "/svc/…" in told
        await run(one, "create", "a", write(tmp_path, "/svc => /host ; /host => /svc"), "--allow-faults")


async def test_a_token_gives_the_right_to_write(tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("ci 0123456789abcdef\n")
    tokens.chmod(0o600)
    mine = tmp_path / "mine"
    mine.write_text("0123456789abcdef\n")
    async with served(memory(HttpController(port=0, writeTokens=str(tokens)))) as one:
        told = await run(one, "create", "a", write(tmp_path, ""), code=1)
        assert "--token-file" in told
        await run(one, "create", "a", write(tmp_path, ""), MESHCTL_NAMERD_TOKEN_FILE=str(mine))


async def test_a_namerd_that_is_not_there_is_told_with_the_way_out():
    told = await run(None, "list", code=1)
    assert "no namerd answers at http://127.0.0.1:1" in told and "MESHCTL_NAMERD" in told


@pytest.mark.parametrize("command", ["list", "check", "get", "create", "update", "delete", "history", "diff", "rollback", "explain", "watch"])
def test_every_command_helps(command):
    done = CliRunner().invoke(meshctl, ["dtab", command, "--help"])
    assert done.exit_code == 0 and "--namerd" in done.output
