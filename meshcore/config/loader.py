"""From a file, text or plain dicts to a Config. Collects every problem with its place; decides on no value itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError, Problem
from .references import problems_between, warnings_of
from .section import Collected, read_section, specs
from .types import Config, _named
from .values import Bad, shown
from .yaml_source import MAX_TEXT_BYTES, locate, parse

ENVIRONMENT = {"MESHCORE_WORKERS": "workers"}


class Origin:
    """Where the values of a loaded Config come from. Keeps the text, not the tree: places are asked for rarely."""

    def __init__(self, source: str, text: str | None, overrides: Mapping[str, str]) -> None:
        self.source = source
        self.text = text
        self.overrides = dict(overrides)  # top-level key -> "flag" or "env MESHCORE_WORKERS"

    def tree(self) -> Any:
        """The YAML tree with marks; an empty mapping when there is no text."""
        return parse(self.text, self.source)[0] if self.text is not None else {}

    def place(self, problem: Problem, tree: Any = None) -> Problem:
        """The problem with file, line and column."""
        if problem.line:
            return problem
        line, column = locate(self.tree() if tree is None else tree, problem.path, problem.at_key)
        return msgspec.structs.replace(problem, source=self.source, line=line, column=column)


def origin_of(config: Config) -> Origin | None:
    """The origin of a loaded Config; None for one made in Python."""
    origin = config.__dict__.get("_origin")
    return origin if isinstance(origin, Origin) else None


def load(
    path: str | os.PathLike[str],
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read a YAML file. `overrides` are top-level values that win over file and environment (command line flags)."""
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError(Problem(message=f"cannot read the file: {error.strerror or error}", source=source)) from None
    if len(raw) > MAX_TEXT_BYTES:
        raise ConfigError(
            Problem(message="the file is larger than 8 MiB", hint="split it up or shorten it", source=source)
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        raise ConfigError(
            Problem(
                message=f"byte 0x{raw[error.start]:02x} is not UTF-8",
                source=source,
                line=before.count(b"\n") + 1,
                column=len(before) - (before.rfind(b"\n") + 1) + 1,
            )
        ) from None
    return loads(text, source, overrides=overrides, environ=environ)


def loads(
    text: str,
    source: str = "<config>",
    *,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read YAML text. `source` names it in messages."""
    tree, problems = parse(text, source)
    if tree is None and not problems:
        raise ConfigError(
            Problem(message="the configuration is empty", hint="it needs at least listeners", source=source)
        )
    return _build(tree, source, text, problems, overrides or {}, os.environ if environ is None else environ)


def from_dict(value: Mapping[str, Any], source: str = "") -> Config:
    """Read plain dicts and lists. The environment does not count: the program decides."""
    return _build(value if isinstance(value, dict) else dict(value), source, None, [], {}, {})


def read(value: Config | Mapping[str, Any] | str | os.PathLike[str]) -> Config:
    """A Config from what users have: a Config, a dict, YAML text (it has a line break), or a path."""
    if isinstance(value, Config):
        return value
    if isinstance(value, Mapping):
        return from_dict(value)
    if isinstance(value, str) and "\n" in value:
        return loads(value)
    if isinstance(value, (str, Path, os.PathLike)):
        return load(value)
    raise ConfigError(f"a configuration is a Config, a dict, YAML text or a path; got {shown(value)}")


def check(config: Config) -> list[Problem]:
    """Warnings: what is allowed but seldom meant, with places when the configuration came from a file."""
    warnings = warnings_of(config)
    origin = origin_of(config)
    if origin is None or not warnings:
        return warnings
    tree = origin.tree()
    return sorted((origin.place(w, tree) for w in warnings), key=lambda w: (w.line, w.column))


def _build(
    tree: Any,
    source: str,
    text: str | None,
    problems: list[Problem],
    overrides: Mapping[str, Any],
    environ: Mapping[str, str],
) -> Config:
    collected = Collected()
    values = tree
    origins: dict[str, str] = {}
    if isinstance(tree, dict):
        given, origins, bad = _overrides(overrides, environ)
        problems = problems + bad
        if given:
            values = {**tree, **given}
    config = None
    try:
        config = read_section(Config, values, (), "", collected)
    except ConfigError as error:
        between: Sequence[Problem] = error.problems
    else:
        between = ()
    if collected.problems and isinstance(values, dict):
        # Sections that could not be read are missing above: look again with their places kept open.
        between = _between(values)
    collected.problems.extend(between)
    problems = problems + collected.problems
    origin = Origin(source, text, origins)
    if problems:
        raise ConfigError([origin.place(p, tree) if text is not None else _named_source(p, source) for p in problems])
    assert isinstance(config, Config)
    config.__dict__["_origin"] = origin
    return config


def _named_source(problem: Problem, source: str) -> Problem:
    return msgspec.structs.replace(problem, source=source) if source else problem


def _between(values: dict[str, Any]) -> list[Problem]:
    """Problems between sections of a configuration that has others: on those sections that can be read alone."""
    spec = specs(Config)
    lists: dict[str, list[Any]] = {}
    lost: dict[str, set[str]] = {}
    for key in ("listeners", "routes", "clusters"):
        raw = values.get(key)
        section = spec[key].kind.item.section  # type: ignore[attr-defined]
        items: list[Any] = []
        names: set[str] = set()
        for index, entry in enumerate(raw if isinstance(raw, (list, tuple)) else ()):
            item = read_section(section, entry, (key, index), "", Collected())
            if item is not None and not item.name:
                item = _named([item], key[:-1])[0]
                item = msgspec.structs.replace(item, name=f"{key[:-1]}-{index}")
            items.append(item)
            if item is None:
                name = entry.get("name") if isinstance(entry, dict) else None
                names.add(name if isinstance(name, str) else f"{key[:-1]}-{index}" if key == "routes" else "*")
        lists[key] = items
        lost[key] = names
        if raw is None and key not in values:
            # The list itself may stand under a mistyped key: then nothing can be said about its names.
            return []
    admin = values.get("admin")
    admin = read_section(spec["admin"].section, admin, ("admin",), "", Collected()) if isinstance(admin, dict) else None  # type: ignore[arg-type]
    return problems_between(lists["listeners"], lists["routes"], lists["clusters"], admin, lost)


def _overrides(
    overrides: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], list[Problem]]:
    """Values from flags and environment, where each comes from, and what is wrong with them."""
    given: dict[str, Any] = {}
    origins: dict[str, str] = {}
    problems: list[Problem] = []
    for variable, key in ENVIRONMENT.items():
        raw = environ.get(variable)
        if raw and key not in overrides:
            try:
                given[key] = specs(Config)[key].kind.read(
                    int(raw) if raw.isascii() and raw.isdigit() and len(raw) < 10 else raw
                )
                origins[key] = f"env {variable}"
            except Bad as bad:
                problems.append(
                    Problem(message=f"{variable}: {bad.message}", hint=bad.hint, source="environment", got=raw, line=-1)
                )
    for key, value in overrides.items():
        if value is not None:
            given[key] = value
            origins[key] = "flag"
    return given, origins, problems
