"""The program beside a sidecar: started once, signals passed on, its end awaited. Knows nothing of proxies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence

from meshcore import open_files

# What a program may be told by its supervisor; the rest is about this process, or cannot be caught.
FORWARDED = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH,
)  # fmt: skip
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells say it


class Application:
    """One child process with our standard streams. on_end is called from a thread when it has ended."""

    def __init__(self, command: Sequence[str], on_end: Callable[[], None]) -> None:
        self._command = list(command)
        self._on_end = on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._failed: int | None = None

    def start(self) -> None:
        try:
            with open_files.as_given():
                self._process = subprocess.Popen(self._command)
        except OSError as error:
            self._failed = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            raise
        threading.Thread(target=self._wait, name="meshcore-application", daemon=True).start()

    def _wait(self) -> None:
        assert self._process is not None
        # Not Popen.wait: the main thread may ask for the status at the same time.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        self._on_end()

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def signal(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    @property
    def status(self) -> int:
        """As a shell has it: 128 and the signal that ended it, else what it returned."""
        if self._failed is not None:
            return self._failed
        code = self._process.poll() if self._process is not None else None
        return 0 if code is None else 128 - code if code < 0 else code
