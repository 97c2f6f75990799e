"""One entry of a list of kinds, as Linkerd's files have them: its keys read into a struct, or what is wrong. Knows no kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ..config.suggest import hint

S = TypeVar("S", bound=msgspec.Struct)


class BadKey(Exception):
    """A key that nobody knows, or a value that it cannot have; `path` leads to it from the entry."""

    def __init__(self, message: str, path: tuple[str | int, ...], hint: str = "", at_key: bool = False) -> None:
        super().__init__(message)
        self.path = path
        self.hint = hint
        self.at_key = at_key


def read_entry(struct: type[S], keys: Mapping[str, Any]) -> S:
    """The entry without its kind."""
    known = struct.__struct_fields__
    for key in keys:
        if key not in known:
            raise BadKey(f"unknown key '{key}'", (str(key),), hint(str(key), known, "keys"), at_key=True)
    try:
        return msgspec.convert(dict(keys), struct)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        steps = tuple(place.rstrip("`").split("[")[0].split(".")) if place else ()
        raise BadKey(message.replace("`", "'"), steps) from None
