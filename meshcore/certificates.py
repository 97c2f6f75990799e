"""Certificates, keys and bundles of a proxy: read from files or handed over, turned into TLS contexts, kept while they stay.

A context is made anew only when something it is made of changed; whatever is wrong is told before anything is replaced.
Keys are held in bytearrays and wiped when the context has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from meshcore._fastpath import TlsContext, TlsError, tls_client, tls_server, wipe
from meshcore.config import Config, Duration, origin_of
from meshcore.config.plan import upstream_protocol
from meshcore.errors import ConfigError, Problem
from meshcore.health.secure import CheckTls, check_tls

MAX_FILE_BYTES = 4 << 20  # a bundle with every public root has a quarter of it

Owner = tuple[str, str]  # ("listener", name) or ("cluster", name)
Path = tuple[str | int, ...]


class _Unreadable(Exception):
    def __init__(self, message: str, path: Path) -> None:
        self.message = message
        self.path = path


class Certificates:
    """The TLS contexts of one proxy by listener and cluster, and what Python handed over in place of files."""

    def __init__(self) -> None:
        self._contexts: dict[Owner, TlsContext] = {}
        self._given: dict[Owner, dict[str, bytes | bytearray]] = {}
        self.checks: dict[str, CheckTls] = {}  # by cluster: how its endpoints are asked whether they are well
        self._checks_prepared: dict[str, CheckTls] = {}

    def prepare(self, config: Config) -> dict[Owner, TlsContext]:
        """The contexts of a configuration; those that need no change are the ones in use. Raises ConfigError."""
        contexts: dict[Owner, TlsContext] = {}
        problems: list[Problem] = []
        self._checks_prepared = {}
        asked = {cluster.name: cluster.health_check for cluster in config.clusters if cluster.health_check is not None}
        for owner, section, path in _sections(config):
            plan: dict[str, Any] = {}
            try:
                plan = self._plan(owner, section)
                contexts[owner] = self._context(owner, plan)
                if owner[0] == "cluster" and owner[1] in asked:
                    self._checks_prepared[owner[1]] = self._check(owner[1], asked[owner[1]], plan)
            except _Unreadable as error:
                where = ".".join(str(step) for step in error.path)
                problems.append(Problem(message=f"{owner[0]} '{owner[1]}': tls.{where}: {error.message}", path=(*path, *error.path)))
            except TlsError as error:
                problems.append(Problem(message=f"{owner[0]} '{owner[1]}': tls: {error}", path=path))
            finally:
                for _, key in plan.get("certificates", ()):
                    wipe(key)
        if problems:
            origin = origin_of(config)
            if origin is not None and origin.text is not None:
                tree = origin.tree()
                problems = [origin.place(problem, tree) for problem in problems]
            raise ConfigError(problems)
        return contexts

    def commit(self, contexts: dict[Owner, TlsContext]) -> tuple[str, ...]:
        """These are in use from now on. Returns whose changed, of those that were there before: "listener web"."""
        changed = tuple(
            " ".join(owner) for owner, context in contexts.items() if self._contexts.get(owner, context) is not context
        )
        self._contexts = contexts
        self.checks = self._checks_prepared
        return changed

    def give(self, owner: Owner, given: dict[str, bytes | bytearray | None]) -> dict[str, bytes | bytearray] | None:
        """Use these octets in place of files, until others are given; None: the files again. Returns what was there."""
        before = self._given.get(owner)
        merged: dict[str, bytes | bytearray] = dict(before or {})
        for part, octets in given.items():
            if octets is None:
                merged.pop(part, None)
            else:
                merged[part] = octets
        self.restore(owner, merged)
        return before

    def restore(self, owner: Owner, given: dict[str, bytes | bytearray] | None) -> None:
        """As it was before `give`, when its octets turned out not to be usable."""
        if given:
            self._given[owner] = given
        else:
            self._given.pop(owner, None)

    def forget(self) -> None:
        """Wipe the keys that were handed over: the proxy has ended."""
        for given in self._given.values():
            for octets in given.values():
                if isinstance(octets, bytearray):
                    wipe(octets)
        self._given.clear()
        self._contexts.clear()

    # --- one section ---

    def _plan(self, owner: Owner, section: Any) -> dict[str, Any]:
        plan = _client_plan(section) if owner[0] == "cluster" else _server_plan(section)
        given = self._given.get(owner, {})
        plan["certificates"] = []
        for number, (cert, key, path) in enumerate(_pairs(owner, section)):
            handed = number == 0 and "cert" in given
            chain = bytes(given["cert"]) if handed else bytes(_read(cert, (*path, "cert")))
            plan["certificates"].append((chain, bytearray(given["key"]) if handed else _read(key, (*path, "key"))))
        bundle = "ca" if owner[0] == "cluster" else "client_ca"
        for part, file, name in (("roots", getattr(section, bundle), bundle), ("crl", section.crl, "crl")):
            if name.removeprefix("client_") in given:
                plan[part] = bytes(given[name.removeprefix("client_")])
            else:
                plan[part] = None if file is None else bytes(_read(file, (name,)))
        plan["digest"] = _digest(plan)
        return plan

    def _check(self, cluster: str, check: Any, plan: dict[str, Any]) -> CheckTls:
        made = check_tls(plan, "h2" if check.type == "grpc" else "http/1.1")
        before = self.checks.get(cluster)
        return before if before == made and before is not None else made

    def _context(self, owner: Owner, plan: dict[str, Any]) -> TlsContext:
        before = self._contexts.get(owner)
        if before is not None and before.digest == plan["digest"]:
            return before
        return tls_client(plan) if owner[0] == "cluster" else tls_server(plan, before)


def shared_context(
    name: str, *, ca: bytes, cert: bytes | None, key: bytes | bytearray | None, crl: bytes | None
) -> TlsContext:
    """A client's context that many endpoints share: each of them says itself who it must be. Raises ConfigError."""
    plan: dict[str, Any] = {
        "only_13": False,
        "alpn": [],  # each connection says what it wants by itself
        "peers": [],
        "server_name": None,
        "certificates": [] if cert is None or key is None else [(bytes(cert), bytearray(key))],
        "roots": bytes(ca),
        "crl": None if crl is None else bytes(crl),
    }
    try:
        plan["digest"] = _digest(plan)
        return tls_client(plan)
    except TlsError as error:
        raise ConfigError(f"TLS context '{name}': {error}") from None
    finally:
        for _, secret in plan["certificates"]:
            wipe(secret)


