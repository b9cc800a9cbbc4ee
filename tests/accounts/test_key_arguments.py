"""What can be said to `keys`, and that argparse refuses the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.accounts import keys
from proxy.cli import main
from tests.accounts.stage import give

PARTS = "create list show change disable enable rotate remove group groups lost settle".split()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_explains_itself_and_knows_where_the_ledger_is(
    part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["keys", part, "--help"]) == 0
    said = capsys.readouterr().out
    assert [option for option in ("--db", "--json", "--seconds") if option not in said] == []


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_a_command(part: str) -> None:
    assert callable(getattr(keys, "list_all" if part == "list" else part))


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["vacuum"],
        ["create"],
        ["create", "a", "--raw", "--no-raw"],
        ["create", "a", "--colour", "red"],
        ["rotate", "a", "--keep", "7d", "--now"],
        ["group", "a"],
        ["group", "a", "--limits", "", "--remove"],
        ["settle"],
        ["settle", "x"],
        ["settle", "1" * 16],
        ["settle", "-1"],
    ],
)
def test_wrong_usage_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", *argv]) == 2
    assert "usage:" in capsys.readouterr().err


def test_what_was_not_said_is_told_from_what_was_cleared(tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    assert give("keys", "create", "a", "--db", path, "--raw").code == 0
    assert give("keys", "change", "a", "--db", path, "--owner", "").code == 0
    assert '"raw": true' in give("keys", "show", "a", "--db", path, "--json").out
    assert give("keys", "change", "a", "--db", path, "--raw-by-limits").code == 0
    assert '"raw": null' in give("keys", "show", "a", "--db", path, "--json").out
