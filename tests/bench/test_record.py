"""What is kept of a run: there and back, several as one, and nothing of the machine that is nobody's business."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from bench import record as records
from bench.record import Unreadable, clean, command_of, differing_versions, from_json, merge, read, to_json, write
from tests.bench.records import MACHINE, made_up, run


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = made_up(features=True)
    write(tmp_path / "a.json", record)
    again = read(tmp_path / "a.json")
    assert to_json(again) == to_json(record)
    assert again.contestants == record.contestants
    assert again.results.values("paced", "nginx", "cpu_us").keys() == set(range(7))


def test_rounds_count_from_one_and_keep_their_errors() -> None:
    record = made_up(rounds=2)
    record.results.measurements[-1].figures.errors.append("status 502")
    document = to_json(record)
    rounds = document["results"][-1]["rounds"]
    assert sorted({each["round"] for row in document["results"] for each in row["rounds"]}) == [1, 2]
    assert [error for row in document["results"] for each in row["rounds"] for error in each["errors"]] == [
        "status 502"
    ]
    assert rounds[0]["numbers"]
    assert from_json(document).results.errors() == record.results.errors()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 1, "results": [{}]}', '{"format": 0}'])
def test_what_is_no_record_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(Unreadable, match=r"b\.json: "):
        read(tmp_path / "b.json")
    with pytest.raises(Unreadable, match=r"c\.json"):
        read(tmp_path / "c.json")


def test_a_contestant_without_a_word_about_it_is_refused() -> None:
    document = to_json(made_up(rounds=1))
    del document["contestants"]["nginx"]
    with pytest.raises(Unreadable, match="nginx"):
        from_json(document)


def test_merged_runs_keep_their_pairs_and_number_their_rounds_through() -> None:
    one, other = made_up(rounds=2), made_up(rounds=3, features=True)
    whole = merge([one, other])
    assert sorted(whole.results.values("paced", "llm-proxy", "cpu_us")) == [0, 1, 2, 3, 4]
    assert sorted(whole.results.values("paced", "without-ledger", "cpu_us")) == [2, 3, 4]
    assert sorted(whole.results.values("memory", "llm-proxy", "rest_mib")) == [0, 2]
    assert [each["settings"]["rounds"] for each in whole.runs] == [2, 3]
    assert whole.contestants.keys() == other.contestants.keys()
    assert merge([one]).results.measurements == one.results.measurements


def test_runs_of_other_machines_or_loads_do_not_belong_together() -> None:
    with pytest.raises(Unreadable, match="different machines"):
        merge([made_up(rounds=1), made_up(rounds=1, machine={**MACHINE, "cores": 64})])
    with pytest.raises(Unreadable, match="different loads"):
        merge([made_up(rounds=1), made_up(rounds=1, settings={"paced_streams": 50, "rounds": 1})])


def test_another_version_under_the_same_name_is_noticed() -> None:
    versions = {**run()["versions"], "llm-proxy": "1234567"}
    whole = merge([made_up(rounds=1), made_up(rounds=1, versions=versions)])
    assert differing_versions(whole) == ["llm-proxy: abcdef0, 1234567"]
    assert differing_versions(merge([made_up(rounds=1), made_up(rounds=1)])) == []


def test_who_was_absent_in_one_run_and_measured_in_another_was_not_skipped() -> None:
    absent = {"nginx": "not installed", "nobody": "not installed"}
    assert made_up(rounds=1, skipped=absent).skipped() == {"nobody": "not installed"}


def test_no_folder_and_no_address_of_this_machine_is_kept() -> None:
    checkout = str(Path(records.__file__).resolve().parent.parent)
    home = "/" + "home/somebody/x.py"
    said = f"{checkout}/bench/a.py: no {home}, {tempfile.gettempdir()}/bench-x/y at https://packages.example/simple"
    assert clean(said) == "./bench/a.py: no (a path), TMP/bench-x/y at (an address)"
    assert clean("asked http://127.0.0.1:80/v1") == "asked http://127.0.0.1:80/v1"
    record = made_up(rounds=1)
    record.results.measurements[0].figures.errors.append(said)
    assert checkout not in json.dumps(to_json(record)) and "somebody" not in json.dumps(to_json(record))


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "scripts/bench"),
        (["--quick", "--json", "x/a.json", "--rounds", "2"], "scripts/bench --quick --rounds 2"),
        (["--report", "--peers"], "scripts/bench --peers"),
        (["--report=x", "--json=y", "--only", "paced"], "scripts/bench --only paced"),
        (["--rounds", "2", "--report", "x"], "scripts/bench --rounds 2"),
    ],
)
def test_the_command_is_kept_without_its_files(arguments: list[str], command: str) -> None:
    assert command_of(arguments) == command


def test_roles_choose_who_is_named() -> None:
    record = made_up(rounds=1, features=True)
    assert record.named("ours") == ["llm-proxy"]
    assert record.named("gateway") == ["a-router-in-rust", "the-slowest-gateway-of-all"]
    assert len(record.named("feature")) == 3
