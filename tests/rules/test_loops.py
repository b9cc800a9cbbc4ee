"""Nothing escapes to the event loop unseen: neither from a plain asyncio.run, nor from tests.fakes.loops.run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from tests.fakes import loops
from tests.rules.sources import ROOT

ESCAPES = """
import asyncio
import pytest
import uvloop

def fail():
    raise RuntimeError("seen by nobody")

async def escape():
    asyncio.get_running_loop().call_soon(fail)
    await asyncio.sleep(0)

@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_escape(run):
    run(escape())

def test_meant(loop_errors):
    asyncio.run(escape())
    assert "seen by nobody" in loop_errors.pop()

def test_clean():
    asyncio.run(asyncio.sleep(0))
"""


HANGS = """
import asyncio
import pytest
import uvloop

@pytest.mark.timeout(0.3)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_hang(run):
    run(asyncio.Event().wait())

def test_after():
    uvloop.run(asyncio.sleep(0))
"""


def outcome_of(tests: str, folder: Path) -> str:
    """What pytest says about `tests` with our conftest: its whole output."""
    (folder / "test_inner.py").write_text(tests)
    options = "-q -p tests.conftest -p no:cacheprovider -c pyproject.toml --rootdir".split()
    command = [sys.executable, "-m", "pytest", *options, str(folder), str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=50).stdout


def test_an_exception_in_a_callback_fails_its_test(tmp_path: Path) -> None:
    output = outcome_of(ESCAPES, tmp_path)
    assert output.splitlines()[-1].startswith("2 failed, 2 passed"), output
    assert "seen by nobody" in output


def test_a_hanging_loop_is_ended_and_the_next_test_runs(tmp_path: Path) -> None:
    output = outcome_of(HANGS, tmp_path)
    assert output.splitlines()[-1].startswith("2 failed, 1 passed"), output
    assert output.count("Timeout (>0.3s)") >= 2


def fail() -> None:
    raise RuntimeError("seen by nobody")


async def escape() -> None:
    asyncio.get_running_loop().call_soon(fail)


async def leave_a_task() -> None:
    waiting = asyncio.get_running_loop().create_future()
    task = asyncio.get_running_loop().create_task(asyncio.wait_for(waiting, None))
    await asyncio.sleep(0)
    assert not task.done()


async def forget_a_failed_task() -> None:
    async def failing() -> None:
        fail()

    asyncio.get_running_loop().create_task(failing())
    await asyncio.sleep(0)


async def answer() -> int:
    await asyncio.sleep(0)
    return 42


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop])
@pytest.mark.parametrize(
    ("main", "why"),
    [(escape, "seen by nobody"), (leave_a_task, "tasks left behind"), (forget_a_failed_task, "never retrieved")],
)
def test_run_fails_on_what_is_left_behind(main, why, loop_factory) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(AssertionError, match=why):
        loops.run(main(), loop_factory=loop_factory)


@pytest.mark.parametrize("loop_factory", [None, uvloop.new_event_loop])
def test_run_gives_the_result(loop_factory) -> None:  # type: ignore[no-untyped-def]
    assert loops.run(answer(), loop_factory=loop_factory) == 42
