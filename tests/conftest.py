"""What holds for every test.

Lives here: the recorded traffic as fixtures, and the rule that nothing may escape to the event loop unseen.
May not live here: fakes (tests/fakes), anything that one room alone needs (a conftest of its own).
How it works: an exception that reaches a loop's handler is logged by asyncio and uvloop alike, as an error of the
logger "asyncio"; whatever stands there after a test fails that test. A test that means it takes `loop_errors` and
clears the list. Tests that want leaked tasks to fail as well run their coroutine with tests.fakes.loops.run.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from tests import recordings

_LOOP_ERRORS = pytest.StashKey[list[str]]()


class _Listener(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(self.format(record))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    heard = item.stash.setdefault(_LOOP_ERRORS, [])
    listener = _Listener(heard)
    logger = logging.getLogger("asyncio")
    logger.addHandler(listener)
    try:
        result = yield
    finally:
        logger.removeHandler(listener)
    if heard:
        pytest.fail("an exception reached the event loop:\n" + "\n".join(heard), pytrace=False)
    return result


@pytest.fixture
def loop_errors(request: pytest.FixtureRequest) -> list[str]:
    """What reached the loop's handler so far, as text. A test that provokes it looks, then clears the list."""
    return request.node.stash.setdefault(_LOOP_ERRORS, [])


@pytest.fixture(scope="session")
def fixtures_dir() -> Path | None:
    """The folder of recorded provider traffic, or None. Never the only cover of anything (DESIGN 13)."""
    return recordings.FIXTURES if recordings.is_at_hand() else None


@pytest.fixture(scope="session")
def manifest() -> list[dict[str, Any]]:
    """The entries of the recordings' manifest; none where the folder is not at hand."""
    return recordings.recorded()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not recordings.is_at_hand():
        terminalreporter.write_line("Recorded traffic (../shared/fixtures) was not at hand: own transcripts only.")
