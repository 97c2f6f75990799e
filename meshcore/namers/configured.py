"""Namers as Linkerd and namerd have them in their files: `namers: [{kind: io.l5d.fs, rootDir: disco}]`. Makes, watches nothing.

Source: linkerd's reference of namers. Every problem at once, with its place below `namers`; a key that has no meaning here is a
warning, one that nobody knows an error with the nearest that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..config.suggest import hint
from ..errors import ConfigError, Problem
from ..naming import NamingError, Path, read_path, rewrites
from .entries import BadKey, read_entry
from .inet import InetNamer
from .namer import LiveNamer, LiveNamers, PureLiveNamer
from .source import SourceError
from .states import Replicas


class NamerEntry(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What every kind has."""

    prefix: str = ""
    experimental: bool = False
    transformers: list[Any] = []

    def make(self, prefix: Path) -> LiveNamer:
        raise NotImplementedError


class Files(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    rootDir: str

    def make(self, prefix: Path) -> LiveNamer:
        from .files import FilesNamer

        return FilesNamer(prefix, self.rootDir)


class Statics(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    names: dict[str, list[str]] = {}
    """`/web: ["10.0.0.1 8080", "10.0.0.2 8080 * 0.5"]`."""

    def make(self, prefix: Path) -> LiveNamer:
        from .hosts_lines import read_line
        from .statics import StaticNamer

        return StaticNamer(
            prefix,
            {
                read_path(name): Replicas.of(read_line(line, f"names.{name}") for line in lines)
                for name, lines in self.names.items()
            },
        )


class Rewrite(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    pattern: str
    name: str

    def make(self, prefix: Path) -> LiveNamer:
        return PureLiveNamer("io.l5d.rewrite", prefix, rewrites(self.pattern, self.name))


class DnsSrv(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    refreshIntervalSeconds: float = 5.0
    """Here the longest wait: an answer whose time to live is shorter is asked for again when that is over."""
    dnsHosts: list[str] = []
    domain: str = ""

    def make(self, prefix: Path) -> LiveNamer:
        from .dns_srv import dns_srv_namer

        return dns_srv_namer(prefix, self.dnsHosts, self.refreshIntervalSeconds)


class Consul(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    host: str = "localhost"
    port: int = 8500
    includeTag: bool = False
    useHealthCheck: bool = False
    healthStatuses: tuple[str, ...] = ("passing",)
    token: str = ""
    setHost: bool = False
    consistencyMode: str = "default"
    failFast: bool = False
    preferServiceAddress: bool = True
    weights: list[dict[str, Any]] = []
    fixedLengthStreamedAfterKB: int = 0
    transferMetadata: bool = False
    tls: dict[str, Any] | None = None

    def make(self, prefix: Path) -> LiveNamer:
        from ..clients.consul import ConsulClient
        from .consul import ConsulRules, consul_namer, weights_of

        scheme = "https" if self.tls is not None else "http"
        client = ConsulClient(
            f"{scheme}://{_host(self.host)}:{self.port}",
            token=self.token,
            tls=client_tls(self.tls),
            consistency=self.consistencyMode,
        )
        rules = ConsulRules(
            has_tag=self.includeTag,
            statuses=self.healthStatuses if self.useHealthCheck else (),
            prefers_service_address=self.preferServiceAddress,
            sets_host=self.setHost,
            tells_metadata=self.transferMetadata,
            weights=weights_of(self.weights),
        )
        return consul_namer(prefix, client, rules)


class ZkHost(msgspec.Struct, forbid_unknown_fields=True):
    host: str
    port: int = 2181


class Serversets(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    zkAddrs: list[ZkHost]

    def make(self, prefix: Path) -> LiveNamer:
        from ..clients.zookeeper import ZooKeeperClient
        from .serversets import ServersetNamer

        return ServersetNamer(prefix, ZooKeeperClient(hosts_of(self.zkAddrs)))


class Etcd(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    host: str = "localhost"
    port: int = 2379
    pathPrefix: str = "/discovery"
    segments: int = 1
    tls: dict[str, Any] | None = None

    def make(self, prefix: Path) -> LiveNamer:
        from ..clients.etcd import EtcdClient
        from .etcd import etcd_namer

        scheme = "https" if self.tls is not None else "http"
        client = EtcdClient([f"{scheme}://{_host(self.host)}:{self.port}"], tls=client_tls(self.tls))
        return etcd_namer(prefix, client, self.pathPrefix, self.segments)


class Kubernetes(NamerEntry, kw_only=True, forbid_unknown_fields=True):
    host: str = ""
    """Left out, in a pod: the API server with the pod's account. Linkerd's default is a proxy at localhost:8001."""
    port: int = 8001
    labelSelector: str = ""
    tls: dict[str, Any] | None = None

    def make(self, prefix: Path) -> LiveNamer:
        from .kubernetes import kubernetes_namer

        return kubernetes_namer(prefix, kubernetes_client(self.host, self.port, self.tls), self.labelSelector)


class KubernetesNamespace(Kubernetes, kw_only=True, forbid_unknown_fields=True):
    namespace: str = ""
    envVar: str = "POD_NAMESPACE"

    def make(self, prefix: Path) -> LiveNamer:
        import os

        from .kubernetes import kubernetes_namer

        namespace = self.namespace or os.environ.get(self.envVar, "default")
        client = kubernetes_client(self.host, self.port, self.tls)
        return kubernetes_namer(prefix, client, self.labelSelector, namespace)


KINDS: dict[str, type[NamerEntry]] = {
    "io.l5d.fs": Files,
    "io.l5d.static": Statics,
    "io.l5d.rewrite": Rewrite,
    "io.l5d.dnssrv": DnsSrv,
    "io.l5d.consul": Consul,
    "io.l5d.serversets": Serversets,
    "io.l5d.etcd": Etcd,
    "io.l5d.k8s": Kubernetes,
    "io.l5d.k8s.ns": KubernetesNamespace,
}

MEANINGLESS = {
    "io.l5d.consul": {
        "failFast": "connections to Consul are tried again at once here",
        "fixedLengthStreamedAfterKB": "answers of Consul are not streamed here",
    },
    "io.l5d.dnssrv": {"domain": "the search domains are those of the system"},
}
_NOWHERE = {"experimental": "no namer is experimental here"}
GONE = ("io.l5d.marathon", "io.l5d.curator", "io.l5d.zkLeader", "io.l5d.rancher", "io.l5d.k8s.istio", "io.l5d.k8s.external")
"""Kinds of Linkerd for what nobody runs any more, or what others here do."""


def kubernetes_client(host: str, port: int, tls: Mapping[str, Any] | None) -> Any:
    from ..clients.kubernetes import KubernetesClient

    if not host:
        import os

        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            return KubernetesClient.in_cluster()
        host = "localhost"
    scheme = "https" if tls is not None else "http"
    return KubernetesClient(f"{scheme}://{_host(host)}:{port}", tls=client_tls(tls))


def client_tls(tls: Mapping[str, Any] | None) -> Any:
    """A context of Linkerd's `tls` section of a client: disableValidation, commonName, trustCerts, clientAuth."""
    if tls is None:
        return None
    import ssl

    context = ssl.create_default_context()
    for file in [*(tls.get("trustCerts") or ()), *([tls["trustCertsBundle"]] if tls.get("trustCertsBundle") else ())]:
        context.load_verify_locations(file)
    if tls.get("disableValidation"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if auth := tls.get("clientAuth"):
        context.load_cert_chain(auth["certPath"], auth["keyPath"])
    return context


def hosts_of(addresses: Sequence[ZkHost]) -> str:
    return ",".join(f"{_host(one.host)}:{one.port}" for one in addresses)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def namers_from(
    configs: Sequence[Mapping[str, Any]],
    source: str = "",
    *,
    warn: Callable[[Problem], None] = lambda problem: None,
    inet: InetNamer | None = None,
    more: Mapping[str, type[NamerEntry]] | None = None,
) -> LiveNamers:
    """The namers of a file, in its order: the lowest is asked first. ConfigError tells everything that is wrong.

    `more` are kinds of who asks, beside those of this package.
    """
    kinds = {**KINDS, **(more or {})}
    problems: list[Problem] = []
    made: list[LiveNamer] = []
    for index, config in enumerate(configs):
        at: tuple[str | int, ...] = ("namers", index)

        def wrong(message: str, *steps: str | int, at: tuple[str | int, ...] = at, **told: Any) -> None:
            problems.append(Problem(message=message, path=(*at, *steps), source=source, **told))

        if not isinstance(config, Mapping):
            wrong(f"a namer: got {type(config).__name__}", expected="a mapping with a kind")
            continue
        kind = config.get("kind")
        if kind not in kinds:
            said = "is not supported" if kind in GONE else "is unknown"
            wrong(f"namer kind {kind!r} {said}", "kind", hint=hint(str(kind), kinds, "kinds"))
            continue
        keys = {key: value for key, value in config.items() if key != "kind"}
        for key in keys:
            told = {**MEANINGLESS.get(kind, {}), **_NOWHERE}.get(key)
            if told is not None:
                warn(Problem(message=f"'{key}' of {kind} has no meaning: {told}", path=(*at, key), source=source, at_key=True))
        try:
            entry = read_entry(kinds[kind], keys)
            if entry.transformers:
                # Without them traffic would go elsewhere than the file says: that is no matter of a warning.
                wrong(f"{kind}: transformers of a namer are not supported; those of an interpreter are", "transformers", at_key=True)
            made.append(entry.make(_prefix(entry.prefix or f"/{kind}")))
        except BadKey as bad:
            wrong(f"{kind}: {bad}", *bad.path, hint=bad.hint, at_key=bad.at_key)
        except (NamingError, SourceError, ValueError, OSError) as error:
            wrong(f"{kind}: {error}")
    if problems:
        raise ConfigError(problems)
    return LiveNamers.from_configuration(made, inet=inet)


def _prefix(text: str) -> Path:
    """`/io.l5d.fs` and `/#/io.l5d.fs` are the same."""
    path = read_path(text)
    return path if path.elems[:1] == (b"#",) else Path.of("#") + path
