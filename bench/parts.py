"""`--all`: what the report is made of, by one command.

Lives here: its parts, each a run with its own contestants and scenarios. May not live here: measuring; how records
become one (record).
How it works: each part is another process of this program, since a run gives up all cores but one for good; it leaves
a JSON. Whoever is measured in several parts has the rounds of all of them.
Doubted: not every scenario for everybody would take hours, and LiteLLM gives up at the load of most.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
PARTS: tuple[tuple[str, ...], ...] = (
    (
        "--contestants=direct,splice,nginx,haproxy,llm-proxy,sources",
        "--only=memory,memory-tls-upstream,memory-tls-both,unary-1k,unary-64k,short-streams,paced-50,paced,paced-5000"
        ",back-to-back",
    ),
    ("--contestants=llm-proxy", "--only=paced-50,paced-5000"),  # the goal is a tenth, and a single round tells less
    ("--features", "--only=unary-1k,paced"),
    ("--peers", "--only=memory,unary-1k,short-streams,paced-gently"),
)


def measure(options: list[str], folder: Path, say: Callable[[str], None]) -> tuple[list[Path], int]:
    """Measure all parts, with `options` (--rounds, --quick) each; their JSON files in `folder`, and the worst of their
    exit codes. A part that leaves no file has told why."""
    files, code = [], 0
    for number, part in enumerate(PARTS, 1):
        say(f"part {number} of {len(PARTS)}: scripts/bench {' '.join([*part, *options])}")
        file = folder / f"{number}.json"
        command = [sys.executable, "-m", "bench", *part, *options, "--json", str(file)]
        done, is_stopped = _run(command)
        code = max(code, abs(done))
        if file.is_file():
            files.append(file)
        if is_stopped:
            break
    return files, code


def _run(command: list[str]) -> tuple[int, bool]:
    """The exit code of a part, and whether somebody stopped it: Ctrl-C reaches us both, and it writes what it has."""
    process = subprocess.Popen(command, cwd=_CHECKOUT, stdout=subprocess.DEVNULL)
    try:
        return process.wait(), False
    except KeyboardInterrupt:
        return process.wait(), True
