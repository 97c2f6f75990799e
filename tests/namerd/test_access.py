"""Who may write: nobody but this machine by default, else tokens and certificates; never a page in a browser."""

import ssl

import aiohttp
import pytest

from controlplane.errors import Denied
from controlplane.namerd.access import Access, Caller, read_tokens
from controlplane.namerd.settings import HttpController, ServerTls
from meshcore.errors import MeshError

from tests.scenario.certificates import Authority

from .served import DTAB, memory, served

TOKEN = "correct-horse-battery"


def token_file(tmp_path, text=f"ci {TOKEN}\n", mode=0o600):
    file = tmp_path / "tokens"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


async def test_a_listener_of_this_machine_alone_takes_writes_as_namerd_does():
    async with served(memory()) as one:
        assert (await one.ask("PUT", "/dtabs/a", "", kind=DTAB)).status == 204


async def test_a_page_in_a_browser_writes_nothing():
    async with served(memory()) as one:
        answer = await one.ask("POST", "/dtabs/a", "/=>/evil", kind="text/plain", origin="http://evil.example")
        assert answer.status == 403 and "evil" not in answer.text
        assert (await one.ask("GET", "/dtabs/a")).status == 404


async def test_a_listener_that_others_can_reach_is_read_only_without_writers():
    async with served(memory(HttpController(ip="0.0.0.0", port=0), default="/a=>/b")) as one:
        for method, path in (("PUT", "/dtabs/default"), ("POST", "/dtabs/new"), ("DELETE", "/dtabs/default")):
            assert (await one.ask(method, path, "", kind=DTAB)).status == 403
        assert (await one.ask("GET", "/dtabs/default", accept=DTAB)).text == "/a=>/b\n"
        assert (await one.ask("GET", "/bind/default?path=/a")).status == 200


async def test_with_tokens_only_their_owners_write_and_the_history_names_them(tmp_path):
    audited = []
    interface = HttpController(port=0, writeTokens=token_file(tmp_path))
    async with served(memory(interface), audit=lambda **record: audited.append(record)) as one:
        assert (await one.ask("PUT", "/dtabs/a", "", kind=DTAB)).status == 403
        assert (await one.ask("PUT", "/dtabs/a", "", kind=DTAB, auth="Bearer wrong-wrong-wrong-wrong")).status == 403
        assert (await one.ask("PUT", "/dtabs/a", "", kind=DTAB, auth=f"Bearer {TOKEN}")).status == 204
        assert (await one.json("/dtabs/a/history"))[0]["by"] == "token:ci"
        assert (await one.ask("POST", "/dtabs/a", "", kind=DTAB, auth=f"Bearer {TOKEN}")).status == 409
    told = [(record["event"], record["outcome"], record["actor"]) for record in audited]
    assert told == [("dtab_update", "done", "token:ci"), ("dtab_create", "failed", "token:ci")]
    assert TOKEN not in repr(audited)


async def test_a_client_certificate_of_a_writer_may_write(tmp_path):
    authority = Authority()
    files = authority.leaf("localhost", "127.0.0.1").write(tmp_path, "server")
    roots = authority.write(tmp_path)
    tls = ServerTls(certPath=files["cert"], keyPath=files["key"], caCertPath=roots)
    interface = HttpController(ip="127.0.0.1", port=0, tls=tls, writers=["spiffe://mesh.test/ns/ops/sa/dtabs"])
    async with served(memory(interface)) as one:
        one.scheme = "https"
        for name, status in (("dtabs", 204), ("web", 403), (None, 403)):
            context = ssl.create_default_context(cafile=roots)
            if name is not None:
                leaf = authority.leaf(f"spiffe://mesh.test/ns/ops/sa/{name}").write(tmp_path, name)
                context.load_cert_chain(leaf["cert"], leaf["key"])
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as one.session:
                assert (await one.ask("PUT", "/dtabs/a", "", kind=DTAB)).status == status


@pytest.mark.parametrize(
    ("access", "caller", "who"),
    [
        (Access(), Caller("127.0.0.1"), "local:127.0.0.1"),
        (Access(), Caller("::1"), "local:::1"),
        (Access(), Caller("10.0.0.1"), None),
        (Access(is_local=False), Caller("127.0.0.1"), None),
        (Access(writers=["spiffe://mesh/ops"]), Caller("10.0.0.1", names=("spiffe://mesh/ops",)), "certificate:spiffe://mesh/ops"),
        (Access(writers=["spiffe://mesh/ops"]), Caller("127.0.0.1", names=("spiffe://mesh/web",)), None),
        (Access(writers=["spiffe://mesh/ops"]), Caller("127.0.0.1"), None),
        (Access(tokens={"ci": TOKEN}), Caller("10.0.0.1", token=TOKEN), "token:ci"),
        (Access(tokens={"ci": TOKEN}), Caller("127.0.0.1", token=TOKEN[:-1]), None),
        (Access(), Caller("127.0.0.1", token="anything"), None),
    ],
)
def test_who_may(access, caller, who):
    if who is None:
        with pytest.raises(Denied):
            access.writer(caller)
    else:
        assert access.writer(caller) == who


@pytest.mark.parametrize(
    ("text", "mode", "complaint"),
    [
        (f"ci {TOKEN}\n", 0o644, "others may read it"),
        ("ci short\n", 0o600, ":1: expected"),
        (f"# all of them\nci {TOKEN}\nci {TOKEN}\n", 0o600, ":3: expected"),
        ("ci\n", 0o600, ":1: expected"),
    ],
)
def test_a_file_of_tokens_that_is_not_sound_is_refused(tmp_path, text, mode, complaint):
    with pytest.raises(MeshError, match=complaint):
        read_tokens(token_file(tmp_path, text, mode))

