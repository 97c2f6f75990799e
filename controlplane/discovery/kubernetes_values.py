"""What objects of Kubernetes mean in our model. Pure: objects in, values out, and which services an event touches.

A service's ports, cluster addresses and labels become a Service. Each address of an endpoint slice that is ready becomes
an Endpoint per port; one that is not, but still serves while its pod ends, drains (weight 0). A pod with the label
`meshcore.io/proxy` other than `none` stands behind a proxy of the mesh: its service account is the identity to expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from meshcore.clients.kubernetes import Object, name_of

from ..model import Endpoint, Named, Service, ServicePort, names
from ..spiffe import SpiffeId
from .source import Groups, sound

Key = tuple[str, str]  # namespace, service
SERVICE_LABEL = "kubernetes.io/service-name"
PROXY_LABEL = "meshcore.io/proxy"
# KEP-3726 and what people write: https://kubernetes.io/docs/concepts/services-networking/service/#application-protocol
PROTOCOLS = {"http": "detect", "https": "tls", "kubernetes.io/h2c": "http2", "h2c": "http2", "http2": "http2",
             "grpc": "grpc", "tcp": "tcp", "tls": "tls", "kubernetes.io/ws": "http1", "kubernetes.io/wss": "tls"}  # fmt: skip
MAX_PORTS = 64


class Cluster:
    """The objects, by what a service needs of them."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain
        self._services: dict[Key, Object] = {}
        self._slices: dict[Key, dict[str, Object]] = {}
        self._of_slice: dict[tuple[str, str], Key] = {}
        self._pods: dict[tuple[str, str], Object] = {}
        self._users: dict[tuple[str, str], set[Key]] = {}

    def take(self, kind: str, event: Mapping[tuple[str, str], Object] | tuple[str, Object]) -> set[Key]:
        """Takes in a whole collection, or one event; tells which services it touches."""
        set_one = {"services": self._set_service, "endpointslices": self._set_slice, "pods": self._set_pod}[kind]
        touched: set[Key] = set()
        if isinstance(event, tuple):
            word, one = event
            touched |= set_one(name_of(one), None if word == "DELETED" else one)
            return touched
        there: dict[str, Iterable[tuple[str, str]]] = {
            "services": self._services,
            "endpointslices": self._of_slice,
            "pods": self._pods,
        }
        for place in [place for place in there[kind] if place not in event]:
            touched |= set_one(place, None)
        for place, one in event.items():
            touched |= set_one(place, one)
        return touched

    def everything(self) -> Groups:
        """All services, each a group."""
        return {str(key): self.values(key) for key in self._services.keys() | self._slices.keys()}

    def values(self, key: Key) -> list[Named]:
        """What is known of one service, in our terms."""
        service = self._services.get(key)
        if service is None:
            return []  # slices outlive their service for a moment: clients of it are told that it is gone
        return sound([_service(key, service), *self._endpoints(key, service)])

    def _set_service(self, place: Key, one: Object | None) -> set[Key]:
        if one is None:
            self._services.pop(place, None)
        else:
            self._services[place] = one
        return {place}

    def _set_slice(self, place: tuple[str, str], one: Object | None) -> set[Key]:
        touched: set[Key] = set()
        old = self._of_slice.pop(place, None)
        if old is not None:
            self._slices[old].pop(place[1], None)
            if not self._slices[old]:
                del self._slices[old]
            touched.add(old)
        labels = ((one or {}).get("metadata") or {}).get("labels") or {}
        if one is not None and SERVICE_LABEL in labels:
            key = (place[0], str(labels[SERVICE_LABEL]))
            self._of_slice[place] = key
            self._slices.setdefault(key, {})[place[1]] = one
            for pod in _pods_of(one):
                self._users.setdefault((place[0], pod), set()).add(key)
            touched.add(key)
        return touched

    def _set_pod(self, place: tuple[str, str], one: Object | None) -> set[Key]:
        before = _of_pod(self._pods.get(place))
        if one is None:
            self._pods.pop(place, None)
        else:
            self._pods[place] = one
        if before == _of_pod(one):
            return set()  # most events of a pod say nothing that is told
        touched = self._users.get(place, set())
        if one is None:
            self._users.pop(place, None)
        return set(touched)

    def _endpoints(self, key: Key, service: Object) -> Iterator[Endpoint]:
        ports = {str(port.get("name") or ""): port for port in _list((service.get("spec") or {}).get("ports"))}
        seen: set[str] = set()
        for _, one in sorted(self._slices.get(key, {}).items()):
            if one.get("addressType") not in ("IPv4", "IPv6"):
                continue
            for port in _list(one.get("ports")):
                declared = ports.get(str(port.get("name") or ""))
                if not isinstance(port.get("port"), int) or (port.get("protocol") or "TCP") != "TCP" or declared is None:
                    continue
                for endpoint in _list(one.get("endpoints")):
                    for address in _list(endpoint.get("addresses"), str)[:1]:
                        made = self._endpoint(key, endpoint, address, port, declared)
                        # One address may stand in two slices while they are being rebalanced.
                        if made is not None and made.name not in seen:
                            seen.add(made.name)
                            yield made

    def _endpoint(self, key: Key, one: Object, address: str, port: Object, declared: Object) -> Endpoint | None:
        conditions = one.get("conditions") or {}
        # discovery/v1: ready that is not set counts as true, serving as ready, terminating as false.
        is_ready = conditions.get("ready") is not False
        is_serving = conditions.get("serving") if conditions.get("serving") is not None else is_ready
        if not is_ready and not (is_serving and conditions.get("terminating")):
            return None
        reference = one.get("targetRef") or {}
        pod = str(reference.get("name") or "") if reference.get("kind") == "Pod" else ""
        labels, account, is_meshed = _of_pod(self._pods.get((key[0], pod)))
        protocol = PROTOCOLS.get(str(declared.get("appProtocol") or "").lower(), "detect")
        return Endpoint(
            namespace=key[0],
            service=key[1],
            name=f"{pod or 'ip-' + address.replace(':', '-').replace('.', '-')}.{port['port']}",
            address=address,
            port=port["port"],
            service_port=int(declared["port"]),
            weight=100 if is_ready else 0,
            labels=dict(labels),
            zone=_label_value(one.get("zone")),
            identity=str(SpiffeId(self._trust_domain, key[0], account)) if is_meshed else "",
            protocol=protocol,
            workload=pod,
        )


