"""Lines of addresses, `host port [* weight]`, as the files of `io.l5d.fs` hold them. Text in, addresses out.

Source: linkerd FsNamer docs and WatchingNamer.scala. Comments begin with `#`.
"""

from __future__ import annotations

import math
import re

from .source import SourceError
from .states import Address, Replicas

_LINE = re.compile(r"(\S+)\s+(\d{1,5})(?:\s*\*\s*(\d+\.?\d*|\.\d+))?")
MOST_ADDRESSES = 100_000


def read_lines(text: str, where: str) -> Replicas:
    """Every address, or SourceError with the first line that is none: half a file would be half a service."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            found.append(read_line(line, f"{where}:{number}"))
    if len(found) > MOST_ADDRESSES:
        raise SourceError(f"{where}: {len(found)} addresses; expected at most {MOST_ADDRESSES}")
    return Replicas.of(found)


def read_line(line: str, where: str) -> Address:
    match = _LINE.fullmatch(line)
    if match is None:
        raise SourceError(f"{where}: got {line[:80]!r}; expected 'host port' or 'host port * weight'")
    port, weight = int(match[2]), float(match[3] or 1)
    if not 0 < port < 65_536:
        raise SourceError(f"{where}: got port {port}; expected 1 to 65535")
    if not math.isfinite(weight):
        raise SourceError(f"{where}: got weight {match[3]}; expected a finite number")
    return Address(match[1].strip("[]"), port, weight)
