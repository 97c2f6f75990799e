"""Manifests as commands take and give them: files, folders, standard input; the text out, the report beside it. Changes none."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import msgspec

from controlplane.manifests.injecting import Report
from controlplane.manifests.nodes import MAX_TEXT_BYTES
from meshcore.errors import ConfigError, Problem

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
BOM = "\ufeff"


def each_changed(paths: Sequence[str], change: Callable[[str, str], tuple[str, list[Report]]], as_json: bool) -> None:
    """Every text through `change` to stdout, the reports to stderr. Nothing is written when one of them fails."""
    parts: list[str] = []
    reports: list[Report] = []
    for source, text in _texts(paths):
        bom = BOM if text.startswith(BOM) else ""
        fresh, told = change(text.removeprefix(BOM), source)
        if parts:
            parts.append(("" if parts[-1].endswith("\n") else "\n") + ("" if fresh.startswith("---") else "---\n"))
        parts.append(bom + fresh)
        reports += told
    sys.stdout.flush()
    sys.stdout.buffer.write("".join(parts).encode())
    sys.stdout.buffer.flush()
    if as_json:
        click.echo(json.dumps({"resources": [msgspec.to_builtins(one) for one in reports]}, indent=2, ensure_ascii=False), err=True)
        return
    for one in reports:
        where = f"{one.namespace}/" if one.namespace else ""
        title = f"{(one.kind or 'document').lower()} {where}{one.name}".rstrip()
        click.echo(f"{title} {one.done}" + (f": {one.why}" if one.why else ""), err=True)


def _texts(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        if path == "-":
            yield "<stdin>", _decoded(sys.stdin.buffer.read(MAX_TEXT_BYTES + 1), "<stdin>")
            continue
        place = Path(path)
        files = sorted(one for one in place.rglob("*") if one.suffix in SUFFIXES and one.is_file()) if place.is_dir() else [place]
        if not files:
            raise ConfigError(Problem(message="no manifests here", hint=f"expected {', '.join(sorted(SUFFIXES))}", source=path))
        for file in files:
            with file.open("rb") as opened:
                yield str(file), _decoded(opened.read(MAX_TEXT_BYTES + 1), str(file))


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError(Problem(message=f"larger than {MAX_TEXT_BYTES} bytes", hint="split it up", source=source))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(Problem(message=f"byte 0x{data[error.start]:02x} is not UTF-8", source=source, line=line, column=1)) from None
