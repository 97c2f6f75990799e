"""The configuration of `meshproxy proxy --listen … --to …`: one listener, one route, one cluster, no file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ConfigError, Problem
from .bounds import Limits, Timeouts
from .clusters import Cluster, Endpoint
from .listeners import Listener
from .routes import Route
from .section import specs
from .suggest import hint
from .types import Admin, Config
from .values import Bad

NAME = "default"


def for_targets(listen: str, to: Iterable[str] | str, **options: Any) -> Config:
    """A configuration that sends everything that reaches `listen` to the addresses `to`.

    `listen` may hold several addresses separated by commas; so may each of `to`, which also may be `:9000` for this
    machine. `options` are keys of the route (`timeout="5s"`), of the cluster (`balancer="random"`), of limits and
    timeouts, `workers`, and `admin="unix:/path"`. None means left out. Raises ConfigError.
    """
    # The first section that has the key gets it; keys that belong to the shape itself are not options.
    sections = (
        (Route, set(specs(Route)) - {"name", "to", "split", "respond"}),
        (Cluster, set(specs(Cluster)) - {"name", "endpoints"}),
        (Listener, {"deferred_accept", "trust_mesh_headers"}),
        (Limits, set(specs(Limits))),
        (Timeouts, set(specs(Timeouts))),
        (Config, {"workers", "forwarding"}),
    )
    chosen: dict[type[Any], dict[str, Any]] = {section: {} for section, _ in sections}
    admin = options.pop("admin", None)
    for key, value in options.items():
        if value is None:
            continue
        for section, keys in sections:
            if key in keys:
                chosen[section][key] = value
                break
        else:
            known = set().union(*(keys for _, keys in sections)) | {"admin"}
            raise ConfigError(Problem(message=f"unknown option '{key}'", hint=hint(key, known, "options"), got=key))
    addresses = [
        f"127.0.0.1{one}" if one.startswith(":") else one for one in _split([to] if isinstance(to, str) else to)
    ]
    if not addresses:
        raise ConfigError(Problem(message="no target", hint="name at least one address: --to 127.0.0.1:9000"))
    problems: list[Problem] = []
    kinds = (
        ("--listen", _split([listen]), specs(Listener)["address"].kind),
        ("--to", addresses, specs(Endpoint)["address"].kind),
    )
    for flag, texts, kind in kinds:
        for text in texts:
            try:
                kind.read(text)
            except Bad as bad:
                problems.append(Problem(message=f"{flag} {text}: {bad.message}", hint=bad.hint, got=text))
    if problems:
        raise ConfigError(problems)
    listeners = [
        Listener(name=NAME if index == 0 else f"{NAME}-{index}", address=address, **chosen[Listener])
        for index, address in enumerate(_split([listen]))
    ]
    return Config(
        listeners=listeners,
        routes=[Route(name=NAME, to=NAME, **chosen[Route])],
        clusters=[Cluster(name=NAME, endpoints=addresses, **chosen[Cluster])],
        limits=Limits(**chosen[Limits]),
        timeouts=Timeouts(**chosen[Timeouts]),
        admin=Admin(address=admin),
        **chosen[Config],
    )


def _split(texts: Iterable[str]) -> list[str]:
    """Comma lists as one list, without repeats."""
    found = [part.strip() for text in texts for part in text.split(",")]
    return list(dict.fromkeys(part for part in found if part))
