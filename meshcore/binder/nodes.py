"""Per node on Kubernetes: the proxy on the node of each address in its place, or the addresses of this node only. Live.

Source: linkerd DaemonSetTransformer, LocalnodeTransformer, SubnetLocalTransformer, with their tests. Two addresses are on one node where
both say so (`nodeName`), else where they share the first 24 bits, as in a cluster whose nodes have a /24 each.
"""

from __future__ import annotations

import ipaddress

from msgspec.structs import replace

from ..naming import EMPTY_DTAB, Dtab, Path
from ..namers.interpreter import Interpreter, Resolution
from ..namers.live import Derived, Live, Read
from ..namers.states import Address, Replicas, State


class OnNodes(Interpreter):
    """Another interpreter, whose addresses are exchanged for those of `proxies` on the same nodes."""

    def __init__(self, inner: Interpreter, proxies: Live[State]) -> None:
        self.inner = inner
        self._proxies = proxies

    def follow(self, path: Path, local: Dtab = EMPTY_DTAB) -> Live[Resolution]:
        return Derived(lambda read: self._exchanged(self.inner.follow(path, local), read))

    def _exchanged(self, live: Live[Resolution], read: Read) -> Resolution:
        found: Resolution = read(live)
        proxies: State = read(self._proxies)
        replicas = {id: exchanged(state, proxies) for id, state in found.replicas.items()}
        return Resolution(found.tree, replicas)

    async def close(self) -> None:
        await self.inner.close()


def exchanged(state: State, proxies: State) -> State:
    """Nodes without a proxy are left out; a proxy has the weight of all that is on its node."""
    if not isinstance(state, Replicas) or not isinstance(proxies, Replicas):
        return state if isinstance(proxies, Replicas) or not isinstance(state, Replicas) else proxies
    weights: dict[Address, float] = {}
    for one in state.addresses:
        for proxy in proxies.addresses:
            if are_together(one, proxy):
                weights[proxy] = weights.get(proxy, 0.0) + one.weight
                break
    return Replicas.of((replace(proxy, weight=weight) for proxy, weight in weights.items()), dict(state.metadata))


def are_together(one: Address, other: Address) -> bool:
    node, its = one.meta("nodeName"), other.meta("nodeName")
    if node and its:
        return node == its
    return is_near(one.host, other.host)


def is_near(host: str, other: str) -> bool:
    """The same /24; of IPv6 the same /64."""
    try:
        address = ipaddress.ip_address(host)
        prefix = 24 if address.version == 4 else 64
        return ipaddress.ip_address(other) in ipaddress.ip_network(f"{host}/{prefix}", strict=False)
    except ValueError:
        return False
