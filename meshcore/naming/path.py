"""Paths: non-empty byte strings in order, `/svc/users`. Knows nothing of wildcards, trees or tables.

Source: finagle Path.scala. An element is bytes, compared byte by byte and as a whole: `/s` begins no `/s#`.
"""

from __future__ import annotations

import msgspec

from .errors import NamingError

# The octets that stand for themselves in a path: letters, digits and _ : . # $ % -
SHOWABLE = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:.#$%-")


class Path(msgspec.Struct, frozen=True):
    """`Path((b"svc", b"users"))`, better `Path.of("svc", "users")` or `read_path("/svc/users")`. `Path()` is `/`."""

    elems: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if b"" in self.elems:
            raise NamingError("an element of a path is not empty")

    @classmethod
    def of(cls, *elements: str | bytes) -> Path:
        """From elements as text (UTF-8; surrogates are the octets they came from) or bytes. Nothing is escaped."""
        return cls(tuple(one.encode(errors="surrogateescape") if isinstance(one, str) else one for one in elements))

    def __len__(self) -> int:
        return len(self.elems)

    def __bool__(self) -> bool:
        return bool(self.elems)

    def __add__(self, other: Path) -> Path:
        return Path(self.elems + other.elems)

    def __str__(self) -> str:
        return "/" + "/".join(map(show_element, self.elems))

    def __repr__(self) -> str:
        return f"Path({str(self)!r})"

    def take(self, count: int) -> Path:
        return Path(self.elems[:count])

    def drop(self, count: int) -> Path:
        return Path(self.elems[count:])

    def starts_with(self, other: Path) -> bool:
        return self.elems[: len(other.elems)] == other.elems

    @property
    def texts(self) -> tuple[str, ...]:
        """The elements as text; octets that are no UTF-8 are replaced."""
        return tuple(one.decode(errors="replace") for one in self.elems)


def show_element(element: bytes) -> str:
    """One element as `read_path` takes it: as it is, or with every octet escaped (finagle Path.showElem)."""
    if SHOWABLE.issuperset(element):
        return element.decode("ascii")
    return "".join(f"\\x{octet:02x}" for octet in element)
