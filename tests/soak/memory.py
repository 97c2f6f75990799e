"""Whether this process grows: its resident memory over the second half of a soak."""

import os
import time
from pathlib import Path

TELLING_S = 15.0  # before that, what an allocator fetches at the start is all there is to see


class MemoryUse:
    """Call `sample` at even times."""

    def __init__(self) -> None:
        self.samples_kib: list[int] = []
        self._began_s = self._last_s = time.monotonic()

    def sample(self) -> None:
        self.samples_kib.append(_resident_kib())
        self._last_s = time.monotonic()

    @property
    def growth_percent(self) -> float:
        """From the median of the second half's first fifth to that of its last; 0 when that is too few samples."""
        half = self.samples_kib[len(self.samples_kib) // 2 :]
        fifth = len(half) // 5
        if fifth < 2:
            return 0.0
        first, last = sorted(half[:fifth])[fifth // 2], sorted(half[-fifth:])[fifth // 2]
        return 100.0 * (last - first) / first

    def troubles(self, most_percent: float) -> list[str]:
        """A sanitized build keeps what is freed for a while, on purpose: its memory says nothing, and a short run's neither."""
        if os.environ.get("MESHCORE_ASAN") == "1" or self._last_s - self._began_s < TELLING_S:
            return []
        if self.growth_percent <= most_percent:
            return []
        some = self.samples_kib[:: max(1, len(self.samples_kib) // 20)]
        return [f"memory grew {self.growth_percent:.1f} % in the second half: {some}"]

    def __str__(self) -> str:
        return f"memory {self.samples_kib[0]} -> {self.samples_kib[-1]} KiB ({self.growth_percent:+.1f} % in the second half)"


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise OSError("/proc/self/status: no line VmRSS")
