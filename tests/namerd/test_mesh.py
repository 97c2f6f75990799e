"""The mesh interface over real gRPC: streams that follow tables and addresses, errors in Linkerd's words."""

import asyncio
import contextlib

import grpc
import pytest

from meshcore.api import mesh_pb2 as pb
from meshcore.api import mesh_pb2_grpc as services
from meshcore.binder.namerd_mesh import ADDRESSES, ALTERNATIVES, MeshInterpreter
from meshcore.namers import Address, Replicas
from meshcore.naming import read_dtab, read_path

from .served import DTAB, memory, served

NAMERS = [{"kind": "io.l5d.static", "names": {"/web": ["127.0.0.1 1 * 0.25", "::1 2"]}}]


@contextlib.asynccontextmanager
async def asked(one, service):
    async with grpc.aio.insecure_channel(one.namerd.addresses["mesh"]) as channel:
        yield getattr(services, f"{service}Stub")(channel)


def path(text: str) -> pb.Path:
    return pb.Path(elems=read_path(text).elems)


def bind(root: str, name: str) -> pb.BindReq:
    return pb.BindReq(root=path(root), name=path(name))


async def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_a_bound_tree_follows_its_table_with_weights_as_they_are():
    async with served(memory(namers=NAMERS, default="/svc=>/#/io.l5d.static/web")) as one:
        async with asked(one, "Interpreter") as interpreter:
            stream = interpreter.StreamBoundTree(bind("/default", "/svc/users"))
            tree = (await stream.read()).tree
            assert tree.leaf.id.elems == [b"#", b"io.l5d.static", b"web"] and tree.leaf.residual.elems == [b"users"]
            await one.ask("PUT", "/dtabs/default", "/svc=>0.001*/#/io.l5d.static/web & 0.999*/$/inet/127.0.0.1/80", kind=DTAB)
            assert [branch.weight for branch in (await stream.read()).tree.union.trees] == [0.001, 0.999]
            for table, kind in (("/svc=>!", "fail"), ("/svc=>$", "empty"), ("", "neg")):
                await one.ask("PUT", "/dtabs/default", table, kind=DTAB)
                assert (await stream.read()).tree.WhichOneof("node") == kind
            stream.cancel()
            once = await interpreter.GetBoundTree(bind("/default", "/#/io.l5d.static/web"))
            assert once.tree.WhichOneof("node") == "leaf"


async def test_replicas_carry_addresses_of_both_families_and_weights():
    async with served(memory(namers=NAMERS)) as one, asked(one, "Resolver") as resolver:
        found = await resolver.GetReplicas(pb.ReplicasReq(id=path("/#/io.l5d.static/web")))
        first, second = found.bound.endpoints
        assert (first.inet_af, first.address, first.port) == (pb.Endpoint.INET4, bytes([127, 0, 0, 1]), 1)
        assert dict(first.metadata) == {"endpoint_addr_weight": "0.25"}
        assert (second.inet_af, len(second.address), second.port) == (pb.Endpoint.INET6, 16, 2)
        nothing = await resolver.GetReplicas(pb.ReplicasReq(id=path("/#/io.l5d.static/none")))
        assert nothing.WhichOneof("result") == "neg"
        unknown = await resolver.GetReplicas(pb.ReplicasReq(id=path("/#/other/x")))
        assert "no namer knows" in unknown.failed.message
        assert (await refused(resolver.GetReplicas(pb.ReplicasReq())))[0] == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_table_is_told_with_its_version_and_followed():
    async with served(memory(default="/a/*/b=>/c | 2*/d & /e")) as one, asked(one, "Delegator") as delegator:
        stream = delegator.StreamDtab(pb.DtabReq(root=path("/default")))
        first = (await stream.read()).dtab
        prefix = first.dtab.dentries[0].prefix.elems
        assert [elem.WhichOneof("value") for elem in prefix] == ["label", "wildcard", "label"]
        assert first.version.id == (1).to_bytes(8, "big")
        await one.ask("PUT", "/dtabs/default", "/x=>/y", kind=DTAB)
        assert (await stream.read()).dtab.dtab.dentries[0].prefix.elems[0].label == b"x"
        stream.cancel()
        got = await delegator.GetDtab(pb.DtabReq(root=path("/default")))
        assert got.dtab.version.id == (2).to_bytes(8, "big")


async def test_errors_are_those_of_linkerd():
    async with served(memory()) as one:
        async with asked(one, "Delegator") as delegator, asked(one, "Interpreter") as interpreter:
            code = grpc.StatusCode
            assert await refused(delegator.GetDtab(pb.DtabReq())) == (code.INVALID_ARGUMENT, "No namespace specified")
            assert await refused(delegator.GetDtab(pb.DtabReq(root=path("/a/b")))) == (
                code.INVALID_ARGUMENT,
                "Invalid root: `/a/b` must have exactly one segment",
            )
            assert await refused(delegator.GetDtab(pb.DtabReq(root=path("/none")))) == (code.NOT_FOUND, "Root not found")
            nameless = pb.BindReq(root=path("/default"))
            assert await refused(interpreter.GetBoundTree(nameless)) == (code.NOT_FOUND, "No name given")
            empty = pb.BindReq(root=path("/default"), name=pb.Path(elems=[b""]))
            assert (await refused(interpreter.GetBoundTree(empty)))[0] == code.INVALID_ARGUMENT


