"""Who is who in the mesh: workloads by name, by address and by what endpoints say. Reads the model in memory; keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from ..model import Endpoint, Workload
from ..resolve.index import Index
from ..spiffe import SpiffeId
from .resources import member_labels


class Member(msgspec.Struct, frozen=True):
    """One workload, with all labels by which it can be named."""

    namespace: str
    name: str
    labels: dict[str, str]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Directory:
    """Questions to the model as the view holds it."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def workload(self, key: str) -> Workload | None:
        """`namespace/name`."""
        namespace, _, name = key.partition("/")
        return self._index.workloads.get(namespace, {}).get(name)

    def member(self, namespace: str, name: str, account: str) -> Member:
        """A member that showed an identity, whether the model knows its workload or not. What the model says of a workload
        holds only for who has that workload's account."""
        workload = self._index.workloads.get(namespace, {}).get(name)
        if workload is None or workload.account != account:
            return Member(namespace, name, member_labels(namespace, name, account, {}))
        return of_workload(workload)

    def members(self) -> Iterator[Member]:
        for there in self._index.workloads.values():
            for workload in there.values():
                yield of_workload(workload)

    def services(self) -> Iterator[tuple[str, str]]:
        """(namespace, name) of each."""
        yield from self._index.services

    def labels_at(self, address: str) -> dict[str, str]:
        """What is known of who has this `ip:port`: the endpoint there, else the only workload at that address."""
        host, _, port = address.rpartition(":")
        found: list[Workload] = []
        for value in self._index.at(host.strip("[]")):
            if isinstance(value, Endpoint) and str(value.port) == port:
                own = {"namespace": value.namespace, "service": value.service, "workload": value.workload}
                return self.enriched({**value.labels, **own})
            if isinstance(value, Workload):
                found.append(value)
        return of_workload(found[0]).labels if len(found) == 1 else {}

    def labels_of_client(self, identity: str, address: str) -> dict[str, str]:
        """Of who came from there, having proved this identity. Workloads that share an account are told apart by address."""
        by_address = self.labels_at(address)
        try:
            who = SpiffeId.parse(identity)
        except ValueError:
            return by_address
        proved = {"namespace": who.namespace, "serviceaccount": who.account}
        if by_address.items() >= proved.items():
            return by_address
        there = self._index.workloads.get(who.namespace, {}).values()
        found = [workload for workload in there if workload.account == who.account]
        return of_workload(found[0]).labels if len(found) == 1 else proved

    def enriched(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels of an endpoint, with those of the workload behind it."""
        workload = self._index.workloads.get(labels.get("namespace", ""), {}).get(labels.get("workload", ""))
        known = {name: text for name, text in labels.items() if text}
        return {**of_workload(workload).labels, **known} if workload is not None else known


def of_workload(workload: Workload) -> Member:
    labels = member_labels(workload.namespace, workload.name, workload.account, workload.labels, workload.zone)
    return Member(workload.namespace, workload.name, labels)
