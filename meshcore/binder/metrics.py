"""How binding goes, as Prometheus text: names, and what of the catalogues or the namerd is stale. Counts nothing itself."""

from __future__ import annotations

from collections.abc import Iterator

from ..metrics import escape_label
from .binder import Binder, SourceRow

_SOURCES = (
    ("mesh_naming_keys", "gauge", "Names and ids that are watched.", "keys"),
    ("mesh_naming_stale_keys", "gauge", "Of them, those whose source does not answer: their last answer stays.", "stale_keys"),
    ("mesh_naming_oldest_stale_seconds", "gauge", "For how long the longest of them has not been answered.", "oldest_stale_s"),
    ("mesh_naming_updates_total", "counter", "Answers of the source.", "updates"),
    ("mesh_naming_failures_total", "counter", "Times that the source could not be asked.", "failures"),
)


def render(binder: Binder) -> str:
    """Lines to put below those of the proxy."""
    return "\n".join(_lines(binder)) + "\n"


def _lines(binder: Binder) -> Iterator[str]:
    counts = binder.counts()
    yield from _family("mesh_bound_names", "gauge", "Names that are followed for the proxy.", [("", counts.names)])
    yield from _family("mesh_names_asked_total", "counter", "Names that the proxy asked for.", [("", counts.asked)])
    yield from _family("mesh_names_told_total", "counter", "Bindings that it was told, changes included.", [("", counts.told)])
    yield from _family("mesh_names_let_go_total", "counter", "Names that nobody used any more.", [("", counts.let_go)])
    rows = binder.sources()
    for name, kind, text, field in _SOURCES:
        yield from _family(name, kind, text, [(_labels(row), getattr(row, field)) for row in rows])


def _family(name: str, kind: str, text: str, samples: list[tuple[str, float]]) -> Iterator[str]:
    if samples:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        yield from (f"{name}{labels} {value:g}" for labels, value in samples)


def _labels(row: SourceRow) -> str:
    return f'{{route="{escape_label(row.route)}",source="{escape_label(row.source)}"}}'
