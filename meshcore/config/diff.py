"""What changes between two configurations, by name. Compares; applies nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from .clusters import Cluster
from .section import Section, specs
from .types import Config


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two configurations. False when there is none. `str()` is made for people."""

    listeners_added: tuple[str, ...] = ()
    listeners_removed: tuple[str, ...] = ()
    listeners_changed: tuple[str, ...] = ()
    listeners_unchanged: int = 0
    routes_added: tuple[str, ...] = ()
    routes_removed: tuple[str, ...] = ()
    routes_changed: tuple[str, ...] = ()
    routes_unchanged: int = 0
    routes_reordered: bool = False
    """The common routes come in another order: the first listed wins among equals."""
    clusters_added: tuple[str, ...] = ()
    clusters_removed: tuple[str, ...] = ()
    clusters_changed: tuple[str, ...] = ()
    """Clusters with another setting or other endpoints."""
    clusters_unchanged: int = 0
    endpoints_added: dict[str, tuple[str, ...]] = {}
    """Addresses per cluster that exists before and after."""
    endpoints_removed: dict[str, tuple[str, ...]] = {}
    endpoints_changed: dict[str, tuple[str, ...]] = {}
    """Addresses whose weight changes."""
    certificates_changed: tuple[str, ...] = ()
    """"listener web", "cluster users": other certificates, keys or bundles, be it in the files alone."""
    settings_changed: dict[str, tuple[str, str]] = {}
    """`limits.head_size` and the like: the old and the new value, as text."""
    details: dict[str, dict[str, tuple[str, str]]] = {}
    """For each changed listener, route or cluster ("route users"): key, the old and the new value."""

    def __bool__(self) -> bool:
        return any(
            getattr(self, name)
            for name in self.__struct_fields__
            if not name.endswith("_unchanged") and name != "details"
        )

    def __str__(self) -> str:
        if not self:
            return "no changes"
        lines: list[str] = []
        for name, (before, after) in self.settings_changed.items():
            lines.append(f"~ {name}: {before} -> {after}")
        for noun in ("listener", "route", "cluster"):
            lines += [f"+ {noun} {name}" for name in getattr(self, f"{noun}s_added")]
            lines += [f"- {noun} {name}" for name in getattr(self, f"{noun}s_removed")]
            for name in getattr(self, f"{noun}s_changed"):
                lines.append(f"~ {noun} {name}")
                for key, (before, after) in self.details.get(f"{noun} {name}", {}).items():
                    lines.append(f"    {key}: {before} -> {after}")
                if noun == "cluster":
                    lines += [f"    + endpoint {address}" for address in self.endpoints_added.get(name, ())]
                    lines += [f"    - endpoint {address}" for address in self.endpoints_removed.get(name, ())]
                    lines += [f"    ~ endpoint {address}: weight" for address in self.endpoints_changed.get(name, ())]
        lines += [f"~ certificates of {owner}" for owner in self.certificates_changed]
        if self.routes_reordered:
            lines.append("~ order of routes")
        lines.append(
            f"unchanged: {self.listeners_unchanged} listeners, {self.routes_unchanged} routes, "
            f"{self.clusters_unchanged} clusters"
        )
        return "\n".join(lines)


def diff(old: Config, new: Config) -> Diff:
    """What changes from `old` to `new`."""
    found: dict[str, Any] = {}
    details: dict[str, dict[str, tuple[str, str]]] = {}
    for noun in ("listener", "route", "cluster"):
        before = {item.name: item for item in getattr(old, f"{noun}s")}
        after = {item.name: item for item in getattr(new, f"{noun}s")}
        changed = tuple(name for name, item in after.items() if name in before and before[name] != item)
        found[f"{noun}s_added"] = tuple(name for name in after if name not in before)
        found[f"{noun}s_removed"] = tuple(name for name in before if name not in after)
        found[f"{noun}s_changed"] = changed
        found[f"{noun}s_unchanged"] = sum(name in before for name in after) - len(changed)
        for name in changed:
            details[f"{noun} {name}"] = dict(_changes(before[name], after[name], ""))
        if noun == "route":
            found["routes_reordered"] = [name for name in before if name in after] != [n for n in after if n in before]
        if noun == "cluster":
            found.update(_endpoints(before, after, changed))
    settings: dict[str, tuple[str, str]] = {}
    for spec in specs(Config).values():
        if spec.name not in ("listeners", "routes", "clusters"):
            one, other = getattr(old, spec.name), getattr(new, spec.name)
            if spec.section is not None:
                settings.update(_changes(one, other, f"{spec.name}."))
            elif one != other:
                settings[spec.name] = (_text(spec.kind.text(one)), _text(spec.kind.text(other)))
    return Diff(**found, settings_changed=settings, details=details)


def _changes(old: Section, new: Section, prefix: str) -> Iterable[tuple[str, tuple[str, str]]]:
    for spec in specs(type(old)).values():
        before, after = getattr(old, spec.name), getattr(new, spec.name)
        if before == after or spec.name == "endpoints":
            continue
        if spec.section is not None and before is not None and after is not None:
            yield from _changes(before, after, f"{prefix}{spec.name}.")
        else:
            yield (
                prefix + spec.name,
                tuple("none" if value is None else _text(spec.kind.text(value)) for value in (before, after)),
            )  # type: ignore[misc]


def _text(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _endpoints(before: Mapping[str, Cluster], after: Mapping[str, Cluster], changed: Iterable[str]) -> dict[str, Any]:
    found: dict[str, dict[str, tuple[str, ...]]] = {"added": {}, "removed": {}, "changed": {}}
    for name in changed:
        one: dict[str, int] = {e.address: e.weight for e in before[name].endpoints}  # type: ignore[union-attr]
        other: dict[str, int] = {e.address: e.weight for e in after[name].endpoints}  # type: ignore[union-attr]
        for verb, addresses in (
            ("added", tuple(a for a in other if a not in one)),
            ("removed", tuple(a for a in one if a not in other)),
            ("changed", tuple(a for a in other if a in one and one[a] != other[a])),
        ):
            if addresses:
                found[verb][name] = addresses
    return {f"endpoints_{verb}": by_cluster for verb, by_cluster in found.items()}
