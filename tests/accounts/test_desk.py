"""Which ledger is meant, and how a command says that it cannot."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from proxy.accounts.desk import Desk
from tests.accounts.stage import HOSTILE, give, is_harmless
from tests.ledger.filled import NOW, fill


def requests(said_of: str) -> str:
    """The number of requests in the total of a table."""
    return said_of.split("\ntotal ")[1].split()[0]


def test_an_argument_comes_before_the_environment_and_that_before_its_file(tmp_path: Path) -> None:
    for number, name in enumerate(("argument", "environment", "file"), 1):
        fill(tmp_path / name, *[{}] * number)
    (tmp_path / "env").write_text(f"# ours\nexport LLM_PROXY_DB='{tmp_path / 'file'}'\n")
    environ = {"LLM_PROXY_ENV_FILE": str(tmp_path / "env")}
    assert requests(give("usage", environ=environ).out) == "3"
    environ["LLM_PROXY_DB"] = str(tmp_path / "environment")
    assert requests(give("usage", environ=environ).out) == "2"
    assert requests(give("usage", "--db", str(tmp_path / "argument"), environ=environ).out) == "1"


def test_without_any_it_is_the_one_that_serve_makes_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("llm-proxy.db"), {})
    assert requests(give("usage").out) == "1"


def test_a_file_of_variables_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    said = give("usage", environ={"LLM_PROXY_ENV_FILE": str(tmp_path / "nothing")})
    assert (said.code, said.errors) == (2, "llm-proxy: error: LLM_PROXY_ENV_FILE: the file cannot be read\n")


@pytest.mark.parametrize("command", [("usage",), ("tail",), ("ledger", "check"), ("ledger", "export")])
class TestEveryCommand:
    def test_says_that_no_ledger_is_kept(self, command: tuple[str, ...]) -> None:
        said = give(*command, environ={"LLM_PROXY_DB": "Off"})
        assert (said.code, said.out) == (2, "")
        assert said.errors == (
            "llm-proxy: error: LLM_PROXY_DB=off: no ledger is kept; name the file of another one with --db\n"
        )

    def test_says_that_there_is_none_and_makes_none(self, command: tuple[str, ...], tmp_path: Path) -> None:
        said = give(*command, "--db", str(tmp_path / "a.db"))
        assert (said.code, said.out) == (1, "")
        assert said.errors.startswith(f"llm-proxy: error: there is no ledger at {tmp_path / 'a.db'}: `llm-proxy serve`")
        assert list(tmp_path.iterdir()) == []

    def test_says_that_it_is_none(self, command: tuple[str, ...], tmp_path: Path) -> None:
        (tmp_path / "a.db").write_text("no ledger" * 100)
        said = give(*command, "--db", str(tmp_path / "a.db"))
        assert (said.code, said.out) == (1, "")
        assert "is no ledger, nor any SQLite file" in said.errors

    def test_says_so_in_one_line_whatever_the_file_is_called(self, command: tuple[str, ...], tmp_path: Path) -> None:
        said = give(*command, "--db", str(tmp_path / HOSTILE))
        assert said.errors.count("\n") == 1
        assert is_harmless(said.errors)


def test_a_ledger_called_off_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("off"), {})
    assert requests(give("usage", "--db", "off").out) == "1"


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--since", "tomorrow"), "--since: not a time; write one of: today, "),
        (("--until", "x"), "--until: not a time"),
        (("--since", "today", "--until", "yesterday"), "--since is not before --until"),
    ],
)
def test_times_that_make_no_sense_are_refused(tmp_path: Path, argv: tuple[str, ...], sentence: str) -> None:
    said = give("usage", "--db", fill(tmp_path / "a.db", {}), *argv)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.errors


def test_an_answer_that_takes_too_long_is_given_up_with_advice(tmp_path: Path) -> None:
    path = fill(tmp_path / "a.db", *[{"tags": ",".join(map(str, range(50)))}] * 200)
    said = give("usage", "--db", path, "--by", "tag", "--seconds", "0.000001")
    assert (said.code, said.out) == (1, "")
    assert said.errors.endswith("s: ask for less of it (--since), or wait longer (--seconds)\n")


def test_letters_that_a_terminal_lacks_are_escapes() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    Desk({}, lambda: NOW, lambda seconds: None, out, out).say("a…≈")
    out.flush()
    assert raw.getvalue() == b"a\\u2026\\u2248\n"


@pytest.mark.parametrize(
    ("said", "expected"), [(None, 160), ("", 160), ("90", 90), ("300", 300), ("0", 160), ("-5", 160), ("x", 160)]
)
def test_a_pipe_gets_what_columns_says_or_a_wide_line(said: str | None, expected: int) -> None:
    environ = {} if said is None else {"COLUMNS": said}
    assert Desk(environ, lambda: NOW, lambda seconds: None, io.StringIO(), io.StringIO()).width == expected


def test_a_note_is_one_line_beside_the_answer() -> None:
    out, errors = io.StringIO(), io.StringIO()
    Desk({}, lambda: NOW, lambda seconds: None, out, errors).note(HOSTILE)
    assert out.getvalue() == ""
    assert errors.getvalue().startswith("llm-proxy: note: ")
    assert errors.getvalue().count("\n") == 1 and is_harmless(errors.getvalue())
