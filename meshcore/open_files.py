"""The limit of open files: a program takes all that the system lets it have; what it starts gets what it was given itself.

Shells and systemd give 1,024, for programs that use select(2), and let one raise that to several hundred thousand. A proxy
with 1,024 would refuse its 461st client.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

_given: int | None = None


def take_all() -> int:
    """Raise the soft limit to the hard one. Returns what holds now; -1 stands for no limit."""
    global _given
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        return soft  # the kernel allows less than it says (fs.nr_open was lowered since): as it was
    _given = soft
    return hard


@contextlib.contextmanager
def as_given() -> Iterator[None]:
    """The limit as it was before: for the moment in which another program is started, which may not bear a higher one."""
    if _given is None:
        yield
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_given, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
