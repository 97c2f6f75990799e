"""Transformer prefixes: `/%/io.l5d.port/4141/#/io.l5d.fs/web`. Putting them in front of an id and taking them away.

Source: linkerd Paths.scala. A transformer changes the addresses of a bound name, so the name gets another id and a
client of its own; what the id resolves to is asked without the prefix.
"""

from __future__ import annotations

from .path import Path

TRANSFORMERS = Path.of("%")
_ORIGINS = (b"#", b"$")


def strip_transformers(path: Path) -> Path:
    """The id as its namer gave it: from the first `#` or `$` on, `/` when there is none. Others are not changed."""
    if not path.starts_with(TRANSFORMERS):
        return path
    for index, elem in enumerate(path.elems):
        if elem in _ORIGINS:
            return path.drop(index)
    return Path()


def transformed(transformer: Path, path: Path) -> Path:
    """The id of a bound name after a transformer, say `/io.l5d.port/4141`."""
    return TRANSFORMERS + transformer + path
