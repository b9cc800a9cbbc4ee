"""Who is measured.

Lives here: the contestants by name. May not live here: their configurations (servers, sidecar, peers), processes
(arena), load, figures.
How it works: `direct` is the upstream itself, `splice` the floor; all get the same requests.
Doubted: nothing.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

from bench.arena import PLAIN, Absent, Arena, Contestant, Probe, Running, Start, Tls, free_port, python_environment
from bench.servers import start_haproxy, start_haproxy_tls, start_nginx, start_nginx_tls
from bench.sidecar import FEATURES, OTHERS, SIDECAR

__all__ = [
    "CONTESTANTS",
    "FEATURES",
    "PLAIN",
    "Absent",
    "Arena",
    "Contestant",
    "Probe",
    "Running",
    "Start",
    "Tls",
    "free_port",
    "make_key",
    "python_environment",
]


def _start_splice(upstream: int, folder: Path, key: str) -> Start:
    return Start([sys.executable, "-m", "bench.splice", str(upstream)], 0, python_environment())


CONTESTANTS = {
    each.name: each
    for each in (
        Contestant("direct", None, "no proxy: the load asks the upstream"),
        Contestant("splice", _start_splice, "floor: uvloop, bytes forwarded without a look"),
        Contestant(
            "nginx", start_nginx, "1 worker, unbuffered, upstream keep-alive, no log", start_tls=start_nginx_tls
        ),
        Contestant(
            "haproxy", start_haproxy, "1 thread, no delay, upstream keep-alive, no log", start_tls=start_haproxy_tls
        ),
        SIDECAR,
        *(each for each in FEATURES.values() if each is not SIDECAR),
        *OTHERS,
    )
}


def make_key() -> str:
    return secrets.token_hex(16)
