"""Per node: each address in the hands of the proxy on its node, and only what is on this node."""

import asyncio

from meshcore.binder.nodes import OnNodes, exchanged, is_near
from meshcore.binder.transform import Transformer
from meshcore.namers.interpreter import LocalInterpreter
from meshcore.namers.live import Cell
from meshcore.namers.namer import LiveNamers
from meshcore.namers.states import Address, Replicas
from meshcore.naming import Neg, Pending, read_dtab, read_path


def on(node):
    return (("nodeName", node),)


def replicas(*addresses):
    return Replicas.of(addresses)


def test_each_address_becomes_the_proxy_of_its_node_with_all_the_weight_that_is_there():
    pods = replicas(Address("10.1.1.5", 80, 1.0, on("a")), Address("10.1.1.6", 80, 2.0, on("a")), Address("10.1.2.5", 80, 1.0, on("b")))
    proxies = replicas(Address("10.1.1.9", 4141, 1.0, on("a")), Address("10.1.2.9", 4141, 1.0, on("b")), Address("10.1.3.9", 4141, 1.0, on("c")))
    assert exchanged(pods, proxies) == replicas(Address("10.1.1.9", 4141, 3.0, on("a")), Address("10.1.2.9", 4141, 1.0, on("b")))


def test_without_names_of_nodes_the_network_tells_who_is_together():
    assert exchanged(replicas(Address("10.1.1.5", 80)), replicas(Address("10.1.2.9", 4141), Address("10.1.1.9", 4141))) == replicas(
        Address("10.1.1.9", 4141)
    )
    assert is_near("2001:db8:1::5", "2001:db8:1::9") and not is_near("2001:db8:1::5", "2001:db8:1:1::9")


def test_a_node_without_a_proxy_is_left_out_and_what_is_not_known_waits():
    pods = replicas(Address("10.1.1.5", 80, 1.0, on("a")))
    assert exchanged(pods, replicas(Address("10.1.2.9", 4141, 1.0, on("b")))) == replicas()
    assert exchanged(pods, Pending()) == Pending()
    assert exchanged(Neg(), Pending()) == Neg()


def test_proxies_that_come_and_go_are_followed():
    async def run():
        proxies = Cell(replicas(Address("127.0.0.9", 4141)))
        inner = LocalInterpreter(LiveNamers(), read_dtab("/svc => /$/inet/127.0.0.1/80"))
        async with OnNodes(inner, proxies).follow(read_path("/svc")).watch() as values:
            async for value in values:
                (state,) = value.replicas.values()
                if state == replicas(Address("127.0.0.9", 4141)):
                    proxies.set(replicas(Address("127.0.0.10", 4141)))
                elif state == replicas(Address("127.0.0.10", 4141)):
                    return

    asyncio.run(asyncio.wait_for(run(), 10))


def test_only_what_is_on_this_node_is_left():
    pods = [Address("10.1.1.5", 80, 1.0, on("a")), Address("10.1.2.5", 80, 1.0, on("b"))]
    assert Transformer("localnode", host="b").change(pods) == pods[1:]
    assert Transformer("localnode", host="10.1.1.77").change(pods) == pods[:1]