def paths_of(config: Config) -> tuple[str, ...]:
    """Every file that the TLS sections name."""
    found: list[str | None] = []
    for owner, section, _ in _sections(config):
        found += [name for cert, key, _ in _pairs(owner, section) for name in (cert, key)]
        found += [section.crl, section.ca if owner[0] == "cluster" else section.client_ca]
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _sections(config: Config) -> Iterator[tuple[Owner, Any, Path]]:
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None:
            offered = ("h2", "http/1.1") if listener.http2 else ("http/1.1",)
            alpn = () if listener.protocol == "tcp" else offered
            yield ("listener", listener.name), _Effective(listener.tls, alpn), ("listeners", index, "tls")
    for index, cluster in enumerate(config.clusters):
        if cluster.tls is not None:
            # Where each client decides, each connection says what it wants by itself: see secure.
            alpn = {"http1": ("http/1.1",), "http2": ("h2",), "same": (), "mesh_hop": ()}[upstream_protocol(cluster)]
            yield ("cluster", cluster.name), _Effective(cluster.tls, alpn), ("clusters", index, "tls")


class _Effective:
    """A section of TLS with what depends on the rest of its listener or cluster."""

    def __init__(self, section: Any, alpn: tuple[str, ...]) -> None:
        self._section = section
        self.alpn = alpn if section.alpn is None else tuple(section.alpn)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._section, name)


def _pairs(owner: Owner, section: Any) -> Iterable[tuple[str, str, Path]]:
    if owner[0] == "cluster":
        return [(section.cert, section.key, ())] if section.cert is not None else []
    return [(one.cert, one.key, ("certificates", number)) for number, one in enumerate(section.certificates)]


def _server_plan(section: Any) -> dict[str, Any]:
    resumption = section.session_resumption
    if resumption == "auto":
        resumption = "tickets" if section.asks_clients == "off" else "stateful"
    lifetime_s = max(1, int(Duration(section.session_lifetime).seconds))
    return {
        "only_13": section.min_version == "1.3",
        "alpn": list(section.alpn),
        "peers": list(section.allowed_clients),
        "client_auth": section.asks_clients,
        "resumption": resumption,
        "ticket_period_s": lifetime_s,
        "lifetime_s": lifetime_s,
        "sessions": section.max_sessions,
        "tells_certificate": section.forwarded_client_cert == "set",
    }


def _client_plan(section: Any) -> dict[str, Any]:
    return {
        "only_13": section.min_version == "1.3",
        "alpn": list(section.alpn),
        "peers": list(section.expected_identity) or [f"dns:{section.sni}"],
        "server_name": section.sni,
    }


def _digest(plan: dict[str, Any]) -> str:
    digest = hashlib.sha256(repr(sorted((k, v) for k, v in plan.items() if k not in ("certificates", "roots", "crl"))).encode())
    parts = [part for pair in plan["certificates"] for part in pair] + [plan["roots"], plan["crl"]]
    for part in parts:
        digest.update(b"-" if part is None else len(part).to_bytes(8, "little"))
        digest.update(part or b"")
    return digest.hexdigest()


def _read(path: str, where: Path) -> bytearray:
    """A file into a buffer that can be wiped: nothing of it stays in a reader's own."""
    try:
        with open(path, "rb", buffering=0) as file:
            octets = bytearray(MAX_FILE_BYTES)
            size = 0
            while (n := file.readinto(memoryview(octets)[size:])) and size < MAX_FILE_BYTES:
                size += n
    except OSError as error:
        raise _Unreadable(f"cannot read {path}: {error.strerror or error}", where) from None
    if size == MAX_FILE_BYTES:
        wipe(octets)
        raise _Unreadable(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB", where)
    whole = octets[:size]
    wipe(octets)
    return whole
