"""namerd.yaml: the keys that namerd has published, and ours beside them. Reads and checks; opens nothing.

Source: namerd's reference (config.md, storage.md, interfaces). What is known there and has no meaning here is a warning with its
place, so that a file that works there works here; what nobody knows is an error.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from meshcore.config.suggest import hint
from meshcore.config.yaml_source import locate, parse
from meshcore.errors import ConfigError, Problem
from meshcore.namers.configured import ZkHost, client_tls, hosts_of, namers_from
from meshcore.namers.entries import BadKey, read_entry
from meshcore.namers.namer import LiveNamers

from .access import Access, is_loopback, read_tokens
from .book import parsed
from .registry import KIND as REGISTRY
from .registry import RegistryEntry
from .tables import Tables, check_namespace

MAX_FILE_BYTES = 4_194_304
NAMERS = {REGISTRY: RegistryEntry}
"""Kinds of namers beside those that a static proxy has, too."""


class ServerTls(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The `tls` of a server."""

    certPath: str
    keyPath: str
    requireClientAuth: bool = False
    caCertPath: str = ""
    intermediateCertsPath: str = ""
    protocols: str = ""

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certPath, self.keyPath)
        if self.caCertPath:
            context.load_verify_locations(self.caCertPath)
            context.verify_mode = ssl.CERT_REQUIRED if self.requireClientAuth else ssl.CERT_OPTIONAL
        return context


