"""The last line of a conformance run: the score."""

from __future__ import annotations

from tests.conformance.runner import Score
from tests.scenario.proxies import chosen_proxy


def pytest_configure(config):
    config.conformance_score = Score()


def pytest_terminal_summary(terminalreporter, config):
    if config.conformance_score.total:
        terminalreporter.write_line(f"conformance of {chosen_proxy()}: {config.conformance_score}")
