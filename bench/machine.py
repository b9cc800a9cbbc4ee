"""The machine: its cores, what process trees cost on it, what is installed.

Lives here: reading /proc and the CPU clocks, pinning, versions.
May not live here: what is measured and why.
How it works: a process's CPU clock (clock_getcpuclockid(3)) counts nanoseconds of user and system time over all its
threads, ended ones included; a tree is the sum over a process and its descendants, plus what it reaped.
Doubted: time in interrupts is charged to whoever runs; on loopback that is mostly the sender, as it should be.
"""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2  # the kernel's number for "user and system, in ns" in a process clock id


def own_cpu_ns() -> int:
    return time.process_time_ns()


def process_cpu_ns(pid: int) -> int:
    """User and system time of all threads of `pid` since its start. 0 if it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0


def tree(pid: int) -> list[int]:
    """`pid` and its living descendants."""
    pids = [pid]
    for each in pids:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            try:
                pids.extend(int(child) for child in children.read_text().split())
            except OSError:
                continue
    return pids


def tree_cpu_ns(pid: int) -> int:
    """CPU time of `pid`, its living descendants, and the children that they reaped (those in clock ticks)."""
    return sum(process_cpu_ns(each) + _reaped_ns(each) for each in tree(pid))


def _reaped_ns(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[13]) + int(fields[14])) * _TICK_NS  # cutime, cstime: fields 16 and 17 of proc(5)


def tree_rss_bytes(pid: int) -> int:
    """Resident memory of `pid` and its descendants; pages that they share are counted for each."""
    total = 0
    for each in tree(pid):
        try:
            pages = int(Path(f"/proc/{each}/statm").read_text().split()[1])
        except OSError:
            continue
        total += pages * resource.getpagesize()
    return total


def tree_wakes(pid: int) -> int:
    """How often the threads of `pid` and its descendants went to sleep of their own will (and woke again)."""
    total = 0
    for each in tree(pid):
        for status in Path(f"/proc/{each}/task").glob("*/status"):
            try:
                total += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split("\n")[0])
            except (OSError, ValueError):
                continue
    return total


class Busy(NamedTuple):
    """Nanoseconds that all cores together worked, and that the hypervisor took away, since boot."""

    worked: int
    stolen: int


def machine_busy() -> Busy:
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields
    return Busy((user + nice + system + irq + softirq) * _TICK_NS, steal * _TICK_NS)


class Cores(NamedTuple):
    """Where the contestant runs, and where the upstream and the load run. The same core if there is only one."""

    contestant: int
    rest: int

    @property
    def is_shared(self) -> bool:
        return self.contestant == self.rest


def choose_cores() -> Cores:
    available = sorted(os.sched_getaffinity(0))
    return Cores(available[0], available[1 if len(available) > 1 else 0])


def raise_file_limit() -> None:
    """Contestants inherit it: 5,000 streams need 10,000 descriptors in a proxy."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def describe_machine() -> dict[str, str | int]:
    model = "unknown"
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return {"cpu": model, "cores": len(os.sched_getaffinity(0)), "kernel": platform.release()}


def versions(is_compiled: bool = False) -> dict[str, str]:
    """What could change the figures: interpreter, packages, nginx, the commit of this project and whether that is
    compiled."""
    found = {"python": platform.python_version()}
    for name in ("uvloop", "httptools", "msgspec", "orjson"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    nginx = _first_line(["nginx", "-v"])
    if nginx:
        found["nginx"] = nginx.rpartition("/")[2]
    haproxy = _first_line(["haproxy", "-v"]).split()
    if haproxy[2:]:
        found["haproxy"] = haproxy[2]
    commit = _first_line(["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"])
    if commit:
        found["llm-proxy"] = f"{commit}, {'compiled' if is_compiled else 'sources'}"
    return found


def _first_line(command: list[str]) -> str:
    """What a command says, on either stream; empty if it is absent or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().split("\n")[0] if done.returncode == 0 else ""
