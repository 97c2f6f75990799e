"""Who used how much of the machine for a short while: CPU time of every thread there is, where clock ticks are too coarse."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

OWN = "askers"
OTHERS = "others"

Reading = tuple[dict[tuple[str, str], int], float, float]  # nanoseconds by process and thread, our own seconds, stolen milliseconds


class Usage:
    """`groups`: names of those who take part, and their processes; this one is another. OTHERS are all processes besides, and what the
    host of a virtual machine took from it (steal). Reading takes some milliseconds itself."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        self._names = {str(pid): name for name, pids in groups.items() for pid in pids}
        self._groups = (*groups, OWN, OTHERS)

    def now(self) -> Reading:
        found: dict[tuple[str, str], int] = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # ended meanwhile
                for task in os.listdir(process / "task"):
                    with contextlib.suppress(OSError):
                        found[process.name, task] = int((process / "task" / task / "schedstat").read_text().split()[0])
        return found, time.process_time(), _stolen_ms()

    def since(self, before: Reading) -> dict[str, float]:
        """CPU milliseconds of each group; of threads that have ended meanwhile nothing is known."""
        own_s = time.process_time() - before[1]
        used = dict.fromkeys(self._groups, 0.0)
        used[OTHERS] = _stolen_ms() - before[2]
        for key, ns in self.now()[0].items():
            if key[0] != str(os.getpid()):
                used[self._names.get(key[0], OTHERS)] += (ns - before[0].get(key, 0)) / 1e6
        used[OWN] = own_s * 1000
        return {name: round(ms, 1) for name, ms in used.items()}


def _stolen_ms() -> float:
    """Of all cores (proc(5), /proc/stat)."""
    return int(Path("/proc/stat").read_text().split(None, 9)[8]) * 1000 / os.sysconf("SC_CLK_TCK")
