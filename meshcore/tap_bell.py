"""A bell between those who write what a tap sees and the one who reads it: an eventfd. Knows no event.

It is rung once for a reader that has nothing left and waits; who gathers or reads costs the writer no system call.
"""

from __future__ import annotations

import os
import select


class Bell:
    """One reader's. Its descriptor lives as long as this object."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def hush(self) -> None:
        """Take note that it rang: it is silent until it is rung again."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass

    def wait(self, timeout_s: float | None) -> bool:
        """Until it rings (True) or the time is over; None: for ever."""
        looking = select.poll()
        looking.register(self.fd, select.POLLIN)
        if not looking.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000):
            return False
        self.hush()
        return True

    def __del__(self) -> None:
        os.close(self.fd)
