"""Settings for all paths (`io.l5d.global`) or by prefix (`io.l5d.static`), of clients or of services."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..binder.policies import EVERYTHING, Policies
from ..naming import NamingError, Pattern
from ..naming.statics import PREFIX
from .place import Place

KINDS = ("io.l5d.global", "io.l5d.static")


def read_policies(router: Place, key: str, read: Callable[[Place], dict[str, Any]]) -> Policies:
    """`read` turns the keys of one mapping into settings."""
    if not router.has(key):
        return Policies()
    place = router.section(key, f"{key} of {router.noun}")
    if place.word("kind", KINDS, "io.l5d.global") == "io.l5d.global":
        settings = read(place)
        place.end()
        return Policies(({PREFIX: EVERYTHING, **settings},))
    found: list[Mapping[str, Any]] = []
    for one in place.sections("configs", f"{key} of {router.noun}, config"):
        prefix = one.text(PREFIX)
        try:
            Pattern(prefix)
        except NamingError as error:
            one.problem(f"{one.noun}: {error}", "write prefix: /svc/web", PREFIX if prefix else None)
            prefix = EVERYTHING
        found.append({PREFIX: prefix, **read(one)})
        one.end()
    place.end()
    return Policies(tuple(found))
