"""What holds for every test.

Lives here: the recorded traffic as fixtures, and the rule that nothing may escape to the event loop unseen.
May not live here: fakes (tests/fakes), anything that one room alone needs (a conftest of its own).
How it works: an exception that reaches a loop's handler is logged by asyncio and uvloop alike, as an error of the
logger "asyncio"; whatever stands there after a test fails that test. A test that means it takes `loop_errors` and
clears the list. Tests that want leaked tasks to fail as well run their coroutine with tests.fakes.loops.run.
A test that takes too long is ended by pytest-timeout, whose exception uvloop swallows: such a loop is stopped instead.
What no signal can end (the interpreter's lock held in C) the faulthandler setting in pyproject.toml ends, with all.
Hypothesis draws the same examples each time, and is as slow as the machine is: the first text takes it 1.4 s.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_timeout  # type: ignore[import-untyped]
import uvloop
from hypothesis import HealthCheck, settings

from proxy import outcome
from tests import recordings

settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

_LOOP_ERRORS = pytest.StashKey[list[str]]()
_LAST_CALL = 5.0  # seconds that a stopped loop has to close before it is stopped again


class _Listener(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._heard = heard
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(self.format(record))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what was compiled, tests that need the sources are left out."""
    if outcome.__file__.endswith(".py"):
        return
    left_out = [item for item in items if item.get_closest_marker("sources")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    heard = item.stash.setdefault(_LOOP_ERRORS, [])
    listener = _Listener(heard)
    logger = logging.getLogger("asyncio")
    logger.addHandler(listener)
    try:
        result = yield
    except Exception as error:
        # Often it is what the loop heard that explains the failure.
        for each in heard:
            error.add_note(f"The event loop heard: {each}")
        raise
    finally:
        logger.removeHandler(listener)
    if heard:
        pytest.fail("an exception reached the event loop:\n" + "\n".join(heard), pytrace=False)
    return result


def pytest_timeout_set_timer(item: pytest.Item, settings: pytest_timeout.Settings) -> bool | None:
    if settings.method != "signal":
        return None  # pytest-timeout's own way

    def expire(signum: int, frame: object) -> None:
        loop = asyncio._get_running_loop()
        if loop is None or not isinstance(loop, uvloop.Loop):
            pytest_timeout.timeout_sigalrm(item, settings)
            return
        tasks = "\n".join(map(repr, asyncio.all_tasks(loop)))
        item.stash[_LOOP_ERRORS].append(
            f"Timeout (>{settings.timeout}s), the loop was stopped while there were:\n{tasks}"
        )
        signal.setitimer(signal.ITIMER_REAL, _LAST_CALL)
        loop.stop()

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.stash.setdefault(_LOOP_ERRORS, [])
    item.cancel_timeout = cancel  # type: ignore[attr-defined]  # where pytest-timeout looks for it
    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True


@pytest.fixture
def loop_errors(request: pytest.FixtureRequest) -> list[str]:
    """What reached the loop's handler so far, as text. A test that provokes it looks, then clears the list."""
    heard: list[str] = request.node.stash.setdefault(_LOOP_ERRORS, [])
    return heard


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
