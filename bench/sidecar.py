"""This project as a contestant: with everything on, and with one thing less at a time.

Lives here: the environment that llm-proxy gets, `FEATURES`, whether it is compiled.
May not live here: other programs; starting it (arena).
How it works: everything on means keys, ten limits and budgets, metering, counting, usage asked for, retries, the
ledger, and one line of JSON for each request into a file. Each further contestant is that one with one thing off, and
`bare` is it with all of them off, so the price of a feature is a difference between neighbours of one run.
Doubted: features are not independent: a ledger without a meter has less to write, so prices do not add up to `bare`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from bench import orders
from bench.arena import (
    AUTHORITY,
    CERTIFICATE,
    PLAIN,
    Absent,
    Contestant,
    Probe,
    Start,
    Tls,
    free_port,
    python_environment,
)

LEDGER = "llm-proxy.db"

# Of every kind, and never met. No budget in dollars: there is no price for a server of one's own.
_LIMITS = (
    "key bench: rps=1G rpd=1G tpm=1G otpm=1G concurrent=1M 900Gtokens/day 900Gtokens/total;all: rpm=1G; model *: tpm=1G"
)
_MANY_KEYS = 1000
_CHECKOUT = Path(__file__).resolve().parent.parent


@cache
def compiled() -> Path | None:
    """What scripts/compile has made, unless that is old: as scripts/run finds it."""
    found = subprocess.run([_CHECKOUT / "scripts" / "compiled"], stdout=subprocess.PIPE, text=True, check=False)
    return Path(found.stdout.strip()) if found.returncode == 0 else None


def environment(tls: Tls, upstream: int, folder: Path, key: str) -> dict[str, str]:
    scheme = "https" if tls.upstream else "http"
    settings = {
        "LLM_PROXY_PROVIDER_BENCH": f"openai+{scheme}://127.0.0.1:{upstream}/v1",
        "LLM_PROXY_DEFAULT_PROVIDER": "bench",
        "LLM_PROXY_KEYS": f"bench={key}",
        "LLM_PROXY_LIMITS": _LIMITS,
        "LLM_PROXY_LOG": "json",
        # 5,000 streams are more than one sidecar is meant to have; the rest is as everybody gets it.
        "LLM_PROXY_POOL_CONNECTIONS": "16384",
    }
    if tls.upstream:
        settings["LLM_PROXY_UPSTREAM_CA"] = str(folder / AUTHORITY)
    if tls.client:
        settings["LLM_PROXY_TLS_CERT"] = settings["LLM_PROXY_TLS_KEY"] = str(folder / CERTIFICATE)
    return settings


def start(settings: Mapping[str, str]) -> Start:
    """llm-proxy with these and two addresses."""
    port, admin = free_port(), free_port()
    listeners = {
        "LLM_PROXY_LISTEN": f"127.0.0.1:{port}",
        "LLM_PROXY_ADMIN_LISTEN": f"127.0.0.1:{admin}",
    }
    command = [sys.executable, "-m", "proxy", "serve"]
    found = python_environment({**listeners, **settings})
    if (folder := compiled()) is not None:
        found["PYTHONPATH"] = os.pathsep.join([str(folder), found["PYTHONPATH"]])
    return Start(command, port, found, Probe(admin, "/healthz"))


def _from_sources(upstream: int, folder: Path, key: str) -> Start:
    begun = start(environment(PLAIN, upstream, folder, key))
    return begun._replace(environment={**begun.environment, "PYTHONPATH": str(_CHECKOUT)})


def _with(changes: Mapping[str, str]) -> Callable[[int, Path, str], Start]:
    return lambda upstream, folder, key: start({**environment(PLAIN, upstream, folder, key), **changes})


def _with_tls(tls: Tls, upstream: int, folder: Path, key: str) -> Start:
    return start(environment(tls, upstream, folder, key))


def _with_many_keys(upstream: int, folder: Path, key: str) -> Start:
    keys = orders.keys(key, _MANY_KEYS)
    changes = {
        "LLM_PROXY_KEYS": ",".join(f"bench{number or ''}={each}" for number, each in enumerate(keys)),
        "LLM_PROXY_LIMITS": ";".join(
            [_LIMITS] + [f"key bench{number}: rps=1G tpm=1G 900Gtokens/day" for number in range(1, _MANY_KEYS)]
        ),
    }
    return _with(changes)(upstream, folder, key)


def _as_it_was(upstream: int, folder: Path, key: str) -> Start:
    checkout = os.environ.get("BENCH_BEFORE", "")
    if not Path(checkout, "proxy", "__main__.py").is_file():
        raise Absent("set BENCH_BEFORE to a checkout of the version to compare with (git worktree add DIR COMMIT)")
    begun = start(environment(PLAIN, upstream, folder, key))
    return begun._replace(environment={**begun.environment, "PYTHONPATH": str(Path(checkout).resolve())})


# What is off in each; limits of a key go with the keys.
_OFF: dict[str, dict[str, str]] = {
    "limits": {"LLM_PROXY_LIMITS": ""},
    "meter": {"LLM_PROXY_METER": "off"},
    "usage": {"LLM_PROXY_INCLUDE_USAGE": "off"},
    "count": {"LLM_PROXY_COUNT": "off"},
    "ledger": {"LLM_PROXY_DB": "off"},
    "keys": {"LLM_PROXY_AUTH": "off", "LLM_PROXY_KEYS": "", "LLM_PROXY_LIMITS": "all: rpm=1G; model *: tpm=1G"},
    "log": {"LLM_PROXY_LOG": "off"},
    "retries": {"LLM_PROXY_RETRIES": "0"},
    "identity": {"LLM_PROXY_IDENTITY": "off"},
}
_ABOUT = {
    "limits": "limits and budgets",
    "meter": "reading usage from answers",
    "usage": "asking streams for usage",
    "count": "counting the text of streams that report none",
    "ledger": "a row for each request",
    "keys": "keys, and limits of keys",
    "log": "a line for each request",
    "retries": "retries",
    "identity": "asking streams to be uncompressed",
}


def _bare() -> dict[str, str]:
    settings: dict[str, str] = {}
    for changes in _OFF.values():
        settings |= changes
    return settings | {"LLM_PROXY_LIMITS": ""}


SIDECAR = Contestant(
    "llm-proxy",
    _with({}),
    "this project, everything on: keys, limits, metering, ledger, log",
    checks_keys=True,
    start_tls=_with_tls,
    ledger=LEDGER,
)

# All on, one thing off at a time, all off.
FEATURES: dict[str, Contestant] = {
    each.name: each
    for each in (
        SIDECAR,
        *(
            Contestant(
                f"without-{name}",
                _with(changes),
                f"this project without {_ABOUT[name]}",
                by_default=False,
                checks_keys=name != "keys",
                ledger="" if name == "ledger" else LEDGER,
            )
            for name, changes in _OFF.items()
        ),
        Contestant("bare", _with(_bare()), "this project with all of these off: only relaying", by_default=False),
    )
}

_UNMETERED = {"LLM_PROXY_METER": "off", "LLM_PROXY_DB": "off", "LLM_PROXY_LIMITS": ""}

OTHERS = (
    Contestant("sources", _from_sources, "this project, not compiled", False, True, ledger=LEDGER),
    Contestant("unmetered", _with(_UNMETERED), "this project without metering, ledger, limits", False, True),
    Contestant("unlimited", _with(_OFF["limits"]), "this project without limits and budgets", False, True),
    Contestant(
        "many-keys",
        _with_many_keys,
        f"this project with {_MANY_KEYS:,} keys",
        by_default=False,
        checks_keys=True,
        keys=_MANY_KEYS,
        ledger=LEDGER,
    ),
    Contestant(
        "before",
        _as_it_was,
        "llm-proxy as it was: the checkout in BENCH_BEFORE",
        by_default=False,
        checks_keys=True,
        ledger=LEDGER,
    ),
)
