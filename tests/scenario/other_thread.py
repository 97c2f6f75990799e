"""A signal that the kernel hands to a thread that is not Python's main one, as it may: it wakes nobody who waits for a lock."""

import ctypes
import os
from pathlib import Path


def signal_another_thread(pid: int, number: int) -> None:
    """Send it to a thread that is not the first (tgkill(2))."""
    other = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.tgkill(pid, other, number):
        raise OSError(ctypes.get_errno(), f"tgkill {pid} {other}")
