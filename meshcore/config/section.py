"""The base of every configuration struct: canonical values, rules of one section. Knows no section by name.

A section declares its keys as `name: Annotated[type, Key(kind, doc, why)] = default`. From that one declaration come
the reading and checking of values, the error messages, the effective configuration and the reference page.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import fields, force_setattr

from ..errors import ConfigError, Problem
from .suggest import OTHER_FILES, nearest
from .suggest import hint as nearest_hint
from .values import Bad, Key, Kind, ListKind, MapKind, shown


class SectionError(ConfigError):
    """What is wrong in one section, relative to it, so that the reader of a file can add the place."""

    def __init__(self, label: str, bads: list[Bad], nested: list[Problem]) -> None:
        self.bads = bads
        super().__init__([problem_of(bad, label, ()) for bad in bads] + nested)


def problem_of(bad: Bad, label: str, path: tuple[str | int, ...]) -> Problem:
    """The Problem for a bad value: names the key and the section it stands in."""
    message = bad.message
    if bad.path:
        key = next((str(step) for step in bad.path if isinstance(step, str)), "")
        where = f" in {label}" if label else ""
        message = f"'{key}'{where}: {message}" if key else f"{label}: {message}"
    elif label:
        message = f"{label}: {message}"
    return Problem(message=message, hint=bad.hint, expected=bad.expected, path=(*path, *bad.path), at_key=bad.at_key)


class KeySpec(msgspec.Struct, frozen=True):
    """One key of a section."""

    name: str
    kind: Kind
    default: Any
    required: bool
    doc: str
    why: str

    nests: bool
    """Holds a section or a list of sections."""

    @property
    def section(self) -> type[Section] | None:
        """The section behind this key, when it holds one."""
        return self.kind.section if isinstance(self.kind, SectionKind) else None


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping of the configuration with known keys."""

    noun: ClassVar[str] = ""
    """What one is called in messages: "route"."""

    def __post_init__(self) -> None:
        bads: list[Bad] = []
        nested = Collected()
        for spec in specs(type(self)).values():
            value = getattr(self, spec.name)
            if value is spec.default:
                continue
            if spec.nests:
                canonical = _read_key(spec, value, (spec.name,), self.label(), nested)
                if canonical is _UNSET:
                    canonical = spec.default
            else:
                try:
                    canonical = spec.kind.read(value)
                except Bad as bad:
                    bads.append(bad.under(spec.name))
                    continue
            if canonical is not value:
                force_setattr(self, spec.name, canonical)
        # Rules compare values, so they run only on values that are sound.
        if not bads and not nested.problems:
            bads.extend(self.rules())
        if bads or nested.problems:
            raise SectionError(self.label(), bads, nested.problems)

    def rules(self) -> Iterator[Bad]:
        """What is wrong between the keys of this section."""
        return iter(())

    def label(self) -> str:
        """How messages name this section: `route 'users'`."""
        name = getattr(self, "name", "")
        return f"{self.noun} '{name}'" if isinstance(name, str) and name else self.noun

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists and scalars as a YAML file would have them, without keys at their default."""
        result: dict[str, Any] = {}
        for spec in specs(type(self)).values():
            value = getattr(self, spec.name)
            if spec.required or value != spec.default:
                result[spec.name] = spec.kind.text(value)
        return result


_SPECS: dict[type[Section], dict[str, KeySpec]] = {}


def specs(section: type[Section]) -> dict[str, KeySpec]:
    """The keys of a section in the order of declaration."""
    known = _SPECS.get(section)
    if known is None:
        hints = get_type_hints(section, include_extras=True)
        known = {}
        for field in fields(section):
            annotation = hints[field.name]
            assert get_origin(annotation) is Annotated, f"{section.__name__}.{field.name} has no Key"
            key = next(part for part in get_args(annotation)[1:] if isinstance(part, Key))
            required = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
            if field.default_factory is not msgspec.NODEFAULT:
                default = field.default_factory()
            else:
                default = None if required else field.default
            nests = isinstance(key.kind, SectionKind) or (
                isinstance(key.kind, ListKind) and isinstance(key.kind.item, SectionKind)
            )
            known[field.name] = KeySpec(field.name, key.kind, default, required, key.doc, key.why, nests)
        _SPECS[section] = known
    return known


class SectionKind(Kind):
    """A nested section: an instance, or a mapping of its keys."""

    what = "a mapping"

    def __init__(self, section: type[Section], short: str = "") -> None:
        self.section = section
        self.short = short  # the key that a bare string stands for: "127.0.0.1:80" is {address: "127.0.0.1:80"}

    def text(self, value: Any) -> Any:
        return None if value is None else value.to_dict()

    def describe(self) -> str:
        return f"section [{self.section.__name__.lower()}](#{self.section.__name__.lower()})"


class Collected:
    """Problems found so far, each with its full path."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, bad: Bad, label: str, path: tuple[str | int, ...], got: Any = None) -> None:
        self.problems.append(msgspec.structs.replace(problem_of(bad, label, path), got=got))


# Keys of other sections, for "it belongs in …": filled by types.py.
HOMES: dict[str, str] = {}


