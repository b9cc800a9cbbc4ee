"""Check, export and prune: what is wrong is said with its number, nothing is overwritten, nothing goes by mistake."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from proxy.ledger import reader, schema
from proxy.ledger.run import LOST, OBSERVED, RunFile
from tests.accounts.stage import HOSTILE, Said, give, is_harmless, spill
from tests.ledger.filled import DAY, FAILED, NOW, fill, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


def ledger(path: Path, *argv: str, **environ: str) -> Said:
    return give("ledger", argv[0], "--db", str(path), *argv[1:], environ=environ)


def run(path: Path, name: str, **columns: Any) -> None:
    connection = schema.connect(str(path), 5.0)
    put(connection, "runs", {"id": name, "started_at": NOW, "pid": 7, "observed": 0, "written": 0, **columns})
    connection.close()


# --- check ------------------------------------------------------------------------------------------------------------


def test_a_whole_ledger(path: Path) -> None:
    fill(path, {"started_at": NOW - DAY, "attempts": 2}, {})
    run(path, "r", ended_at=NOW, observed=2, written=2, lost=0)
    said = ledger(path, "check")
    assert (said.code, said.errors) == (0, "")
    first, *rest = said.out.split("\n")
    assert first.startswith(f"ledger    {path}  (0.") and first.endswith(f" MB, schema {schema.VERSION})")
    assert rest == [
        "rows      2 exchanges, begun 2026-11-24 12:00 to 2026-11-25 11:00 UTC; 2 attempts",
        "runs      1",
        "Nothing is missing, and the file is sound.",
        "",
    ]


def test_what_is_missing_is_said_run_by_run(path: Path) -> None:
    fill(path, {}, {})
    run(path, "r1", ended_at=NOW, started_at=NOW - DAY, observed=9, written=8, lost=1)
    run(path, "r2", observed=1200, written=1100, lost=100)
    run(path, "r", written=2)
    run(path, "r0", started_at=NOW - 2 * DAY)
    file = RunFile(f"{path}-run", 0.0, str(path))
    file.begin("r")[0] = 9
    file.close()
    spill(path, NOW)
    with Path(f"{path}-spill").open("ab") as torn:
        torn.write(b"torn")
    said = ledger(path, "check")
    assert (said.code, said.errors) == (1, "")
    assert said.out.split("\n")[2:] == [
        "runs      4",
        f"spilled   1 receipt in {path}-spill, not yet in the tables: the next `llm-proxy serve` adds them",
        f"spilled   1 line of {path}-spill cannot be read",
        "lost      100 of 1,200 receipts of run r2, begun 2026-11-25 12:00 UTC, which was killed",
        "lost      6 of 9 receipts of run r, begun 2026-11-25 12:00 UTC, which was killed",
        "lost      1 of 9 receipts of run r1, begun 2026-11-24 12:00 UTC, which had nowhere left to write (disk full?)",
        "lost      an unknown number of 0 receipts of run r0, begun 2026-11-23 12:00 UTC, which was killed",
        "lost      107 receipts in all",
        "",
    ]
    assert json.loads(ledger(path, "check", "--json").out)["lost"] == 107
    since = ledger(path, "check", "--since", "today", "--json")
    assert [loss["run"] for loss in json.loads(since.out)["losses"]] == ["r2", "r"]


def test_a_running_process_is_named(path: Path) -> None:
    fill(path)
    run(path, "r")
    file = RunFile(f"{path}-run", 0.0, str(path))
    file.begin("r")[0] = 1234
    said = ledger(path, "check")
    file.close()
    assert said.code == 0
    assert f"writer    process {os.getpid()}: 1,234 receipts so far, 1,234 on their way\n" in said.out


def test_the_document_of_a_check(path: Path) -> None:
    fill(path, {"attempts": 1})
    run(path, "r", ended_at=NOW, observed=1, written=1, lost=0)
    document = json.loads(ledger(path, "check", "--json").out)
    assert document.pop("size") > 0
    assert document == {
        "path": str(path),
        "version": schema.VERSION,
        "exchanges": 1,
        "attempts": 1,
        "first": "2026-11-25T11:00:00.000Z",
        "last": "2026-11-25T11:00:00.000Z",
        "runs": 1,
        "writer": None,
        "underway": 0,
        "spilled": 0,
        "unreadable": 0,
        "losses": [],
        "damages": [],
        "lost": 0,
        "problems": [],
    }


def test_damage_is_a_failure(path: Path) -> None:
    fill(path, {"attempts": 2})
    connection = schema.connect(str(path), 5.0)
    connection.execute("DELETE FROM attempts WHERE number = 1")
    connection.close()
    said = ledger(path, "check")
    assert said.code == 1
    assert "\ndamage    exchanges that have other attempts than they say: 1\n" in said.out


def test_names_of_runs_reach_no_terminal_as_they_are(path: Path) -> None:
    fill(path)
    run(path, HOSTILE, lost=5)
    assert is_harmless(ledger(path, "check").out)
    assert is_harmless(ledger(path, "check", "--json").out)


def test_what_a_running_process_lost_is_told_from_what_is_on_its_way(path: Path) -> None:
    fill(path)
    run(path, "r", started_at=NOW - 2 * DAY, written=3)
    file = RunFile(f"{path}-run", 0.0, str(path))
    counter = file.begin("r")
    counter[OBSERVED], counter[LOST] = 12, 4
    said = ledger(path, "check", "--since", "today")  # it runs today
    assert "Nothing else is wrong" not in ledger(path, "check").out
    file.close()
    assert said.code == 1
    assert said.out.split("\n")[3:] == [
        f"writer    process {os.getpid()}: 12 receipts so far, 5 on their way",
        "lost      4 of 12 receipts of the running process, begun 2026-11-23 12:00 UTC, "
        "which had nowhere left to write (disk full?)",
        "",
    ]


def test_where_only_old_losses_are_wrong_it_says_how_to_leave_them_out(path: Path) -> None:
    fill(path)
    run(path, "r1", started_at=NOW - 3 * DAY, lost=2)
    run(path, "r2", started_at=NOW - 2 * DAY, lost=1)
    said = ledger(path, "check")
    assert said.code == 1
    assert said.out.endswith(
        "Nothing else is wrong. These runs have ended; `--since 2026-11-23T12:01` leaves out what they lost.\n"
    )
    said = ledger(path, "check", "--since", "2026-11-23T12:01")
    assert said.code == 0
    assert said.out.endswith(
        "Nothing is missing of runs that started 2026-11-23 12:01 UTC or later, and the file is sound.\n"
    )
    spill(path, NOW)
    assert "Nothing else is wrong" not in ledger(path, "check").out


def test_a_damaged_file_is_no_riddle(path: Path) -> None:
    fill(path, *[{"detail": "x" * 500, "attempts": 1}] * 200)
    with path.open("r+b") as file:
        file.seek(12 * 4096)
        file.write(b"\xff" * 4096 * 4)
    said = ledger(path, "check")
    assert said.code == 1
    advice = "move it away with its -wal file, and get out what can still be read: `sqlite3 a.db .recover | sqlite3 "
    assert advice in said.out + said.errors
    assert "ledger check" not in said.out + said.errors


# --- export -----------------------------------------------------------------------------------------------------------


def test_json_lines_hold_each_exchange_with_its_attempts(path: Path) -> None:
    fill(path, {"key": HOSTILE, "attempts": 2}, {"started_at": NOW - 2 * DAY}, {"key": "other"})
    said = ledger(path, "export")
    assert (said.code, said.errors) == (0, "")
    assert is_harmless(said.out)
    documents = [json.loads(line) for line in said.out.splitlines()]
    assert [document["id"] for document in documents] == ["r-2", "r-1", "r-3"]
    assert list(documents[0]) == list(schema.EXCHANGES)
    assert documents[1]["key"] == HOSTILE
    assert [(a["number"], a["provider"]) for a in documents[1]["attempts"]] == [(1, "openai"), (2, "openai")]


def test_csv_has_a_column_for_each_of_the_table(path: Path) -> None:
    fill(path, {"key": HOSTILE, "path": "=1+1", "attempts": 2}, FAILED)
    said = ledger(path, "export", "--format", "csv")
    assert is_harmless(said.out)
    first, second = csv.DictReader(io.StringIO(said.out))
    assert list(first) == list(schema.EXCHANGES)
    assert (first["attempts"], first["path"], first["input_tokens"]) == ("2", "'=1+1", "1000")
    assert (second["attempts"], second["input_tokens"]) == ("0", "")


def test_only_what_is_wanted_is_exported(path: Path) -> None:
    fill(path, {"started_at": NOW - 2 * DAY}, {}, {"key": "other"})
    said = ledger(path, "export", "--since", "yesterday", "--until", "now", "--key", "billing")
    assert [json.loads(line)["id"] for line in said.out.splitlines()] == ["r-2"]
    assert ledger(path, "export", "--key", "nobody").out == ""
    assert ledger(path, "export", "--key", "nobody", "--format", "csv").out.count("\n") == 1


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_an_export_into_a_file_is_the_same_and_as_private_as_the_ledger(
    path: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "PAGE", 2)
    fill(path, *[{"key": "ä"}] * 5)
    file = tmp_path / "out"
    said = ledger(path, "export", "--format", form, "-o", str(file))
    assert (said.code, said.out) == (0, f"5 exchanges written to {file}\n")
    assert file.read_text(encoding="utf-8") == ledger(path, "export", "--format", form).out
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_an_export_overwrites_nothing(path: Path) -> None:
    fill(path, {})
    before = path.read_bytes()
    said = ledger(path, "export", "-o", str(path))
    assert (said.code, said.out) == (2, "")
    assert said.errors.endswith("a.db cannot be written: File exists\n")
    assert path.read_bytes() == before


# --- prune ------------------------------------------------------------------------------------------------------------


def count(path: Path) -> int:
    with reader.LedgerReader(str(path)) as ledger:
        return ledger.totals(["key"]).total.requests


def test_what_is_older_than_so_many_days_goes(path: Path) -> None:
    fill(path, {"started_at": NOW - 3 * DAY}, {"started_at": NOW - 1.6 * DAY}, {"started_at": NOW - 1.4 * DAY}, {})
    said = ledger(path, "prune", "--days", "1.5")
    assert (said.code, said.errors) == (0, "")
    assert said.out.startswith("2 exchanges removed; the file is 0.0 MB smaller")
    assert count(path) == 2


def test_the_oldest_go_until_the_size_is_enough(path: Path) -> None:
    fill(path, *({"started_at": NOW - 5000 + n, "detail": "x" * 4000} for n in range(500)))
    size = path.stat().st_size
    document = json.loads(ledger(path, "prune", "--size", "1M", "--json").out)
    assert 0 < document["exchanges"] < 500
    assert document["bytes"] > 0
    assert path.stat().st_size == size - document["bytes"]
    assert count(path) == 500 - document["exchanges"]


def test_without_bounds_of_its_own_it_takes_those_of_serve(path: Path) -> None:
    fill(path, {"started_at": NOW - 3 * DAY}, {})
    assert ledger(path, "prune", LLM_PROXY_DB_DAYS="7").code == 0
    assert count(path) == 2
    assert ledger(path, "prune", LLM_PROXY_DB_DAYS="2").code == 0
    assert count(path) == 1


def test_a_bound_that_is_given_is_the_only_one(path: Path) -> None:
    fill(path, {"started_at": NOW - 3 * DAY}, {})
    assert ledger(path, "prune", "--size", "500M", LLM_PROXY_DB_DAYS="2").code == 0
    assert count(path) == 2


@pytest.mark.parametrize(
    ("argv", "environ", "sentence"),
    [
        ((), {}, "nothing says what may go"),
        ((), {"LLM_PROXY_DB_DAYS": "0", "LLM_PROXY_DB_SIZE": "0"}, "nothing says what may go"),
        (("--days", "0"), {}, "--days: must be a number of days more than 0"),
        (("--days=-1",), {}, "--days: must be"),
        (("--days", "nan"), {}, "--days: must be"),
        (("--days", "inf"), {}, "--days: must be"),
        (("--days", "x"), {}, "--days: must be"),
        (("--size", "0"), {}, "--size: must be a number of bytes"),
        (("--size", "1T"), {}, "--size: must be"),
        (("--size", "1"), {}, "--size: must be 1M or more"),
        (("--size", "1023k", "--dry-run"), {}, "--size: must be 1M or more"),
        ((), {"LLM_PROXY_DB_SIZE": "500"}, "LLM_PROXY_DB_SIZE: must be 1M or more"),
        ((), {"LLM_PROXY_DB_DAYS": "soon"}, "LLM_PROXY_DB_DAYS: must be"),
        ((), {"LLM_PROXY_DB_SIZE": "much"}, "LLM_PROXY_DB_SIZE: must be"),
    ],
)
def test_nothing_goes_by_mistake(path: Path, argv: tuple[str, ...], environ: dict[str, str], sentence: str) -> None:
    fill(path, {"started_at": 0.0})
    said = ledger(path, "prune", *argv, **environ)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.errors
    assert count(path) == 1


def test_a_dry_run_says_how_many_would_go_and_removes_none(path: Path) -> None:
    fill(path, {"started_at": NOW - 3 * DAY}, {"started_at": NOW - 2 * DAY}, {})
    said = ledger(path, "prune", "--days", "2.5", "--dry-run")
    assert said == (0, "1 exchange would be removed; none was\n", "")
    assert json.loads(ledger(path, "prune", "--days", "1", "--dry-run", "--json").out) == {
        "exchanges": 2,
        "dry_run": True,
    }
    assert count(path) == 3


def test_a_dry_run_by_size_is_near_the_truth(path: Path) -> None:
    fill(path, *({"started_at": NOW - 5000 + n, "detail": "x" * 4000} for n in range(1000)))
    said = json.loads(ledger(path, "prune", "--size", "2M", "--dry-run", "--json").out)["exchanges"]
    assert (
        ledger(path, "prune", "--size", "2M", "--dry-run").out == f"about {said} exchanges would be removed; none was\n"
    )
    done = json.loads(ledger(path, "prune", "--size", "2M", "--json").out)["exchanges"]
    assert abs(said - done) <= 200  # the rows of one step
    assert ledger(path, "prune", "--size", "2M", "--dry-run").out.startswith("about 0 exchanges")