def _service(key: Key, one: Object) -> Service:
    spec = one.get("spec") or {}
    ports = [
        ServicePort(
            port=port["port"],
            name=str(port.get("name") or "") if names.is_label(str(port.get("name") or "")) else "",
            protocol=PROTOCOLS.get(str(port.get("appProtocol") or "").lower(), "detect"),
        )
        for port in _list(spec.get("ports"))
        if isinstance(port.get("port"), int) and (port.get("protocol") or "TCP") == "TCP"
    ]
    addresses = [ip for ip in _list(spec.get("clusterIPs"), str) if names.is_address(ip)]
    return Service(
        namespace=key[0],
        name=key[1],
        ports=tuple(ports[:MAX_PORTS]),
        labels=_labels((one.get("metadata") or {}).get("labels")),
        addresses=tuple(dict.fromkeys(addresses)),
    )


def _pods_of(one: Object) -> Iterator[str]:
    for endpoint in _list(one.get("endpoints")):
        reference = endpoint.get("targetRef") or {}
        if reference.get("kind") == "Pod" and reference.get("name"):
            yield str(reference["name"])


def _of_pod(pod: Object | None) -> tuple[tuple[tuple[str, str], ...], str, bool]:
    """Labels, account, whether a proxy stands beside it."""
    if pod is None:
        return (), "", False
    labels = _labels((pod.get("metadata") or {}).get("labels"))
    account = str((pod.get("spec") or {}).get("serviceAccountName") or "default")
    return tuple(labels.items()), account, labels.get(PROXY_LABEL, "none") != "none" and names.is_name(account)


def _labels(found: Any) -> dict[str, str]:
    pairs = found.items() if isinstance(found, dict) else ()
    kept = {str(key): str(value) for key, value in pairs if names.is_label_key(str(key)) and names.is_label_value(str(value))}
    return dict(list(kept.items())[:64])


def _label_value(found: Any) -> str:
    return found if isinstance(found, str) and names.is_label_value(found) else ""


def _list(found: Any, kind: type = dict) -> list[Any]:
    return [one for one in found if isinstance(one, kind)] if isinstance(found, list) else []
