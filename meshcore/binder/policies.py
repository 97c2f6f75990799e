"""Settings that hold for names: by prefix of a path, later ones over earlier ones. Plain values; knows no key by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..naming import Path
from ..naming.statics import PREFIX, captured, merged

EVERYTHING = "/"


class ClientTls(msgspec.Struct, frozen=True):
    """TLS towards the endpoints of a bound name. Paths of PEM files; `common_name` may hold `{variables}` of a prefix."""

    common_name: str
    trust: tuple[str, ...] = ()
    """None: the roots of this system."""
    cert: str | None = None
    key: str | None = None


class Policies(msgspec.Struct, frozen=True):
    """Settings by prefix. Keys are those of our clusters and routes, with their values as a configuration has them."""

    configs: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of_all(cls, **settings: Any) -> Policies:
        return cls(({PREFIX: EVERYTHING, **settings},))

    def of(self, path: Path) -> dict[str, Any]:
        return merged(self.configs, path)

    def variables(self, path: Path) -> dict[str, str]:
        """What the prefixes have captured of a path."""
        return captured(self.configs, path)

    def all_tls(self) -> set[ClientTls]:
        """Every way to speak TLS that some path has."""
        return {config["tls"] for config in self.configs if config.get("tls") is not None}