class Admin(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    ip: str = "127.0.0.1"
    port: int = 9991
    """Where namerd's code has it; its documents say 9990, where a Linkerd on the same machine is."""
    shutdownGraceMs: int = 10_000
    httpIdentifierPort: int = 0
    tls: ServerTls | None = None
    socketOptions: dict[str, Any] | None = None
    workerThreads: int = 2
    security: dict[str, Any] | None = None


class _Interface(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    ip: str = "127.0.0.1"
    port: int = 0
    tls: ServerTls | None = None
    socketOptions: dict[str, Any] | None = None

    @property
    def is_local(self) -> bool:
        return is_loopback(self.ip)


class HttpController(_Interface, kw_only=True, forbid_unknown_fields=True):
    port: int = 4180
    writeTokens: str = ""
    """Ours: a file of mode 600 with lines `name token`; who sends one as a bearer token may write."""
    writers: list[str] = []
    """Ours: names in verified client certificates that may write: SPIFFE ids, DNS names, common names."""

    def access(self) -> Access:
        tokens = read_tokens(self.writeTokens) if self.writeTokens else {}
        return Access(tokens=tokens, writers=self.writers, is_local=self.is_local)


class Mesh(_Interface, kw_only=True, forbid_unknown_fields=True):
    port: int = 4321
    accessLog: dict[str, Any] | None = None


INTERFACES: dict[str, type[Any]] = {"io.l5d.httpController": HttpController, "io.l5d.mesh": Mesh}
UNSPOKEN = {
    "io.l5d.thriftNameInterpreter": "proxies ask over io.l5d.mesh or HTTP here",
    "io.l5d.destination": "the control plane itself serves it (meshctl control-plane run)",
}


class _Storage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    experimental: bool = False

    def tables(self) -> Tables:
        raise NotImplementedError


class InMemory(_Storage, kw_only=True, forbid_unknown_fields=True):
    namespaces: dict[str, str] = {}

    def tables(self) -> Tables:
        from .memory_tables import MemoryTables

        return MemoryTables(self.namespaces)


class Sqlite(_Storage, kw_only=True, forbid_unknown_fields=True):
    path: str = "namerd.db"

    def tables(self) -> Tables:
        from ..store import SqliteStore
        from .store_tables import StoreTables

        return StoreTables(SqliteStore(self.path))


class Etcd(_Storage, kw_only=True, forbid_unknown_fields=True):
    host: str = "localhost"
    port: int = 2379
    endpoints: list[str] = []
    """Ours: several members, as URLs."""
    pathPrefix: str = "/namerd/dtabs"
    tls: dict[str, Any] | None = None
    user: str = ""
    password: str = ""

    def tables(self) -> Tables:
        from ..store.etcd import EtcdStore
        from .store_tables import StoreTables

        scheme = "https" if self.tls is not None else "http"
        members = self.endpoints or [f"{scheme}://{self.host}:{self.port}"]
        prefix = self.pathPrefix.strip("/")
        tls = client_tls(self.tls)
        return StoreTables(EtcdStore(members, prefix=prefix, tls=tls, user=self.user, password=self.password))


class Consul(_Storage, kw_only=True, forbid_unknown_fields=True):
    host: str = "localhost"
    port: int = 8500
    pathPrefix: str = "/namerd/dtabs"
    token: str = ""
    datacenter: str = ""
    readConsistencyMode: str = "default"
    writeConsistencyMode: str = "default"
    failFast: bool = False
    tls: dict[str, Any] | None = None

    def tables(self) -> Tables:
        from meshcore.clients.consul import ConsulClient

        from .consul_tables import ConsulTables

        scheme = "https" if self.tls is not None else "http"
        client = ConsulClient(
            f"{scheme}://{self.host}:{self.port}",
            token=self.token,
            tls=client_tls(self.tls),
            consistency=self.readConsistencyMode,
        )
        return ConsulTables(client, self.pathPrefix, datacenter=self.datacenter)


class AuthInfo(msgspec.Struct, forbid_unknown_fields=True):
    scheme: str
    auth: str


class Acl(msgspec.Struct, forbid_unknown_fields=True):
    scheme: str
    id: str
    perms: str


class ZooKeeper(_Storage, kw_only=True, forbid_unknown_fields=True):
    zkAddrs: list[ZkHost]
    pathPrefix: str = "/dtabs"
    sessionTimeoutMs: int = 10_000
    authInfo: AuthInfo | None = None
    acls: list[Acl] = []

    def tables(self) -> Tables:
        from meshcore.clients.zookeeper import ZooKeeperClient, access_list

        from .zookeeper_tables import ZooKeeperTables

        auth = [(self.authInfo.scheme, self.authInfo.auth)] if self.authInfo else []
        acl = access_list([(one.scheme, one.id, one.perms) for one in self.acls]) if self.acls else None
        client = ZooKeeperClient(hosts_of(self.zkAddrs), session_s=self.sessionTimeoutMs / 1000, auth=auth, acl=acl)
        return ZooKeeperTables(client, self.pathPrefix)


STORAGES: dict[str, type[_Storage]] = {
    "io.l5d.inMemory": InMemory,
    "io.l5d.sqlite": Sqlite,
    "io.l5d.etcd": Etcd,
    "io.l5d.consul": Consul,
    "io.l5d.zk": ZooKeeper,
}

MEANINGLESS = {
    "socketOptions": "sockets have the options that suit them",
    "workerThreads": "one loop serves all",
    "httpIdentifierPort": "there is no such page",
    "security": "the admin listener is of this machine alone",
    "experimental": "nothing is experimental here",
    "failFast": "connections are tried again at once",
    "writeConsistencyMode": "writes are consistent always",
    "accessLog": "there is no access log of streams",
}
TOP = ("admin", "storage", "namers", "interfaces", "telemetry")


class Settings(msgspec.Struct, kw_only=True):
    """A whole file."""

    storage: _Storage
    interfaces: list[HttpController | Mesh]
    admin: Admin = msgspec.field(default_factory=Admin)
    namers: list[Mapping[str, Any]] = []
    source: str = ""
    warnings: list[Problem] = []

    def live_namers(self) -> LiveNamers:
        return namers_from(self.namers, self.source, more=NAMERS)


class _Reading:
    """One pass over a file: what is found, and everything that is wrong."""

    def __init__(self, root: Any, source: str) -> None:
        self.root = root
        self.source = source
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def placed(self, problem: Problem) -> Problem:
        line, column = locate(self.root, problem.path, problem.at_key)
        return msgspec.structs.replace(problem, source=self.source, line=line, column=column)

    def wrong(self, message: str, *path: str | int, **told: Any) -> None:
        self.problems.append(self.placed(Problem(message=message, path=path, **told)))

    def warn(self, message: str, *path: str | int) -> None:
        self.warnings.append(self.placed(Problem(message=message, path=path, at_key=True)))

    def entry(self, struct: type[Any], keys: Mapping[str, Any], *path: str | int) -> Any:
        """One section, or None when something is wrong with it."""
        for key in keys:
            if key in MEANINGLESS and key in struct.__struct_fields__:
                self.warn(f"'{key}' has no meaning: {MEANINGLESS[key]}", *path, key)
        try:
            return read_entry(struct, keys)
        except BadKey as bad:
            self.wrong(str(bad), *path, *bad.path, hint=bad.hint, at_key=bad.at_key)
            return None

    def kind_of(self, config: Any, kinds: Mapping[str, type[Any]], what: str, *path: str | int) -> str | None:
        if not isinstance(config, Mapping):
            self.wrong(f"{what}: got {type(config).__name__}", *path, expected="a mapping with a kind")
            return None
        kind = config.get("kind")
        if kind not in kinds:
            self.wrong(f"{what}: kind {kind!r} is unknown", *path, "kind", hint=hint(str(kind), kinds, "kinds"))
            return None
        return str(kind)


def read_settings(text: str, source: str = "namerd.yaml") -> Settings:
    """ConfigError tells everything that is wrong; what has no meaning stands in `warnings`."""
    root, syntax = parse(text, source)
    reading = _Reading(root, source)
    reading.problems += syntax
    if not isinstance(root, Mapping):
        raise ConfigError(reading.problems or [Problem(message="expected a mapping", source=source)])
    for key in root:
        if key not in TOP:
            reading.wrong(f"unknown key '{key}'", key, hint=hint(str(key), TOP, "keys"), at_key=True)
    if root.get("telemetry"):
        reading.warn("'telemetry' has no meaning: metrics are Prometheus text at the admin listener's /metrics", "telemetry")
    admin = reading.entry(Admin, root.get("admin") or {}, "admin")
    storage = _storage(reading, root.get("storage"))
    interfaces = _interfaces(reading, root.get("interfaces"))
    namers = root.get("namers") or []
    try:
        entries = namers if isinstance(namers, list) else [namers]
        namers_from(entries, source, warn=lambda one: reading.warn(one.message, *one.path), more=NAMERS)
    except ConfigError as error:
        reading.problems += [reading.placed(problem) for problem in error.problems]
    if reading.problems:
        raise ConfigError(reading.problems)
    return Settings(
        storage=storage, interfaces=interfaces, admin=admin, namers=namers, source=source, warnings=reading.warnings
    )


def _storage(reading: _Reading, config: Any) -> Any:
    if config is None:
        reading.wrong("'storage' is missing", hint=f"kinds are: {', '.join(STORAGES)}")
        return None
    kind = reading.kind_of(config, STORAGES, "storage", "storage")
    if kind is None:
        return None
    storage = reading.entry(STORAGES[kind], {key: value for key, value in config.items() if key != "kind"}, "storage")
    for name, text in storage.namespaces.items() if isinstance(storage, InMemory) else ():
        try:
            check_namespace(name)
        except Exception as error:
            reading.wrong(str(error), "storage", "namespaces", name)
        _, fault = parsed(text)
        if fault:
            reading.wrong(f"no table: {fault}", "storage", "namespaces", name)
    return storage


def _interfaces(reading: _Reading, configs: Any) -> list[HttpController | Mesh]:
    found: list[HttpController | Mesh] = []
    if not isinstance(configs, list) or not configs:
        reading.wrong("'interfaces' has at least one", "interfaces", hint=f"kinds are: {', '.join(INTERFACES)}")
        return []
    for index, config in enumerate(configs):
        at = ("interfaces", index)
        if isinstance(config, Mapping) and config.get("kind") in UNSPOKEN:
            reading.warn(f"'{config['kind']}' is not spoken here: {UNSPOKEN[config['kind']]}", *at, "kind")
            continue
        kind = reading.kind_of(config, INTERFACES, "interface", *at)
        if kind is None:
            continue
        entry = reading.entry(INTERFACES[kind], {key: value for key, value in config.items() if key != "kind"}, *at)
        if entry is not None:
            found.append(entry)
            if isinstance(entry, HttpController) and not entry.is_local and not entry.writeTokens and not entry.writers:
                reading.warn(
                    "others can reach this listener and no writer is configured: it is read-only (writeTokens, writers)",
                    *at,
                    "ip",
                )
    ports = [one.port for one in found]
    for index, port in enumerate(ports):
        if port and port in ports[:index]:
            reading.wrong(f"port {port} stands there twice", "interfaces", index, "port")
    return found


def load_settings(file: str | Path) -> Settings:
    source = str(file)
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(Problem(message=f"cannot read the file: {error.strerror or error}", source=source)) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(Problem(message=f"more than {MAX_FILE_BYTES} bytes", source=source))
    return read_settings(data.decode(errors="replace"), source)


__all__ = ["Admin", "HttpController", "Mesh", "Settings", "load_settings", "read_settings"]
