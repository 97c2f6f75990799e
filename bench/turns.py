"""Who measures when: one at a time on one machine, and on request ahead of what else runs there."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def first_in_line(wanted: bool, say: Callable[[str], object] = print) -> Iterator[None]:
    """Raises the priority of this process and all it starts, on a machine that has other work; needs root.

    Everything measured rises alike, and the kernel's work for it is charged as before; only the waiting for
    the processor and most of the pollution of the cache go away.
    """
    # With autogroups a session shares the processor as one, and nice counts only inside it.
    group = Path("/proc/self/autogroup")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    group_before = group.read_text().split()[-1] if wanted and group.exists() else ""
    try:
        if wanted:
            os.setpriority(os.PRIO_PROCESS, 0, -15)
            if group_before:
                group.write_text("-15")
    except OSError as error:
        say(f"cannot go first ({error.strerror}); measuring at the usual priority")
    try:
        yield
    finally:
        if wanted and group_before:  # it outlives this process: the shell is in it too
            with suppress(OSError):
                group.write_text(group_before)
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, before)
