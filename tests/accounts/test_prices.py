"""What the price table says of a model: the rows that would be asked, exactly as they are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.accounts import prices
from proxy.catalog.prices import Prices
from tests.accounts.stage import Said, Terminal, give
from tests.ledger.filled import NOW

TABLE = {
    "version": "acme-1",
    "prices": [
        {"provider": "vllm", "model": "llama-3*", "input": 0.2, "output": "0.60", "from": "2025-01-01"},
        {"provider": "vllm", "model": "llama-3*", "input": 0.1, "output": 0.3, "from": "2026-01-01"},
        {"provider": "vllm", "model": "llama-3*", "input": 0.05, "output": 0.3, "from": "2027-01-01"},
        {"provider": "vllm", "model": "llama-3*", "over": 200000, "input": 0.25, "from": "2026-01-01"},
        {"provider": "vllm", "model": "qwen", "input": 4, "hours": "20:00-06:00"},
        {"provider": "vllm", "model": "qwen", "input": 5, "cached": 0.000000001, "search": 0.01, "request": 1},
        {
            "provider": "other",
            "model": "gpt-4o-mini",
            "input": 1,
            "cache_write": 2,
            "cache_write_1h": 3,
            "reasoning": 0,
        },
        {"provider": "other", "model": "free"},
    ],
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "prices").write_text(json.dumps(TABLE))
    return str(tmp_path / "prices")


def shown(*argv: str, table: str = "") -> Said:
    said = give("prices", *argv, environ={"LLM_PROXY_PRICES": table})
    assert (said.code, said.errors) == (0, "")
    return said


def test_what_holds_now_and_what_will(table: str) -> None:
    said = shown("--provider", "vllm", table=table)
    head, _, *lines = said.out.split("\n")
    assert head.startswith("Prices of ") and "acme-1, in dollars for a million tokens" in head
    assert lines == [
        "",
        "provider  model     input  output       cached  search  request  holds",
        "vllm      llama-3*   0.05     0.3                                from 2027-01-01",
        "vllm      llama-3*    0.1     0.3                                from 2026-01-01",
        "vllm      llama-3*   0.25     0.3                                from 2026-01-01, over 200,000",
        "vllm      qwen          4                                        20:00-06:00",
        "vllm      qwen          5          0.000000001    0.01        1",
        "",
    ]


@pytest.mark.parametrize(
    ("asked", "models"),
    [
        ("llama-3.3-70b", {"llama-3*"}),
        ("LLAMA-3", {"llama-3*"}),
        ("llama", {"llama-3*"}),
        ("*a-3*", {"llama-3*"}),
        ("llama-4", set()),
        ("gpt-4o-mini-2024-07-18", {"gpt-4o-mini"}),
        ("gpt-4o-mini@20240718", {"gpt-4o-mini"}),
        ("xgpt-4o-mini", set()),
        ("qwe*", {"qwen"}),
        ("*", {"llama-3*", "qwen", "gpt-4o-mini", "free"}),
        (".", set()),
        ("", {"llama-3*", "qwen", "gpt-4o-mini", "free"}),
    ],
)
def test_a_name_stands_for_the_rows_that_would_be_asked_and_those_that_have_it(asked: str, models: set[str]) -> None:
    rows = prices.rows_of(Prices.of(json.dumps(TABLE).encode()), NOW, asked, None)
    assert {row.price.model for row in rows} == models


def test_json_has_exact_figures(table: str) -> None:
    document = json.loads(shown("gpt-4o-mini", "--provider", "OTHER", "--json", table=table).out)
    assert document["version"].endswith("acme-1")
    assert document["prices"] == [
        {
            "version": "acme-1",
            "provider": "other",
            "model": "gpt-4o-mini",
            "from": None,
            "hours": None,
            "over": None,
            "input": "1",
            "output": None,
            "cached": None,
            "cache_write": "2",
            "cache_write_1h": "3",
            "reasoning": "0",
            "search": None,
            "request": None,
        }
    ]


def test_a_row_that_says_that_nothing_is_known_is_shown_as_that(table: str) -> None:
    line = shown("free", "--provider", "other", table=table).out.split("\n")[-2]
    assert line.split() == ["other", "free", "not", "known"]


def test_the_users_table_comes_first_and_ours_after_it(table: str) -> None:
    providers = [row["provider"] for row in json.loads(shown("gpt-4o-mini", "--json", table=table).out)["prices"]]
    assert providers[0] == "other"
    assert "openai" in providers[1:]


def test_ours_is_there_without_any_other() -> None:
    assert "\nopenai " in shown("gpt-4o", "--provider", "openai").out
    assert shown("no-such-model").out.startswith("No such price is known.")
    assert json.loads(shown("no-such-model", "--json").out)["prices"] == []


def test_a_table_that_cannot_be_used_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "prices"
    file.write_text('{"prices": [{"provider": "x"}, {"model": "y"}]}')
    said = give("prices", environ={"LLM_PROXY_PRICES": str(file)})
    assert (said.code, said.out) == (2, "")
    assert said.errors.startswith("llm-proxy: error: LLM_PROXY_PRICES: ")
    assert "price 1" in said.errors and "price 2" in said.errors and "version" in said.errors
    file.unlink()
    said = give("prices", environ={"LLM_PROXY_PRICES": str(file)})
    assert (said.code, said.errors) == (2, "llm-proxy: error: LLM_PROXY_PRICES: the file cannot be read\n")


# --- which rows of a name are shown, and in which order ---------------------------------------------------------------

MANY = {
    "version": "acme-1",
    "prices": [
        {"provider": "copilot", "model": "gpt-4o"},
        {"provider": "copilot", "model": "gpt-4o-mini", "input": 9},
        {"provider": "acme", "model": "gpt-4*", "input": 8},
        {"provider": "openrouter", "model": "openai/gpt-4o", "input": 7},
        {"provider": "openrouter", "model": "gpt-4o", "input": 6},
        {"provider": "openai", "model": "chatgpt-4o-latest", "input": 5},
        {"provider": "openai", "model": "gpt-4o", "input": 4},
    ],
}


def chosen(model: str | None, is_all: bool = False) -> list[str]:
    found = list(prices.rows_of(Prices.of(json.dumps(MANY).encode()), NOW, model, None))
    return [f"{row.price.provider} {row.price.model}" for row in prices.chosen(found, model, is_all)]


def test_a_model_is_that_model_its_own_vendor_first_and_what_is_known() -> None:
    assert chosen("gpt-4o") == ["openai gpt-4o", "openrouter gpt-4o", "acme gpt-4*"]
    assert chosen("GPT-4o-2024-08-06") == chosen("gpt-4o")


def test_all_are_those_and_then_whatever_has_it_in_its_name() -> None:
    everything = chosen("gpt-4o", is_all=True)
    assert everything[:4] == ["openai gpt-4o", "openrouter gpt-4o", "copilot gpt-4o", "acme gpt-4*"]
    assert sorted(everything[4:]) == ["copilot gpt-4o-mini", "openai chatgpt-4o-latest", "openrouter openai/gpt-4o"]


def test_a_part_of_a_name_finds_all_that_have_it_where_none_has_it_alone() -> None:
    assert chosen("4o-lat") == ["openai chatgpt-4o-latest"]


def test_without_a_name_only_what_is_not_known_is_hidden() -> None:
    assert len(chosen(None)) == len(MANY["prices"]) - 1
    assert len(chosen(None, is_all=True)) == len(MANY["prices"])


def test_what_is_hidden_is_counted() -> None:
    said = shown("gpt-4o", "--provider", "openai")
    assert said.out.split("\n")[3].startswith("provider")
    assert [line.split()[:2] for line in said.out.split("\n")[4:5]] == [["openai", "gpt-4o"]]
    assert "Not shown: " in said.out and " with more in their name" in said.out
    everything = shown("gpt-4o", "--provider", "openai", "--all")
    assert "Not shown" not in everything.out
    assert "gpt-4o-mini" in everything.out and "not known" in everything.out


def test_a_pipe_gets_whole_names_and_a_terminal_a_table_that_fits() -> None:
    argv = ("prices", "gpt-4o-mini-search-preview", "--all")
    long = "gpt-4o-mini-search-preview-2025-03-11"
    assert long in give(*argv, environ={"COLUMNS": "60"}).out
    said = give(*argv, environ={"COLUMNS": "60"}, out=Terminal()).out
    assert long not in said
    assert max(map(len, said.split("\n\n")[1].split("\n"))) <= 60
