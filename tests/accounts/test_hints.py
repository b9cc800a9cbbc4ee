"""What was probably meant is said; what was not even near is not guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.accounts import hints
from proxy.cli import main
from proxy.ledger.reader import LedgerReader, Wanted
from tests.accounts.stage import HOSTILE, is_harmless
from tests.ledger.filled import fill


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("usgae", ["usage", "tail"], ["usage"]),
        ("GPT4o", ["gpt-4o", "claude", "gpt-4o-mini"], ["gpt-4o", "gpt-4o-mini"]),
        ("gpt-4o", ["GPT-4o"], ["GPT-4o"]),
        ("xyz", ["usage", "tail"], []),
        ("", ["usage"], []),
    ],
)
def test_the_nearest_come_first(word: str, known: list[str], expected: list[str]) -> None:
    assert hints.nearest(word, known, 2) == expected


@pytest.mark.parametrize(
    ("argv", "program", "sentence"),
    [
        (["usgae"], "llm-proxy", "did you mean usage?"),
        (["ledger", "chekc"], "llm-proxy ledger", "did you mean check?"),
        (["usage", "--sinse", "7d"], "llm-proxy usage", "did you mean --since?"),
        (["ledger", "prune", "--dyas=3"], "llm-proxy ledger prune", "did you mean --days?"),
        (["ledger", "export", "--format", "cvs"], "llm-proxy ledger export", "did you mean csv?"),
        (["usage", "extra"], "llm-proxy usage", "unrecognized arguments: extra\n"),
        (["ledger", "check", "extra"], "llm-proxy ledger check", "unrecognized arguments: extra\n"),
    ],
)
def test_a_slip_is_answered_with_the_right_word_and_the_commands_own_usage(
    argv: list[str], program: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: {program} [-h]")
    assert sentence in said


def test_nothing_is_guessed_from_afar(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["xyzzy"]) == 2
    assert "did you mean" not in capsys.readouterr().err


def unknown(path: Path, wanted: Wanted) -> list[str]:
    with LedgerReader(str(path)) as ledger:
        return hints.unknown(ledger, wanted)


def test_names_that_the_ledger_has_need_no_hint(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", {"alias": "fast", "tags": "a, b"})
    for model in ("gpt-4o", "gpt-4o-2024-08-06", "fast"):
        assert unknown(tmp_path / "a.db", Wanted(0, 1, "billing", "openai", model, "b")) == []


def test_each_name_that_it_does_not_have_is_said_with_what_there_is(tmp_path: Path) -> None:
    keys = [{"key": f"k{number % 7}", "tags": "a"} for number in range(8)]
    fill(tmp_path / "a.db", *keys)
    assert unknown(tmp_path / "a.db", Wanted(None, None, "nokey", "opnai", "gpt4o", "x")) == [
        "No request in the ledger has the key nokey; there are: k0, k1, k2, k3, k4, and 2 more.",
        "No request in the ledger has the provider opnai; there are: openai.",
        "No request in the ledger has the model gpt4o; there are: gpt-4o, and 1 more.",
        "No request in the ledger has the tag x; there are: a.",
    ]


def test_where_nothing_has_one_it_says_that(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", {"key": None})
    assert unknown(tmp_path / "a.db", Wanted(key="x")) == ["No request in the ledger has the key x; none has a key."]


def test_no_name_is_obeyed_by_a_terminal(tmp_path: Path) -> None:
    fill(tmp_path / "a.db", {"key": HOSTILE})
    assert is_harmless("".join(unknown(tmp_path / "a.db", Wanted(key=HOSTILE + "x"))))
