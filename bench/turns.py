"""One measurement at a time on one machine: two at once would measure each other."""

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
