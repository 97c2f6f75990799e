"""Addresses whose hosts are names: resolved by DNS, live. Catalogues hand out names; endpoints need addresses."""

from __future__ import annotations

from ..naming import Path, Pending
from .inet import InetNamer
from .live import Derived, Live, Read
from .states import Address, Replicas, State, ip_of


def with_addresses(live: Live[State], inet: InetNamer) -> Live[State]:
    """The same with every host an IP address. A name that does not resolve has no address, the others stay."""

    def compute(read: Read) -> State:
        state: State = read(live)
        if not isinstance(state, Replicas) or all(ip_of(one.host) for one in state.addresses):
            return state
        found: list[Address] = []
        is_pending = False
        for one in state.addresses:
            if ip_of(one.host):
                found.append(one)
                continue
            resolved: State = read(inet.source.cell(Path.of(one.host, str(one.port))))
            is_pending = is_pending or isinstance(resolved, Pending)
            if isinstance(resolved, Replicas):
                found += [Address(each.host, one.port, one.weight, one.metadata) for each in resolved.addresses]
        if not found and is_pending:
            return Pending()
        return Replicas(Replicas.of(found).addresses, state.metadata)

    return Derived(compute)

