"""How far a long run is: a bar on a terminal, plain lines elsewhere. Knows no measurement."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_SECONDS = 5.0


class Steps:
    """Context manager counting `total` steps; `say` names what is running, `done` ends one step."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._count = 0
        self._started = time.monotonic()
        self._last_line = 0.0
        self._doing = ""
        self._bar: Progress | None = None

    def __enter__(self) -> Steps:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, doing: str) -> None:
        if self._bar:
            self._bar.update(self._task, description=doing)
        elif doing != self._doing:
            self._line(doing)
        self._doing = doing

    def done(self, result: str = "") -> None:
        self._count += 1
        if self._bar:
            self._bar.update(self._task, completed=self._count)
        elif time.monotonic() - self._last_line > PLAIN_LINE_SECONDS:
            self._line(f"{self._doing}: {result}" if result else self._doing)

    def _line(self, text: str) -> None:
        self._last_line = time.monotonic()
        elapsed = self._last_line - self._started
        self._console.print(f"[{elapsed:5.0f} s, {self._count}/{self._total}] {text}", highlight=False, markup=False)
