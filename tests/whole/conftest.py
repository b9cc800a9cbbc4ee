"""The processes as fixtures, and what holds after each test of the whole.

Lives here: `provider` and `sidecar`, shared by all tests that need nothing special; `start` and `provide` for those
that do. May not live here: the processes themselves (processes).
How it works: every sidecar that a test could have talked to is looked at when the test is over: alive, and no line of
level error in its log (an exception that reached its loop). What it said is shown where the test failed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from tests.whole.processes import Provider, Sidecar

KEY = "sk-llm-proxy-of-the-tests-0001"
_RUNNING: list[Sidecar] = []


@pytest.fixture(scope="session")
def _provider() -> Iterator[Provider]:
    running = Provider()
    yield running
    running.close()


@pytest.fixture(scope="session")
def _sidecar(_provider: Provider) -> Iterator[Sidecar]:
    env = {**_provider.environ(), "LLM_PROXY_KEYS": f"tests={KEY}"}
    running = Sidecar(env)
    _RUNNING.append(running)
    yield running
    running.stop()
    _RUNNING.remove(running)


@pytest.fixture(scope="session")
def _impatient(_provider: Provider) -> Iterator[Sidecar]:
    running = Sidecar({**_provider.environ(), "LLM_PROXY_TIMEOUT_STREAM": "0.5"})
    _RUNNING.append(running)
    yield running
    running.stop()
    _RUNNING.remove(running)


@pytest.fixture
def impatient(_impatient: Sidecar) -> Sidecar:
    """A sidecar before `provider`, without keys, that bears half a second between two events."""
    _impatient.mark()
    return _impatient


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    """A provider for every family; `seen()` holds this test's requests."""
    _provider.mark()
    return _provider


@pytest.fixture
def sidecar(_sidecar: Sidecar) -> Sidecar:
    """A sidecar before `provider`, with the key KEY. `receipts` holds this test's."""
    _sidecar.mark()
    return _sidecar


@pytest.fixture
def start() -> Iterator[Callable[..., Sidecar]]:
    """Start a sidecar with an environment of its own; it ends with the test."""
    mine: list[Sidecar] = []

    def start_one(env: dict[str, str], **more: Any) -> Sidecar:
        sidecar = Sidecar(env, **more)
        mine.append(sidecar)
        _RUNNING.append(sidecar)
        return sidecar

    yield start_one
    for sidecar in mine:
        _RUNNING.remove(sidecar)
        sidecar.stop()
        assert sidecar.may_log_errors or not sidecar.errors, sidecar.tail()


@pytest.fixture
def provide() -> Iterator[Callable[..., Provider]]:
    """A provider of the test's own: `provide("delay=1")`."""
    mine: list[Provider] = []

    def provide_one(default: str = "", **more: Any) -> Provider:
        mine.append(Provider(default, **more))
        return mine[-1]

    yield provide_one
    for running in mine:
        running.close()


@pytest.fixture(autouse=True)
def _no_other_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDKs read these; a test that wants one gives it to the process it starts."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    before = {id(sidecar): len(sidecar.errors) for sidecar in _RUNNING}
    try:
        result = yield
    except BaseException:
        for number, sidecar in enumerate(_RUNNING):
            item.add_report_section("call", f"sidecar {number}", sidecar.tail())
        raise
    for sidecar in _RUNNING:
        new = sidecar.errors[before.get(id(sidecar), 0) :]
        if new and not sidecar.may_log_errors:
            pytest.fail(f"the sidecar logged an error: {new}\n{sidecar.tail()}", pytrace=False)
        if sidecar.process.poll() is not None and not sidecar.may_end:
            pytest.fail(f"the sidecar has ended by itself\n{sidecar.tail()}", pytrace=False)
    return result
