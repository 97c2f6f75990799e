"""From a Linkerd 1.x file (YAML, or JSON, which is YAML) to its values, with every problem and warning at its place."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import Any

import msgspec

from ..config.yaml_source import MAX_TEXT_BYTES, locate, parse
from ..errors import ConfigError, Problem
from .place import Findings, Place
from .routers import read_router
from .settings import LinkerdFile, Router

ADMIN_PORT = 9990


class Read(msgspec.Struct, frozen=True):
    """A file that can be used, and what in it changes nothing here."""

    file: LinkerdFile
    warnings: tuple[Problem, ...] = ()
    tree: Any = None
    """The file with its places, for what is found wrong with it later."""

    def placed(self, problem: Problem) -> Problem:
        """The problem at its line and column."""
        line, column = locate(self.tree, problem.path, problem.at_key)
        return msgspec.structs.replace(problem, line=line, column=column)


def read_file(path: str | os.PathLike[str]) -> Read:
    """Raises ConfigError with all that is wrong."""
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError(Problem(message=f"cannot read the file: {error.strerror or error}", source=source)) from None
    try:
        return read_text(raw.decode("utf-8-sig"), source)
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(message=f"byte {error.start} of the file is not UTF-8", source=source)) from None


def read_text(text: str, source: str = "<linkerd>") -> Read:
    tree, problems = parse(text, source)
    findings = Findings(source, tree)
    findings.problems.extend(problems)
    place = Place(findings, tree, (), "the file")
    routers = [router for one in place.sections("routers", "router") if (router := read_router(one)) is not None]
    if not place.values.get("routers"):
        place.problem("the file has no routers", "it needs at least one, with servers")
    _unique(findings, routers)
    file = LinkerdFile(routers=routers, namers=_namers(place), admin=_admin(place))
    place.meaningless("metrics are at the admin server, and `meshproxy tap` shows requests", "telemetry", "usage")
    place.end()
    if findings.problems:
        raise ConfigError(findings.problems)
    warnings = sorted(findings.warnings, key=lambda one: (one.line, one.column))
    return Read(file, tuple(warnings), tree)


def _namers(place: Place) -> tuple[dict[str, Any], ...]:
    """As they stand: who makes them reads them."""
    found = []
    for one in place.sections("namers", "namer"):
        if one.has("transformers"):
            hint = "put them into the interpreter of the router"
            one.problem(f"{one.noun}: transformers of a namer are not possible here", hint, "transformers")
        found.append(one.values)
    return tuple(found)


def _admin(place: Place) -> str:
    admin = place.section("admin", "admin")
    host, port = admin.text("ip", "127.0.0.1"), admin.whole("port", ADMIN_PORT, 1, 65_535)
    if not _is_loopback(host):
        admin.warn(f"the admin server does not authenticate: it listens at 127.0.0.1:{port}, not at {host}", "ip")
    admin.meaningless("a stop drains for `timeouts.drain`", "shutdownGraceMs")
    admin.meaningless("the admin server is one thread and speaks plain HTTP", "workerThreads", "socketOptions", "httpIdentifierPort")
    for key in ("tls", "security"):
        if admin.has(key):
            admin.problem(f"'{key}' of admin is not possible here", "nobody but this machine reaches it; take the key out", key)
    admin.end()
    return f"127.0.0.1:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unique(findings: Findings, routers: list[Router]) -> None:
    labels: set[str] = set()
    addresses: dict[tuple[str, int], str] = {}
    for router in routers:
        if router.label in labels:
            hint = "give each a label of its own"
            findings.problems.append(findings.placed(f"two routers are called '{router.label}'", hint, ("routers",)))
        labels.add(router.label)
        for server in router.servers:
            other = addresses.setdefault((server.host, server.port), router.label)
            if server.port and other is not router.label:
                message = f"routers '{other}' and '{router.label}' both listen at {server.host}:{server.port}"
                findings.problems.append(findings.placed(message, "give one another port", ("routers",)))
