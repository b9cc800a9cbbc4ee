"""What can be said to the commands; and that they are the ones users have, with their exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.ledger.reader import GROUPINGS
from tests.accounts.stage import give
from tests.ledger.filled import fill

LEFT = 128 + signal.SIGPIPE  # whoever read has left, as shells count
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("command", ["usage", "tail", "prices", "ledger", "keys", "models"])
def test_every_command_is_one_of_the_program_and_explains_itself(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert f"usage: llm-proxy {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["usage", "--by", "colour"],
        ["usage", "--by", ""],
        ["usage", "--json", "--csv"],
        ["usage", "--seconds", "0"],
        ["usage", "--seconds", "nan"],
        ["tail", "-n", "-1"],
        ["tail", "-n", "x"],
        ["tail", "-n", "1000000"],
        ["ledger"],
        ["ledger", "vacuum"],
        ["ledger", "export", "--format", "xml"],
    ],
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage:" in capsys.readouterr().err


def test_every_grouping_can_be_asked_for_and_is_named_in_the_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fill(tmp_path / "a.db", {})
    assert give("usage", "--db", path, "--by", ",".join(GROUPINGS).upper() + ", ").code == 0
    assert main(["usage", "--help"]) == 0
    text = capsys.readouterr().out
    assert [name for name in GROUPINGS if name not in text] == []


def test_the_commands_run_on_the_real_clock_and_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_PROXY_DB", fill(tmp_path / "a.db", {}))
    assert main(["usage", "--since", "2026-11-25", "--until", "2026-11-26"]) == 0
    assert "\ntotal          1" in capsys.readouterr().out
    assert main(["tail", "--no-follow"]) == 0
    assert "openai/gpt-4o" in capsys.readouterr().out
    assert main(["ledger", "check", "--json"]) == 1  # its rows are of a run that the table does not have
    monkeypatch.setenv("LLM_PROXY_DB", str(tmp_path / "nothing"))
    assert main(["usage"]) == 1


def start(*argv: str) -> subprocess.Popen[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.Popen(
        [sys.executable, "-m", "proxy", *argv],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell's background ignores it
    )


def test_a_tail_shows_its_lines_at_once_and_ends_with_the_code_of_ctrl_c(tmp_path: Path) -> None:
    with start("tail", "-f", "--db", fill(tmp_path / "a.db", {})) as process:
        assert process.stdout is not None and process.stderr is not None
        assert "openai/gpt-4o" in process.stdout.readline()  # through a pipe: it was flushed
        fill(tmp_path / "a.db", {"provider": "later"})
        assert "later/gpt-4o" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read() == ""


def test_a_reader_that_leaves_ends_an_export_quietly(tmp_path: Path) -> None:
    with start("ledger", "export", "--db", fill(tmp_path / "a.db", *[{"detail": "x" * 2000}] * 200)) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("{")
        process.stdout.close()
        assert process.wait(20) == LEFT
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    "argv", [("usage",), ("tail", "--no-follow"), ("prices",), ("ledger", "export"), ("serve", "--help")]
)
def test_nor_does_one_that_never_came_cause_a_complaint(tmp_path: Path, argv: tuple[str, ...]) -> None:
    path = fill(tmp_path / "a.db", {})
    if argv[0] in ("usage", "tail", "ledger"):
        argv = (*argv, "--db", path)
    gate_out, gate_in = os.pipe()
    os.close(gate_out)
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *argv],
        cwd=ROOT,
        stdout=gate_in,
        stderr=subprocess.PIPE,
        timeout=20,
    )
    os.close(gate_in)
    assert (done.returncode, done.stderr) == (LEFT, b"")


def test_nothing_is_loaded_before_a_command_needs_it() -> None:
    heavy = ["sqlite3", "orjson", "json", "proxy.outcome", "proxy.ledger", "proxy.catalog", "proxy.server"]
    script = f"import sys, proxy.cli as c; c._parser(); print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_ledger_commands_need_no_event_loop(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.db", {})
    heavy = ["asyncio", "uvloop", "ssl", "httptools", "sqlite_utils"]
    script = (
        "import sys, proxy.cli as c; c.main(sys.argv[1:]);"
        f" print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    for argv in (("usage", "--since", "all"), ("tail",), ("ledger", "check")):
        done = subprocess.run(
            [sys.executable, "-c", script, *argv, "--db", path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr.strip() == "[]", argv
