"""The system namer: paths below `/$/`. Which class answers, and the addresses; rewriting classes are in `rewriters`.

Source: finagle Namer.global; linkerd rinet.scala, status.scala.
"""

from __future__ import annotations

from collections.abc import Callable

from .answers import Answer, Bound, Failed
from .path import Path
from .rewriters import REWRITERS
from .tree import Empty, Fail, Leaf, NameTree, Neg

SYSTEM = b"$"
LARGEST_PORT = 65535
_NEG: NameTree[Bound] = Neg()


def ask_system(elems: tuple[bytes, ...]) -> Answer:
    """What `/$/…` says of a path; Neg for a path that does not begin so."""
    if not elems or elems[0] != SYSTEM:
        return _NEG
    if len(elems) < 2:
        return _NEG
    kind = elems[1]
    if kind in (b"inet", b"fixedinet"):
        return _inet(elems)
    if kind == b"fail":
        return Fail()
    if kind == b"nil":
        return Empty()
    rest = elems[2:]
    if (rewrite := REWRITERS.get(kind)) is not None:
        # Also an empty rest: a rewriter wants at least one element.
        rewritten = rewrite(rest) if rest else None
        return _NEG if rewritten is None else Leaf(Path(rewritten))
    if (bind := _BINDERS.get(kind)) is not None:
        return bind(elems, rest)
    return Failed(f"no namer of that kind: {Path(elems)}")


def _inet(elems: tuple[bytes, ...]) -> Answer:
    """`/$/inet/host/port/…`, else `/$/inet/port/…` on this machine. `/$/fixedinet` resolves once; the id tells."""
    if len(elems) > 3 and is_port(elems[3]):
        return _bound(elems, 4)
    if len(elems) > 2 and is_port(elems[2]):
        return _bound(elems, 3)
    kind = Path(elems[:2])
    return Failed(f"no namer of that kind: {Path(elems)} is neither {kind}/host/port nor {kind}/port")


def _rinet(elems: tuple[bytes, ...], rest: tuple[bytes, ...]) -> Answer:
    """`/$/io.buoyant.rinet/port/host/…`: inet with the port first."""
    if len(rest) < 2:
        return _NEG
    return _bound(elems, 4) if is_port(rest[0]) else Failed(f"{Path(elems)}: {Path(rest[:1])} is no port number")


def _status(elems: tuple[bytes, ...], rest: tuple[bytes, ...]) -> Answer:
    """`/$/io.buoyant.http.status/404/…`: a service that answers with this status. 100 to 599, with a plus as Java reads it."""
    digits = rest[0].removeprefix(b"+") if rest else b""
    if not digits.isdigit() or len(digits) > 9 or not 100 <= int(digits) <= 599:
        return _NEG
    return _bound(elems, 3)


_BINDERS: dict[bytes, Callable[[tuple[bytes, ...], tuple[bytes, ...]], Answer]] = {
    b"io.buoyant.rinet": _rinet,
    b"io.buoyant.http.status": _status,
}


def status_of(bound: Bound) -> int | None:
    """The status that a bound name stands for, None for one with addresses."""
    elems = bound.id.elems
    return int(elems[2]) if len(elems) == 3 and elems[:2] == (SYSTEM, b"io.buoyant.http.status") else None


def is_port(element: bytes) -> bool:
    # bytes.isdigit is ASCII only.
    return element.isdigit() and len(element) <= 9 and int(element) <= LARGEST_PORT


def _bound(elems: tuple[bytes, ...], count: int) -> NameTree[Bound]:
    return Leaf(Bound(Path(elems[:count]), Path(elems[count:])))
