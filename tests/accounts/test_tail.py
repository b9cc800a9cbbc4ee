"""The last requests, and each new one once; in a form that no name in them can break."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.accounts import tail
from proxy.ledger import schema
from proxy.ledger.reader import LedgerReader
from tests.accounts.stage import HOSTILE, Said, Terminal, give, is_harmless, lose, spill
from tests.ledger.filled import FAILED, FAILED_OVER, LEFT, NOW, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


class Enough(Exception):
    """Ends a command that would go on, as Ctrl-C does."""


def follow(
    path: Path, *steps: Callable[[], object], argv: tuple[str, ...] = ("-f",), out: Terminal | None = None
) -> str:
    """What `tail` says while `steps` are made, one in each rest."""
    left = list(steps)
    out = out or Terminal()

    def rest(seconds: float) -> None:
        assert 0 < seconds < 1
        if not left:
            raise Enough
        left.pop(0)()

    with pytest.raises(Enough):
        give("tail", "--db", str(path), *argv, rest=rest, out=out)
    return out.getvalue()


def ids(said: str) -> list[str]:
    return [json.loads(line)["id"] for line in said.splitlines()]


def test_a_line_says_when_how_what_and_how_sure(path: Path) -> None:
    fill(
        path,
        {},
        {
            **LEFT,
            "started_at": NOW,
            "total_ms": 61_000,
            "provider": "anthropic",
            "model_requested": "claude-sonnet-4-5",
        },
        {**FAILED, "key": None, "total_ms": 8.4},
        {"output_source": "estimated", "cost_micros": 12, "provider": "vllm", "model_requested": f"vllm/{'m' * 40}"},
    )
    said = give("tail", "--db", str(path), environ={"COLUMNS": "120"})
    assert (said.code, said.errors) == (0, "")
    assert said.out == (
        "2026-11-25 11:00:00  200  --    1.2s  openai/gpt-4o                         1,000 in       100 out    $0.0035"
        "  billing\n"
        "2026-11-25 12:00:00  200  CD   1m01s  anthropic/claude-sonnet-4-5           1,000 in       ~40 out    $0.0035"
        "  billing  client_left\n"
        "2026-11-25 11:00:00  429  U-     8ms  openai/gpt-4o                             - in         - out          -"
        "  -  error_status\n"
        "2026-11-25 11:00:00  200  --    1.2s  vllm/mmmmmmmmmmm…mmmmmmmmmmmmmmm      1,000 in      ≈100 out  $0.000012"
        "  billing\n"
    )


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (None, "-"),
        ("odd", "-"),
        (0.4, "0ms"),
        (999.4, "999ms"),
        (1000, "1.0s"),
        (59_940, "59.9s"),
        (60_000, "1m00s"),
        (3_600_000, "60m00s"),
        (6_000_000, "1h40m"),
    ],
)
def test_durations_are_short(ms: object, expected: str) -> None:
    assert tail.duration(ms) == expected
    assert len(tail.duration(ms)) <= 6


@pytest.mark.parametrize(
    ("columns", "at", "expected"),
    [
        ({"provider": None, "model_requested": None, "model_served": None}, 4, "-"),
        ({"provider": "x", "model_requested": None, "model_served": None}, 4, "x"),
        ({"provider": None, "model_requested": "m", "model_served": None}, 4, "m"),
        ({"provider": "x", "model_requested": None, "model_served": "m"}, 4, "x/m"),
        ({"status": 0}, 1, "-"),
        ({"ended_by": "?", "complete": 0}, 2, "??"),
        ({"input_tokens": None}, 5, "- in"),
        ({"output_tokens": 0}, 6, "0 out"),
        ({"cost_micros": None}, 7, "?"),
        ({"cost_micros": None, "input_tokens": None, "output_tokens": None, "usage_complete": 0}, 7, "?"),
        ({"cost_micros": None, "input_tokens": None, "output_tokens": None, "usage_complete": None}, 7, "-"),
        ({"cost_micros": 0}, 7, "$0.000000"),
    ],
)
def test_what_is_not_known_is_left_open(path: Path, columns: dict[str, Any], at: int, expected: str) -> None:
    fill(path, columns)
    assert re.split(r"  +", give("tail", "--db", str(path)).out)[at] == expected


def test_an_alias_and_more_than_one_attempt_are_said_behind_the_key(path: Path) -> None:
    refused = {**FAILED, "alias": "fast", "model_requested": "fast", "provider": None}
    fill(path, FAILED_OVER, {**FAILED_OVER, "complete": 0, "ended_kind": "reset", "alias": HOSTILE}, refused)
    first, second, third = give("tail", "--db", str(path)).out.splitlines()
    assert "  openai/gpt-4o-2024-08-06  " in first and first.endswith("  billing  alias fast  2 attempts")
    assert second.endswith("  reset  2 attempts") and is_harmless(second)
    assert "  -  " in third and third.endswith("  billing  alias fast  error_status")


def test_a_refusal_that_stands_for_others_says_for_how_many(path: Path) -> None:
    fill(path, {**FAILED, "stands_for": 1234}, {"stands_for": "odd"})
    first, second = give("tail", "--db", str(path)).out.splitlines()
    assert first.endswith("  billing  error_status  x 1,234")
    assert second.endswith("  billing")


def test_only_as_many_as_asked_for_and_only_those_wanted(path: Path) -> None:
    fill(path, *({"key": f"k{number % 2}"} for number in range(30)))
    assert ids(give("tail", "--db", str(path), "--json").out) == [f"r-{number}" for number in range(21, 31)]
    assert ids(give("tail", "--db", str(path), "--json", "-n", "2", "--key", "k0").out) == ["r-27", "r-29"]
    assert give("tail", "--db", str(path), "--json", "-n", "0").out == ""


def test_json_lines_have_all_columns(path: Path) -> None:
    fill(path, {"key": HOSTILE})
    document = json.loads(give("tail", "--db", str(path), "--json").out)
    assert list(document) == list(schema.EXCHANGES)
    assert document["key"] == HOSTILE


def test_new_requests_are_shown_once_each(path: Path) -> None:
    fill(path, {}, {})
    said = follow(
        path,
        lambda: None,
        lambda: fill(path, {}),
        lambda: None,
        lambda: fill(path, {}, {}),
        argv=("-f", "--json", "-n", "1"),
    )
    assert ids(said) == ["r-2", "r-3", "r-4", "r-5"]


def test_a_request_that_comes_between_two_questions_is_shown_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = LedgerReader.newest

    def newest_and_one_more(ledger: LedgerReader) -> int:
        found = newest(ledger)
        fill(path, {})
        return found

    monkeypatch.setattr(LedgerReader, "newest", newest_and_one_more)
    fill(path, {})
    assert ids(follow(path, *[lambda: None] * 2, argv=("-f", "--json"))) == ["r-1", "r-2", "r-3", "r-4"]


def test_more_new_requests_than_are_read_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "_STEP", 2)
    fill(path)
    assert ids(follow(path, lambda: fill(path, *[{}] * 5), argv=("-f", "--json"))) == [f"r-{n}" for n in range(1, 6)]


def test_new_requests_are_chosen_as_the_last_ones_are(path: Path) -> None:
    fill(path, {"key": "a"}, {"key": "b"})
    said = follow(
        path, lambda: fill(path, {"key": "b"}), lambda: fill(path, {"key": "a"}), argv=("-f", "--json", "--key", "a")
    )
    assert ids(said) == ["r-1", "r-4"]


def test_it_goes_on_after_everything_was_pruned(path: Path) -> None:
    def prune() -> None:
        connection = schema.connect(str(path), 1.0)
        connection.execute("DELETE FROM exchanges")
        connection.close()

    fill(path, {}, {}, {})
    said = follow(path, prune, lambda: fill(path, {"id": "new"}), argv=("-f", "--json", "-n", "0"))
    assert ids(said) == ["new"]


def test_it_goes_on_with_a_ledger_that_was_replaced(path: Path) -> None:
    def replace() -> None:
        for each in path.parent.iterdir():
            each.unlink()
        fill(path)

    fill(path, {}, {})
    assert ids(follow(path, replace, lambda: fill(path, {"id": "new"}), argv=("-f", "--json", "-n", "0"))) == ["new"]


@pytest.mark.parametrize(
    ("argv", "is_terminal", "goes_on"),
    [((), True, True), ((), False, False), (("--no-follow",), True, False), (("-f",), False, True)],
)
def test_it_goes_on_by_itself_where_somebody_looks(
    path: Path, argv: tuple[str, ...], is_terminal: bool, goes_on: bool
) -> None:
    def rest(seconds: float) -> None:
        raise Enough

    def look() -> Said:
        return give("tail", "--db", str(path), *argv, rest=rest, out=Terminal() if is_terminal else None)

    fill(path, {})
    if goes_on:
        with pytest.raises(Enough):
            look()
    else:
        assert look().out.count("\n") == 1 + is_terminal  # the heading


def test_a_ledger_that_goes_away_ends_it_with_a_sentence(path: Path) -> None:
    fill(path, {})
    said = give("tail", "-f", "--db", str(path), rest=lambda seconds: path.unlink())
    assert (said.code, said.out.count("\n")) == (1, 1)
    assert "there is no ledger at " in said.errors


def test_a_terminal_gets_a_heading_over_its_columns(path: Path) -> None:
    fill(path, LEFT, {"key": None})
    out = Terminal()
    give("tail", "--db", str(path), "--no-follow", out=out)
    head, first, _ = out.getvalue().splitlines()
    for word, value in (("status", "200"), ("provider/model", "openai/"), ("key", "billing")):
        assert head.index(word) == first.index(value)
    for word, value in (("took", "1.2s"), ("input", "1,000"), ("output", "~40"), ("cost", "$0.0035")):
        assert head.index(word) + len(word) == first.index(value) + len(value)
    assert head.startswith("begun (UTC) ")
    out = Terminal()
    give("tail", "--db", str(path), "--no-follow", "--json", out=out)
    assert out.getvalue().count("\n") == 2


def test_a_wide_line_has_room_for_longer_names(path: Path) -> None:
    fill(path, {"model_requested": "m" * 40})
    assert f"openai/{'m' * 40} " in give("tail", "--db", str(path)).out
    assert "mmm…mmm" in give("tail", "--db", str(path), environ={"COLUMNS": "139"}).out


def test_only_those_since_a_moment_and_with_a_tag(path: Path) -> None:
    fill(path, {"started_at": NOW - 9000}, {"tags": "a,b"}, {})
    assert ids(give("tail", "--db", str(path), "--json", "--since", "2h").out) == ["r-2", "r-3"]
    assert ids(give("tail", "--db", str(path), "--json", "--tag", "b").out) == ["r-2"]


def test_what_waits_or_was_lost_is_said_beside_the_lines(path: Path) -> None:
    fill(path, {}, {})
    spill(path, NOW, NOW - 9000)
    lose(path, started_at=NOW - 1)
    said = give("tail", "--db", str(path), "--json")
    assert ids(said.out) == ["r-1", "r-2"]
    assert said.errors == (  # the other one that waits began before the first that is shown
        "llm-proxy: note: 1 more request waits in a.db-spill and is not shown; the next `llm-proxy serve` adds it.\n"
        "llm-proxy: note: 3 requests were lost when the process was killed; see `llm-proxy ledger check`.\n"
    )


def test_a_name_that_is_in_no_row_is_told_from_one_that_has_none_yet(path: Path) -> None:
    fill(path, {"started_at": NOW - 9000})
    said = give("tail", "--db", str(path), "--key", "biling")
    assert said.errors == "No request in the ledger has the key biling; there are: billing.\n"
    assert give("tail", "--db", str(path), "--key", "billing", "--since", "1h").errors == "no such request yet\n"


def test_none_wanted_is_nothing_said(path: Path) -> None:
    fill(path, {})
    assert give("tail", "--db", str(path), "-n", "0")[:] == (0, "", "")


def test_an_empty_ledger_is_not_taken_for_a_hung_command(path: Path) -> None:
    fill(path)
    assert give("tail", "--db", str(path)).errors == "no such request yet\n"
    assert give("tail", "--db", str(path), "--json").errors == ""


def test_no_name_reaches_the_terminal_as_it_is(path: Path) -> None:
    names = (
        "key",
        "provider",
        "model_requested",
        "model_served",
        "ended_kind",
        "ended_by",
        "ended_phase",
        "input_source",
    )
    fill(path, {"complete": 0, **dict.fromkeys(names, HOSTILE)})
    assert is_harmless(give("tail", "--db", str(path)).out)
    assert is_harmless(give("tail", "--db", str(path), "--json").out)
    assert give("tail", "--db", str(path)).out.count("\n") == 1


def test_values_of_others_do_not_raise(path: Path) -> None:
    numbers = ("started_at", "status", "total_ms", "input_tokens", "output_tokens", "cost_micros")
    fill(
        path,
        dict.fromkeys(numbers, "odd"),
        dict.fromkeys(numbers, b"\xff"),
        {**dict.fromkeys(numbers[1:]), "key": b"\xff"},
    )
    said = give("tail", "--db", str(path))
    assert (said.code, said.out.count("\n")) == (0, 3)
