"""The program beside a sidecar: a real child process."""

import signal
import sys
import threading

import pytest

from meshcore.cli.application import Application


def started(code: str) -> tuple[Application, threading.Event]:
    ended = threading.Event()
    application = Application([sys.executable, "-c", code], ended.set)
    application.start()
    return application, ended


def test_its_status_is_told_when_it_ends():
    application, ended = started("raise SystemExit(7)")
    assert ended.wait(20)
    assert application.has_ended and application.status == 7


def test_a_signal_reaches_it_and_its_death_by_one_is_told_as_a_shell_would():
    application, ended = started("import time; time.sleep(60)")
    assert not application.has_ended
    application.signal(signal.SIGTERM)
    assert ended.wait(20)
    assert application.status == 128 + signal.SIGTERM


def test_a_program_that_is_not_there_says_so():
    application = Application(["/nonexistent/program"], lambda: None)
    with pytest.raises(FileNotFoundError):
        application.start()
    assert application.status == 127 and application.has_ended