def read_section(
    section: type[Section],
    value: Any,
    path: tuple[str | int, ...],
    within: str,
    collected: Collected,
    short: str = "",
) -> Any:
    """Build a section from a mapping, collecting every problem below it. None when it cannot be built.

    `within` names the enclosing section for messages.
    """
    if isinstance(value, section):
        return value
    if short and (isinstance(value, str) or not isinstance(value, dict)):
        # A wrong type in the short form is told in terms of the short form.
        try:
            return section(**{short: specs(section)[short].kind.read(value)})
        except Bad as bad:
            collected.add(bad, within, path, got=value)
        return None
    label = label_of(section, value, path, within)
    if not isinstance(value, dict):
        collected.add(Bad(f"expected a mapping, got {shown(value)}", "", "a mapping"), label, path, got=value)
        return None
    known = specs(section)
    kwargs: dict[str, Any] = {}
    sound = True
    stray: list[str] = []
    for name, item in value.items():
        found = known.get(name) if isinstance(name, str) else None
        if found is None:
            if not path and isinstance(name, str) and name.startswith("x-"):
                continue  # a place for anchors at the top level
            stray.append(name)
            continue
        before = len(collected.problems)
        read = _read_key(found, item, (*path, name), label, collected)
        if len(collected.problems) > before:
            sound = False
        if read is not _UNSET:
            kwargs[name] = read
    meant: set[str] = set()
    for name in stray:
        text = name if isinstance(name, str) else str(name)
        where = f" in {label}" if label else ""
        near = nearest(text, known)
        if near is None and text in HOMES:
            advice = f"it belongs in {HOMES[text]}"
        else:
            advice = nearest_hint(text, known, "keys")
        if not path and text in OTHER_FILES:
            advice = f"{advice.rstrip('?')}; {OTHER_FILES[text]}"
        collected.problems.append(
            Problem(
                message=f"unknown key {text[:80]!r}{where}",
                hint=advice,
                path=(*path, name),
                at_key=True,
                got=text,
                expected=", ".join(known),
            )
        )
        sound = False
        if near is not None and near not in value:
            # Go on as if it were spelled right, so that one typo is one problem.
            meant.add(near)
            quiet = Collected()
            read = _read_key(known[near], value[name], (*path, name), label, quiet)
            if read is not _UNSET and not quiet.problems:
                kwargs[near] = read
    for spec in known.values():
        if spec.required and spec.name not in kwargs and value.get(spec.name) is None and spec.name not in meant:
            problem = "has no value" if spec.name in value else "is missing"
            collected.add(Bad(f"the key '{spec.name}' {problem}", f"it is {spec.kind.what}"), label, path)
            sound = False
    if any(spec.required and spec.name not in kwargs for spec in known.values()):
        return None
    try:
        return section(**kwargs)
    except SectionError as error:
        # Rules over values of which some were dropped would only repeat what is already told.
        if sound:
            for broken in error.bads:
                collected.add(broken, label, path)
        return None


_UNSET: Any = object()


def _read_key(spec: KeySpec, item: Any, path: tuple[str | int, ...], label: str, collected: Collected) -> Any:
    """One value by its kind; _UNSET when it is to stay at its default."""
    kind = spec.kind
    if isinstance(kind, SectionKind):
        if item is None:
            return _UNSET
        result = read_section(kind.section, item, path, label, collected, kind.short)
        return _UNSET if result is None else result
    if isinstance(kind, ListKind) and isinstance(kind.item, SectionKind):
        if item is None:
            return _UNSET
        try:
            if not isinstance(item, (list, tuple)):
                hint = ""
                if isinstance(item, dict) or kind.item.short:
                    hint = "start each entry with '- '"
                raise kind.wrong(item, hint)
            kind.check_count(item)
        except Bad as bad:
            collected.add(bad.under(spec.name), label, path[:-1], got=item)
            return _UNSET
        results = []
        for index, entry in enumerate(item):
            where = "" if "name" in specs(kind.item.section) else label
            result = read_section(kind.item.section, entry, (*path, index), where, collected, kind.item.short)
            if result is not None:
                results.append(result)
        return tuple(results)
    if item is None:
        if spec.default is None and not spec.required or isinstance(kind, (ListKind, MapKind)):
            return _UNSET
        if not spec.required:
            collected.add(Bad(f"the key '{spec.name}' has no value", f"it is {kind.what}", kind.what), label, path)
        return _UNSET
    try:
        return kind.read(item)
    except Bad as bad:
        collected.add(bad.under(spec.name), label, path[:-1], got=item)
        return _UNSET


def label_of(section: type[Section], value: Any, path: tuple[str | int, ...], within: str) -> str:
    """How messages name the section at `path`: by its name, else by its place."""
    if not path:
        return section.noun
    name = value.get("name") if isinstance(value, dict) else None
    if isinstance(path[-1], int):
        if "name" in specs(section) and isinstance(name, str) and name and len(name) <= 80 and name.isprintable():
            return f"{section.noun} '{name}'"
        address = value.get("address") if isinstance(value, dict) else None
        own = (
            f"{section.noun} {address[:80]!r}"
            if isinstance(address, str) and address
            else f"{section.noun} {path[-1] + 1}"
        )
        return f"{own} of {within}" if within else own
    return f"{path[-1]} of {within}" if within and within != "the configuration" else str(path[-1])
