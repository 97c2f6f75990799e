"""Who measures when: one at a time on one machine, and on request ahead of what else runs there."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def my_turn(say: Callable[[str], object] = print) -> Iterator[None]:
    """Waits until no other bench of this user runs; holds the turn until the block ends."""
    path = Path(tempfile.gettempdir()) / f"meshcore-bench-{os.getuid()}.lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another measurement is running here; waiting for it to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # closing the file gives the turn back, also when the process dies


def go_first() -> bool:
    """Raises the priority of this process and all it starts, on a machine that has other work; needs root.

    Everything measured rises alike, and the kernel's work for it is charged as before; only the waiting for
    the processor and most of the cache's pollution go away.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    except PermissionError:
        return False
    return True
