"""Options: defaults, who is chosen, what excludes what."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.contestants import CONTESTANTS, FEATURES
from bench.options import REPORT_FOLDER, chosen, everybody, parse
from bench.peers import contestants as peers

DEFAULTS = [each.name for each in CONTESTANTS.values() if each.by_default]


def test_seven_rounds_or_two_in_a_quick_run_or_as_asked() -> None:
    assert [parse(each.split()).rounds for each in ("", "--quick", "--rounds 3", "--quick --rounds 4")] == [7, 2, 3, 4]


def test_features_and_peers_come_to_the_others() -> None:
    assert chosen(parse([])) == DEFAULTS
    with_features = chosen(parse(["--features"]))
    assert with_features[: len(DEFAULTS)] == DEFAULTS
    assert set(with_features) == set(DEFAULTS) | set(FEATURES)
    expected = {name for name, each in peers().items() if each.by_default}
    assert set(chosen(parse(["--peers"]))) == set(DEFAULTS) | expected
    assert set(chosen(parse(["--peers", "--features"]))) == set(DEFAULTS) | expected | set(FEATURES)
    assert len(with_features) == len(set(with_features))


def test_features_bring_what_they_are_compared_with() -> None:
    assert "llm-proxy" in chosen(parse(["--features", "--contestants", "nginx"]))


def test_who_is_named_is_all_that_is_taken_of_peers_and_features() -> None:
    peer = next(name for name in peers() if name not in CONTESTANTS)
    assert chosen(parse(["--peers", "--contestants", f"direct,{peer}"])) == ["direct", peer]
    feature = next(name for name in FEATURES if name != "llm-proxy")
    assert chosen(parse(["--features", "--contestants", f"llm-proxy,{feature}"])) == ["llm-proxy", feature]


def test_everybody_is_known_by_name() -> None:
    assert set(everybody()) == {*CONTESTANTS, *FEATURES, *peers()}
    assert everybody()["haproxy"] is CONTESTANTS["haproxy"], "ours knows TLS"


def test_a_report_has_its_folder() -> None:
    assert parse([]).report is None
    assert parse(["--report"]).report == REPORT_FOLDER
    assert parse(["--report", "x"]).report == Path("x")
    assert parse(["--from", "a", "b", "--report"]).records == [Path("a"), Path("b")]


@pytest.mark.parametrize(
    "line",
    [
        "--rounds 0",
        "--only nothing",
        "--contestants nobody",
        "--contestants ,",
        "--from a --compare a b",
        "--from a --quick",
        "--from a --peers",
        "--compare a b --rounds 3",
        "--compare a b --report",
        "--compare a",
    ],
)
def test_what_makes_no_sense_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(line.split())
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_help_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in everybody())
