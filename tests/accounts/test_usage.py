"""The table a user reads, to the letter; the same as JSON and CSV; and names that mean harm."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

from proxy.ledger import reader
from tests.accounts.stage import HOSTILE, give, is_harmless, lose, spill
from tests.ledger.filled import DAY, FAILED, FAILED_OVER, HOUR, LEFT, NOW, fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def usage(path: Path, *argv: str, wide: int = 160) -> str:
    """What `usage` says of that ledger, which it does without complaint."""
    said = give("usage", "--db", str(path), *argv, environ={"COLUMNS": str(wide)})
    assert (said.code, said.errors) == (0, "")
    return said.out


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_day_without_trouble_is_a_short_table(path: Path) -> None:
    fill(
        path,
        {"input_tokens": 1_200_300, "output_tokens": 4_500, "cost_micros": 3_045_750},
        {"model_requested": "claude-sonnet-4-5", "cost_micros": 20_000_000},
        {"started_at": NOW - DAY},
    )
    assert usage(path) == (
        "Requests from 2026-11-25 00:00 until 2026-11-25 12:00 UTC, by model\n"
        "\n"
        "model              requests      input  output    cost\n"
        "claude-sonnet-4-5         1      1,000     100  $20.00\n"
        "gpt-4o                    1  1,200,300   4,500   $3.05\n"
        "------------------------------------------------------\n"
        "total                     2  1,201,300   4,600  $23.05\n"
    )


def test_a_day_with_everything_says_how_sure_it_is_and_what_is_missing(path: Path) -> None:
    fill(
        path,
        {"cached_tokens": 900, "reasoning_tokens": 60, "reported_cost_micros": 3_400},
        LEFT,
        FAILED,
        {"model_requested": "llama", "cost_micros": None, "input_source": "estimated", "tags": "a,b"},
        {"usage_source": "none", "input_tokens": None, "output_tokens": None, "cost_micros": None, "usage_complete": 0},
    )
    assert usage(path) == (
        "Requests from 2026-11-25 00:00 until 2026-11-25 12:00 UTC, by model\n"
        "\n"
        "model   requests  input  cached  output  reasoning        cost  unreported  cut  errors\n"
        "gpt-4o         4  2,000     900     140         60  $0.007000+        1.9%    1       1\n"
        "llama          1  1,000       0     100          0           ?         91%    0       0\n"
        "---------------------------------------------------------------------------------------\n"
        "total          5  3,000     900     240         60  $0.007000+         32%    1       1\n"
        "\n"
        "unreported: tokens that no provider reported; of all 1.2% counted here and 31% estimated from bytes.\n"
        "cut: answers without their end, tokens so far; --by ending says who broke off, and when.\n"
        "? and +: 2 requests whose cost is not known (no price, or tokens not known); it is not in the sum.\n"
        "What 1 request used is not known at all.\n"
        "By what providers say of their own cost: $0.003400.\n"
    )


def test_several_groupings_are_columns_of_their_own(path: Path) -> None:
    fill(path, {"key": "b", "cost_micros": 9}, {"key": None}, {"started_at": NOW - DAY}, {"cost_micros": 5})
    assert usage(path, "--since", "7d", "--by", "day", "--by", "key,model,key") == (
        "Requests from 2026-11-18 12:00 until 2026-11-25 12:00 UTC, by day and key and model\n"
        "\n"
        "day         key      model   requests  input  output       cost\n"
        "2026-11-24  billing  gpt-4o         1  1,000     100  $0.003500\n"
        "2026-11-25  -        gpt-4o         1  1,000     100  $0.003500\n"
        "2026-11-25  b        gpt-4o         1  1,000     100  $0.000009\n"
        "2026-11-25  billing  gpt-4o         1  1,000     100  $0.000005\n"
        "---------------------------------------------------------------\n"
        "total                               4  4,000     400  $0.007014\n"
    )


def test_endings_have_the_letters_of_the_log(path: Path) -> None:
    fill(path, {}, LEFT, FAILED, {"complete": 0, "ended_by": "x y", "ended_phase": "z", "ended_kind": "odd"})
    lines = usage(path, "--by", "ending").split("\n")
    assert [line.split("  ")[0] for line in lines[3:7]] == [
        "complete",
        "x y z odd",
        "CD client_left",
        "U- error_status",
    ]


def test_a_request_with_two_tags_is_explained(path: Path) -> None:
    fill(path, {"tags": "team=a, job=7"})
    said = usage(path, "--by", "tag")
    assert "\njob=7          1  1,000" in said and "\nteam=a         1  1,000" in said and "\ntotal          1" in said
    assert said.endswith("\nA request with several tags is in several lines, and once in the total.\n")


def test_what_a_request_took_stands_with_the_target_that_took_it(path: Path) -> None:
    fill(path, FAILED_OVER, {})
    assert usage(path, "--by", "provider,model") == (
        "Requests from 2026-11-25 00:00 until 2026-11-25 12:00 UTC, by provider and model\n"
        "\n"
        "provider  model      requests  input  output       cost  unreported  cut\n"
        "openai    gpt-4o            2  2,000     200  $0.007000           -    0\n"
        "azure     gpt-4o-eu         1    900      30  $0.001100        100%    1\n"
        "------------------------------------------------------------------------\n"
        "total                       2  2,900     230  $0.008100         65%    0\n"
        "\n"
        "unreported: tokens that no provider reported; of all 61% counted here and 4.2% estimated from bytes.\n"
        "cut: answers without their end, tokens so far; --by ending says who broke off, and when.\n"
        "A request that went to several of them is in several lines, and once in the total.\n"
    )
    said = usage(path, "--by", "key")
    assert "several" not in said and "cut" not in said


@pytest.mark.parametrize("by", ["model", "day,model", "day,key,model"])
@pytest.mark.parametrize("scale", [1, 10**3, 10**6])
def test_a_table_fits_a_hundred_columns(path: Path, by: str, scale: int) -> None:
    busy = {"input_tokens": 987_654 * scale, "cached_tokens": 900 * scale, "output_tokens": 123_456 * scale}
    long = {"model_requested": "vllm/meta-llama/Llama-3.3-70B-Instruct-and-so-on-0001", "key": "a-service-of-some-team"}
    fill(path, {**busy, **long, "reasoning_tokens": 800 * scale, "cost_micros": 9 * 10**9}, {**LEFT, **long}, FAILED)
    lines = usage(path, "--by", by, wide=100).split("\n")
    table = lines[2 : lines.index("", 2)]
    assert max(map(len, table)) <= 100
    assert len({len(line) for line in table}) == 1
    assert "vllm" in table[1] and "01 " in table[1]
    if "day" in by:
        assert table[1].startswith("2026-11-25  ")


BUSY = {"model_requested": "m" * 30, "key": "k" * 30, "cached_tokens": 10**9, "reasoning_tokens": 10**9}


@pytest.mark.parametrize(
    ("wide", "left_out", "figure"),
    [
        (161, [], "1,234,567,890"),
        (140, ["reasoning"], "1,234,567,890"),
        (125, [], "1.23G"),
        (121, ["reasoning"], "1.23G"),
        (110, ["reasoning", "unreported"], "1.23G"),
        (98, ["cached", "reasoning", "unreported"], "1.23G"),
    ],
)
def test_where_there_is_little_room_columns_go_and_then_digits(
    path: Path, wide: int, left_out: list[str], figure: str
) -> None:
    fill(path, *({**BUSY, "input_tokens": 1_234_567_890 - at * 1040, **end} for at, end in enumerate(({}, LEFT))))
    fill(path, {**FAILED, "key": "x", "model_requested": "small", "input_tokens": 7, "cost_micros": 1})
    said = usage(path, "--by", "key,model", wide=wide)
    head, *table = said.split("\n\n")[1].split("\n")
    assert max(map(len, table)) <= wide
    assert [name for name in ("cached", "reasoning", "unreported") if name not in head] == left_out
    assert (f"\nThere was no room for {' and '.join(left_out)}; " in said) is bool(left_out)
    assert ("\nk, M, G: thousands" in said) is (figure == "1.23G")
    assert "<1" not in said
    assert table[1].split()[:4] == ["x", "small", "1", "7"]


def test_more_groups_than_a_person_reads_are_cut_and_the_total_is_of_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_GROUPS", 2)
    fill(path, *({"key": f"k{number}"} for number in range(3)))
    said = usage(path, "--by", "key")
    assert "k2" not in said
    assert "\ntotal         3  3,000" in said
    assert "the total has the others, too." in said


def test_what_was_left_out_stands_in_the_heading(path: Path) -> None:
    fill(path, {}, {"key": "other"})
    said = usage(path, "--since", "all", "--until", "2026-11-26", "--key", "billing", "--model", "gpt-4o")
    assert said.startswith("Requests until 2026-11-26 00:00 UTC, by model, only key billing, only model gpt-4o\n")
    assert "\ntotal          1" in said


def test_local_days_and_times(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        fill(path, {"started_at": NOW - 12 * HOUR - 1}, {"started_at": NOW - 13 * HOUR - 1})
        said = usage(path, "--by", "day", "--local")
        assert said.startswith("Requests from 2026-11-25 00:00 until 2026-11-25 13:00 CET, by day\n")
        assert "\n2026-11-25         1" in said and "2026-11-24" not in said
    finally:
        monkeypatch.undo()
        time.tzset()


# --- nothing ----------------------------------------------------------------------------------------------------------


def test_a_day_without_requests_is_no_failure(path: Path) -> None:
    fill(path, {"started_at": NOW - 2 * DAY})
    assert usage(path, "--provider", "openai") == (
        "No requests from 2026-11-25 00:00 until 2026-11-25 12:00 UTC, only provider openai.\n"
        "The last one of all began 2026-11-23 12:00 UTC; `--since 7d` or `--since all` looks further back.\n"
    )


def test_a_name_that_no_request_has_is_said_with_those_that_there_are(path: Path) -> None:
    fill(path, {"started_at": NOW - 2 * DAY})
    assert usage(path, "--since", "all", "--key", "biling", "--model", "gpt-4o") == (
        "No requests until 2026-11-25 12:00 UTC, only key biling, only model gpt-4o.\n"
        "No request in the ledger has the key biling; there are: billing.\n"
    )
    fill(path, {"key": "a"})
    assert usage(path, "--since", "all", "--key", "billing", "--until", "2026-01-01").count("\n") == 2
    assert usage(path, "--since", "all", "--key", "a", "--model", "gpt-4o", "--provider", "openai").count("\n") > 2


def test_nor_is_a_ledger_that_is_empty_or_was_emptied(path: Path) -> None:
    fill(path)
    assert usage(path) == "There are no requests in the ledger.\n"
    assert json.loads(usage(path, "--json"))["groups"] == []
    assert usage(path, "--csv").count("\n") == 1


# --- what is in no row ------------------------------------------------------------------------------------------------

LOST = "3 requests were lost when the process was killed; see `llm-proxy ledger check`.\n"


def test_what_waits_or_was_lost_is_said_below_the_table(path: Path) -> None:
    fill(path, {})
    spill(path, NOW - HOUR, NOW - 2 * HOUR, NOW - 2 * DAY)
    lose(path)
    wait = "more requests wait in a.db-spill and are not in the sums; the next `llm-proxy serve` adds them.\n"
    assert usage(path).endswith(f"\n\n2 {wait}{LOST}")
    assert usage(path, "--since", "all", "--key", "billing").endswith(f"\n\nUp to 3 {wait}{LOST}")
    assert json.loads(usage(path, "--json"))["missing"] == {"spilled": 2, "lost": 3}
    said = give("usage", "--csv", "--db", str(path))
    assert (said.out.count("\n"), said.errors.count("note: ")) == (2, 2)


def test_it_is_said_where_no_row_is_there_yet(path: Path) -> None:
    fill(path)
    spill(path, NOW - HOUR)
    lose(path)
    assert usage(path) == (
        "There are no requests in the ledger.\n"
        "1 more request waits in a.db-spill and is not in the sums; the next `llm-proxy serve` adds it.\n" + LOST
    )


def test_only_marks_that_are_shown_are_explained(path: Path) -> None:
    fill(path, {"cost_micros": None}, {"key": "b"})
    assert "\n? and +: 1 request whose cost" in usage(path, "--by", "key")
    assert "\n+: 1 request whose cost" in usage(path)
    assert "\n?: 1 request whose cost" in usage(path, "--key", "billing")


def test_an_answer_that_was_drained_is_not_cut(path: Path) -> None:
    fill(path, {**LEFT, "usage_complete": 1})
    assert "cut" not in usage(path)


def test_only_those_with_a_tag(path: Path) -> None:
    fill(path, {"tags": "team=a, job=7"}, {"tags": "team=a,team=a"}, {"tags": "team=b"}, {})
    said = usage(path, "--tag", "team=a")
    assert said.startswith("Requests from 2026-11-25 00:00 until 2026-11-25 12:00 UTC, by model, only tag team=a\n")
    assert "\ntotal          2" in said


# --- for programs -----------------------------------------------------------------------------------------------------


def test_json_has_every_figure(path: Path) -> None:
    fill(path, {"cached_tokens": 5}, LEFT)
    document = json.loads(usage(path, "--json", "--by", "key,status"))
    group = {
        "requests": 2,
        "errors": 0,
        "incomplete": 1,
        "input_tokens": 2000,
        "cached_tokens": 5,
        "cache_write_tokens": 0,
        "output_tokens": 140,
        "reasoning_tokens": 0,
        "counted_tokens": 40,
        "estimated_tokens": 0,
        "searches": 0,
        "cost_micros": 7000,
        "reported_cost_micros": None,
        "unpriced": 0,
        "unmeasured": 0,
    }
    assert document == {
        "since": "2026-11-25T00:00:00.000Z",
        "until": None,
        "days": "UTC",
        "by": ["key", "status"],
        "groups": [{"key": "billing", "status": 200, **group}],
        "total": group,
        "has_more": False,
        "missing": {"spilled": 0, "lost": 0},
    }


def test_csv_has_a_line_for_each_group_and_none_for_the_total(path: Path) -> None:
    fill(path, {"key": "a"}, {"key": None, "cost_micros": None})
    rows = list(csv.DictReader(io.StringIO(usage(path, "--csv", "--by", "key"))))
    assert [(row["key"], row["requests"], row["input_tokens"], row["cost_micros"]) for row in rows] == [
        ("a", "1", "1000", "3500"),
        ("", "1", "1000", ""),
    ]


# --- harm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [(), ("--json",), ("--csv",)])
def test_names_of_clients_reach_no_terminal_as_they_are(path: Path, form: tuple[str, ...]) -> None:
    hostile = dict.fromkeys(("key", "alias", "model_requested", "model_served", "provider", "dialect", "tags"), HOSTILE)
    fill(path, hostile, {**LEFT, "ended_kind": HOSTILE})
    said = usage(path, "--by", "key,alias,model,served,provider,dialect,tag,ending", *form)
    assert is_harmless(said)
    assert give("usage", "--db", str(path), "--key", HOSTILE + "x").out.isprintable() is False  # the line ends
    assert is_harmless(give("usage", "--db", str(path), "--key", HOSTILE + "x").out)


def test_programs_get_a_hostile_name_as_it_is(path: Path) -> None:
    fill(path, {"key": HOSTILE})
    [group] = json.loads(usage(path, "--json", "--by", "key"))["groups"]
    assert group["key"] == HOSTILE


def test_a_spreadsheet_gets_no_formula(path: Path) -> None:
    fill(path, {"key": "=cmd|'/C calc'!A0"})
    [_, row] = csv.reader(io.StringIO(usage(path, "--csv", "--by", "key")))
    assert row[0] == "'=cmd|'/C calc'!A0"
