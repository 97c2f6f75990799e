"""Settings by prefix, `kind: io.l5d.static`: which apply to a path, later over earlier. Knows no setting by name.

Source: linkerd SvcTest, ClientTest, StaticSvc, StaticClient. Prefixes are patterns, and what they capture may stand in
settings (`commonName: "{service}.internal"`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .path import Path
from .pattern import Pattern

PREFIX = "prefix"


def merged(configs: Iterable[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """The settings for a path (a logical name, or the id of a bound one), key by key, without the prefixes."""
    settings: dict[str, Any] = {}
    for config in configs:
        if Pattern(config[PREFIX]).extract(path) is not None:
            settings.update((key, value) for key, value in config.items() if key != PREFIX)
    return settings


def captured(configs: Iterable[Mapping[str, Any]], path: Path) -> dict[str, str]:
    """What the prefixes that match have captured, later ones over earlier ones."""
    found: dict[str, str] = {}
    for config in configs:
        found.update(Pattern(config[PREFIX]).extract(path) or {})
    return found
