"""Host names: the addresses behind `/$/inet/host/port`, asked again when their time to live is over. Parses no name.

Theirs to beat: linkerd/linkerd#2421, a host name resolved once and never again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..naming import Bound, Neg, Path
from ..naming.system import status_of
from .live import Live, fixed
from .source import Source
from .states import Address, Replicas, State, ip_of, pairs

if TYPE_CHECKING:
    from ..clients.dns import DnsClient

SHORTEST_S, LONGEST_S = 1.0, 60.0
"""Between two questions for one name. A time to live of zero must not become a loop, and /etc/hosts tells none."""
ABSENT_S = 5.0
"""Between two questions for a name that does not exist: it may be on its way."""

_INET = (b"inet", b"fixedinet")
_RINET = b"io.buoyant.rinet"
_LOOPBACK = b"127.0.0.1"


def wait_of(ttl_s: float) -> float:
    """When to ask again; spread, so that a thousand names of one answer are not asked in one moment."""
    return min(max(ttl_s, SHORTEST_S), LONGEST_S) * random.uniform(0.9, 1.0)


class InetSource(Source):
    """The keys are `/host/port`, `/fixed/host/port` for a name that is resolved once."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        super().__init__("dns")
        self._servers = servers
        self._client: DnsClient | None = None

    @property
    def client(self) -> DnsClient:
        if self._client is None:
            from ..clients.dns import DnsClient

            self._client = DnsClient(self._servers)
        return self._client

    async def follow(self, key: Path, tell: Callable[[State], None]) -> None:
        *fixed_, host, port = key.texts
        while True:
            found = await self.client.hosts(host)
            if found is None:
                tell(Neg())
                await asyncio.sleep(wait_of(ABSENT_S))
                continue
            tell(Replicas.of(Address(address, int(port)) for address in found.addresses))
            if fixed_:
                await asyncio.get_running_loop().create_future()
            await asyncio.sleep(wait_of(found.ttl_s))

    async def close(self) -> None:
        await super().close()
        if self._client is not None:
            await self._client.close()


class InetNamer:
    """What `/$/…` ids resolve to."""

    def __init__(self, servers: Sequence[str] = ()) -> None:
        self.source = InetSource(servers)

    def replicas(self, id: Path) -> Live[State] | None:
        """None for an id that is not of the system namer."""
        if (said := said_by(id)) is not None:
            return fixed(said)
        if (found := _host_and_port(id)) is None:
            return None
        host, port = found
        return self.source.cell(Path((host, port) if id.elems[1] != b"fixedinet" else (b"fixed", host, port)))

    async def close(self) -> None:
        await self.source.close()


def said_by(id: Path) -> State | None:
    """What an id of the system namer says by itself, whoever is asked for it; None: somebody has to be asked."""
    if (found := _host_and_port(id)) is None:
        status = status_of(Bound(id)) if len(id.elems) > 2 and id.elems[0] == b"$" else None
        return None if status is None else Replicas((), pairs({"status": status}))
    host, port = found
    if not port.isdigit() or not 0 < int(port) < 65_536:
        return Neg()
    ip = ip_of(host.decode("ascii", errors="replace").strip("[]"))
    return None if ip is None else Replicas((Address(ip, int(port)),))


def _host_and_port(id: Path) -> tuple[bytes, bytes] | None:
    elems = id.elems
    if len(elems) < 3 or elems[0] != b"$":
        return None
    if elems[1] in _INET:
        return (elems[2], elems[3]) if len(elems) > 3 else (_LOOPBACK, elems[2])
    return (elems[3], elems[2]) if elems[1] == _RINET and len(elems) > 3 else None
