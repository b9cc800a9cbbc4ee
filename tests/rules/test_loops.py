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


def test_an_exception_in_a_callback_fails_its_test(tmp_path: Path) -> None:
    (tmp_path / "test_escape.py").write_text(ESCAPES)
    options = [
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        "pyproject.toml",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1].startswith("2 failed, 2 passed"), done.stdout
    assert "seen by nobody" in done.stdout


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
