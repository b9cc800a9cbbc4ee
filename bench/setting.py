"""What every scenario works with: sizes, the contestant before the upstream, figures out of samples.

Lives here: `Sizes` in full and in quick runs, `Bench`, `Figures`, CPU and latency figures of a sample, `Reuse`.
May not live here: scenarios; how load is made (load), how figures of rounds are combined (report), starting anything.
How it works: a `Bench` is one contestant with all that is needed to measure it; `over` gives the same one with TLS.
Figures are a flat dict of numbers by name; the name ends with the unit.
Doubted: nothing.
"""

from __future__ import annotations

import dataclasses
import json
import socket
from dataclasses import dataclass
from typing import NamedTuple

from bench import orders
from bench.arena import Running, Tls
from bench.client import Ask, Cost, Sample
from bench.machine import machine_busy, own_cpu_ns, process_cpu_ns, tree_cpu_ns, tree_rss_bytes, tree_wakes
from bench.orders import Order


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything. Seconds are those of the measured window."""

    unary_connections: int = 16
    unary_seconds: float = 1.0
    unary_large_seconds: float = 0.6
    unary_rate: float = 6000.0  # requests a second, of everybody alike
    latency_rate: float = 1000.0  # requests a second: well below what any contestant here can do
    latency_seconds: float = 0.8
    stream_rate: float = 500.0  # short streams a second
    stream_events: int = 8
    paced_streams: int = 200
    paced_rate: int = 50
    paced_seconds: float = 1.5
    burst_events: int = 100_000
    idle_streams: int = 800
    good_rate: float = 500.0  # requests a second with a good key, beside
    wrong_rate: float = 10_000.0  # with wrong keys, over
    wrong_connections: int = 50
    wrong_seconds: float = 2.0
    streams_share: float = 1.0  # of the streams that a scenario is named for
    tls_paced_rate: int = 10
    slow_readers: int = 50
    slow_events: int = 30_000  # 9 MB each: more than all buffers on the way
    probe_rate: float = 100.0


FULL = Sizes()
QUICK = Sizes(
    unary_seconds=0.25,
    unary_large_seconds=0.2,
    latency_seconds=0.25,
    paced_streams=50,
    paced_rate=20,
    paced_seconds=0.5,
    burst_events=30_000,
    idle_streams=200,
    wrong_seconds=0.5,
    streams_share=0.1,
    slow_readers=20,
)


class Figures(NamedTuple):
    """What one measurement gave: numbers by name, and what went wrong. `skipped`: why it was not made."""

    numbers: dict[str, float]
    errors: list[str]
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """One contestant in front of the upstream, ready to be measured."""

    running: Running
    upstream: Running
    key: str
    sizes: Sizes

    def ask(self, order: Order, key: str = "", size: int = orders.BODY_BYTES) -> Ask:
        """`key`: another one than clients usually show. `size`: of the request's body."""
        who = self.running.contestant
        request = orders.request(
            order,
            f"127.0.0.1:{self.running.port}",
            key or self.key,
            path=who.path,
            headers=who.headers,
            size=size,
        )
        return Ask.of(request, order, who.exact, self.running.client_tls)

    def over(self, tls: Tls) -> Bench:
        """The same contestant with TLS on these sides. Raises Absent if it has none."""
        return dataclasses.replace(self, running=self.running.twin(tls))

    def read_cost(self) -> Cost:
        pid = self.running.pid
        return Cost(
            tree_cpu_ns(pid) if pid else 0,
            process_cpu_ns(self.upstream.pid),
            own_cpu_ns(),
            sum(machine_busy()),
            tree_wakes(pid) if pid else 0,
        )

    def rss(self) -> int:
        return tree_rss_bytes(self.running.pid) if self.running.pid else 0

    def finish_streams(self) -> int:
        """Ends all paced streams whose end was left open; how many events they had."""
        return ask_upstream(self.upstream.port, "finish")["events"]


def ask_upstream(port: int, what: str) -> dict[str, int]:
    """`stats`, or `finish`."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(f"GET /{what} HTTP/1.1\r\nhost: upstream\r\n\r\n".encode())
        answer = link.recv(4096)
    numbers: dict[str, int] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return numbers


def percentile(values: list[float], share: float) -> float:
    values.sort()
    return values[min(len(values) - 1, int(len(values) * share))]


def cpu_figures(sample: Sample, cores: int = 2) -> dict[str, float]:
    """CPU microseconds per unit of each party, and how much of the window others on this machine worked."""
    if not sample.units or not sample.seconds:
        return {}
    cost = sample.cost
    ours = cost.contestant + cost.upstream + cost.load
    return {
        "cpu_us": cost.contestant / sample.units / 1e3,
        "upstream_us": cost.upstream / sample.units / 1e3,
        "load_us": cost.load / sample.units / 1e3,
        "per_second": sample.units / sample.seconds,
        "contestant_share": cost.contestant / sample.seconds / 1e9,
        "rest_share": (cost.upstream + cost.load) / sample.seconds / 1e9,
        "wakes": cost.wakes / sample.units,
        "others_share": max(0.0, (cost.machine - ours) / sample.seconds / 1e9 / cores),
    }


QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


def quantiles(name: str, values: list[float]) -> dict[str, float]:
    return {f"{name}_{word}_us": percentile(values, share) for word, share in QUANTILES.items()} if values else {}


def latency_figures(sample: Sample) -> dict[str, float]:
    """Quantiles of whatever was timed, microseconds."""
    figures: dict[str, float] = {}
    for name in ("first_byte", "first_event", "transit", "gap"):
        figures |= quantiles(name, getattr(sample, name))
    return figures


def below(rate: float, most: float) -> float:
    """The rate to take latency at: the usual one, or half of the most that this contestant can do."""
    return min(rate, max(1.0, most / 2))


class Reuse:
    """Watches whether upstream connections are reused: at most one new one per client connection, and a few."""

    def __init__(self, bench: Bench, clients: int) -> None:
        self._port = bench.upstream.port
        self._allowed = clients + clients // 10 + 2
        self._before = ask_upstream(self._port, "stats")["connections"]

    def judge(self, sample: Sample, numbers: dict[str, float]) -> None:
        opened = ask_upstream(self._port, "stats")["connections"] - self._before
        numbers["upstream_connections"] = opened
        if opened > self._allowed:
            sample.fail(f"{opened} new upstream connections where {self._allowed} would do: no reuse")
