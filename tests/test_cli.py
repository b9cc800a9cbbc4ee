"""The commands as a user meets them: exit codes, everything wrong at once, nothing secret, nothing loaded too early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from proxy import __version__
from proxy.cli import main
from proxy.ledger.models import ModelStore
from proxy.server.table import SETTINGS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().endswith(("_PROXY", "_API_KEY", "_BASE_URL", "_AUTH_TOKEN")) or name.startswith(
            ("LLM_", "OLLAMA")
        ):
            monkeypatch.delenv(name)


def environ(**further: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")} | further


def test_help_names_every_command_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"    {command} " in text for command in ("serve", "check", "demo", "simulate"))
    assert "examples:" in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["no-such-command"], ["check", "--no-such-flag"], ["simulate", "--port", "x"]])
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert "usage:" in capsys.readouterr().err


def test_the_help_of_serve_lists_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    text = capsys.readouterr().out
    assert [setting.name for setting in SETTINGS if f"  {setting.name}" not in text] == []
    assert "ANTHROPIC_API_KEY" in text


def test_the_help_of_simulate_explains_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    from proxy.simulator.faults import WORDS

    assert main(["simulate", "--help"]) == 0
    text = capsys.readouterr().out
    assert [word for word in WORDS if f"  {word} " not in text] == []


def test_check_says_what_it_would_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("LLM_PROXY_LISEN", "x")
    assert main(["check", "--model", "gpt-4o"]) == 0
    said = capsys.readouterr()
    assert "https://api.openai.com/v1/chat/completions" in said.out
    assert "did you mean LLM_PROXY_LISTEN?" in said.err
    assert "very-secret" not in said.out + said.err


def test_check_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert main(["check", "--json"]) == 0
    text = capsys.readouterr().out
    document = json.loads(text)
    assert document["errors"] == []
    assert document["default_provider"] == "openai"
    assert "very-secret" not in text


def test_check_knows_the_aliases_that_are_stored_and_warns_of_those_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("LLM_PROXY_MODELS", "fast = openai/gpt-4o")
    monkeypatch.setenv("LLM_PROXY_DB", str(tmp_path / "a.db"))
    with ModelStore(str(tmp_path / "a.db"), 1.0) as store:
        store.put("fast", "fast = openai/gpt-4.1")
        store.put("lost", "lost = groq/m")
    assert main(["check", "--json", "--model", "fast"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert [(each["name"], each["targets"]) for each in document["aliases"]] == [("fast", "openai/gpt-4.1")]
    assert document["routes"]["fast"]["openai"] == "openai/gpt-4.1"
    assert said.err.startswith("llm-proxy: warning: the stored alias lost is not used: ")
    assert document["warnings"] == [said.err.removeprefix("llm-proxy: warning: ").rstrip()]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_configuration_is_2_and_all_of_it_is_said(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "very-secret")
    monkeypatch.setenv("LLM_PROXY_LISTEN", "0.0.0.0:8080")
    monkeypatch.setenv("LLM_PROXY_LOG", "very-secret")
    monkeypatch.setenv("LLM_PROXY_XYZZY", "very-secret")
    assert main([command]) == 2
    said = capsys.readouterr()
    assert said.err.count("error: ") == 3
    assert said.err.count("warning: ") == 1
    assert "very-secret" not in said.out + said.err


def test_errors_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_PROXY_LOG", "x")
    assert main(["check", "--json"]) == 2
    assert len(json.loads(capsys.readouterr().out)["errors"]) == 1


def test_certificates_that_do_not_load_are_found_by_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca").write_text("no certificate")
    monkeypatch.setenv("LLM_PROXY_UPSTREAM_CA", str(tmp_path / "ca"))
    assert main(["check"]) == 2
    assert "LLM_PROXY_UPSTREAM_CA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["--fault", "no-such-word"], 2),
        (["--replay", "no/such/folder"], 2),
        (["--port", "70000"], 1),
    ],
)
def test_simulate_explains_what_it_cannot_do(argv: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", *argv]) == code
    assert capsys.readouterr().err.startswith("llm-proxy: error: ")


def test_simulate_answers_until_it_is_told_to_stop() -> None:
    command = [sys.executable, "-m", "proxy", "simulate", "--port", "0", "--pace", "1000", "--fault", "events=3"]
    with subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split("OpenAI clients: ")[1].strip(" )\n")
            body = json.dumps({"model": "gpt-4o", "messages": [], "stream": True}).encode()
            request = urllib.request.Request(url + "/chat/completions", body, {"content-type": "application/json"})
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
                assert b"[DONE]" in answer.read()
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(20)
    assert code == 0


def test_demo_shows_a_whole_stream_a_reused_connection_and_an_honest_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "demo"], cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert "Not one byte of it was changed on the way." in done.stdout
    assert done.stdout.count("complete  [--]") == 2
    assert "kept open from before" in done.stdout
    assert "[error event: " in done.stdout
    assert "[UD]" in done.stdout
    assert done.stderr == ""


def test_nothing_heavy_is_loaded_before_a_command_needs_it() -> None:
    heavy = ["asyncio", "uvloop", "ssl", "httptools", "msgspec", "h11", "proxy.server", "proxy.relay"]
    script = f"import sys, proxy.cli; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