async def test_a_delegation_is_told_as_a_tree():
    table = "/svc=>/#/io.l5d.static/none | /#/io.l5d.static/web"
    async with served(memory(namers=NAMERS, default=table)) as one, asked(one, "Delegator") as delegator:
        leaf = pb.PathNameTree(leaf=pb.PathNameTree.Leaf(id=path("/svc")))
        told = (await delegator.GetDelegateTree(pb.DelegateTreeReq(root=path("/default"), tree=leaf))).tree
        assert told.path.elems == [b"svc"] and told.WhichOneof("node") == "alt"
        assert [one.WhichOneof("node") for one in told.alt.trees] == ["neg", "leaf"]
        assert told.alt.trees[1].dentry.prefix.elems[0].label == b"svc"
        both = pb.PathNameTree(alt=pb.PathNameTree.Alt(trees=[leaf, pb.PathNameTree(nop=pb.PathNameTree.FAIL)]))
        told = (await delegator.GetDelegateTree(pb.DelegateTreeReq(root=path("/default"), tree=both))).tree
        assert told.WhichOneof("node") in ("alt", "delegate")


async def test_text_becomes_values_and_back():
    text = "/a/*=>2.50*/b & (/c | ~) & ! & $"
    async with served(memory()) as one, asked(one, "Codec") as codec:
        dtab = (await codec.ReadDtab(pb.ReadDtabReq(text=text))).dtab
        shown = (await codec.ShowDtab(pb.ShowDtabReq(dtab=dtab))).text
        assert read_dtab(shown) == read_dtab(text)
        found = (await codec.ReadPath(pb.ReadPathReq(text="/a/\\x2f"))).path
        assert list(found.elems) == [b"a", b"/"]
        assert (await codec.ShowPath(pb.ShowPathReq(path=found))).text == "/a/\\x2f"
        code, told = await refused(codec.ReadDtab(pb.ReadDtabReq(text="nonsense")))
        assert code == grpc.StatusCode.INVALID_ARGUMENT and "expected but 'n' found" in told


async def test_our_proxies_are_given_the_alternatives_that_they_ask_for():
    table = "/svc=>/#/io.l5d.static/web | /$/inet/127.0.0.1/80"
    async with served(memory(namers=NAMERS, default=table)) as one, asked(one, "Interpreter") as interpreter:
        plain = (await interpreter.GetBoundTree(bind("/default", "/svc"))).tree
        tree = (await interpreter.GetBoundTree(bind("/default", "/svc"), metadata=ALTERNATIVES)).tree
        assert plain.leaf.id.elems[0] == b"#"
        assert [branch.leaf.id.elems[0] for branch in tree.alt.trees] == [b"#", b"$"]


async def test_who_asks_for_addresses_is_told_with_a_tree_where_its_ids_are_and_nobody_else():
    async with served(memory(namers=NAMERS, default="/svc=>/#/io.l5d.static/web")) as one, asked(one, "Interpreter") as interpreter:
        request = bind("/default", "/svc/users")
        theirs, ours = interpreter.StreamBoundTree(request), interpreter.StreamBoundTree(request, metadata=ADDRESSES)
        assert not (await theirs.read()).known
        (known,) = (await ours.read()).known
        assert known.id == path("/#/io.l5d.static/web")
        assert [endpoint.port for endpoint in known.replicas.bound.endpoints] == [1, 2]
        await one.ask("PUT", "/dtabs/default", "/svc=>/$/inet/127.0.0.1/80 | /#/io.l5d.static/web", kind=DTAB)
        assert not (await theirs.read()).known
        assert not (await ours.read()).known, "an id that says by itself where it is was told"


async def test_a_new_id_is_known_by_its_tree_before_its_own_watch_answers(monkeypatch):
    """Then that watch goes on: what changes is told by it."""
    watched = []

    async def silent(self, id, tell):
        watched.append(id)
        await asyncio.Event().wait()

    monkeypatch.setattr(MeshInterpreter, "watch_addresses", silent)
    async with served(memory(namers=NAMERS, default="/svc=>/#/io.l5d.static/web")) as one:
        host, port = one.namerd.addresses["mesh"].rsplit(":", 1)
        interpreter = MeshInterpreter(host, int(port), "default")
        id = read_path("/#/io.l5d.static/web")
        async with asyncio.timeout(10), interpreter.follow(read_path("/svc/users")).watch() as values:
            async for found in values:
                if not found.is_pending:
                    break
            expected = Replicas((Address("127.0.0.1", 1, 0.25), Address("::1", 2)))
            assert found.replicas == {id: expected}
            while not watched:
                await asyncio.sleep(0.01)
        assert watched == [id]
        await interpreter.close()
