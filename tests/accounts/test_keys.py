"""The commands for keys: what they change, what they say, and that a value is seen once and kept nowhere."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.accounts import keys as module
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from tests.accounts.stage import HOSTILE, Said, Terminal, give, is_harmless
from tests.ledger.filled import DAY, NOW

VALUE = re.compile(r"lp-[A-Za-z0-9_-]{43}")
CHOSEN = "chosen-by-its-user-1234"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.db"


@pytest.fixture(autouse=True)
def announced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that a running server was told of."""
    told: list[str] = []
    monkeypatch.setattr(module, "announce", told.append)
    return told


def keys(path: Path, *argv: str, **more: Any) -> Said:
    return give("keys", argv[0], "--db", str(path), *argv[1:], **more)


def row(path: Path, name: str) -> KeyRow:
    with KeyStore(str(path), 1.0) as store:
        found = store.key(name)
    assert found is not None
    return found


def made(path: Path, *argv: str) -> str:
    """Create a key; its value."""
    said = keys(path, "create", *argv)
    assert (said.code, said.errors.count("error")) == (0, 0), said
    return said.out.strip()


# --- values -----------------------------------------------------------------------------------------------------------


def test_a_key_is_made_with_its_ledger_and_printed_alone(path: Path, announced: list[str]) -> None:
    said = keys(path, "create", "ci")
    assert said.code == 0
    value = said.out.removesuffix("\n")
    assert VALUE.fullmatch(value)
    assert said.errors == "llm-proxy: note: this is the key of ci; it is not kept and cannot be shown again\n"
    found = row(path, "ci")
    assert found == KeyRow("ci", digest_of(value), value[:10], created_at=NOW, changed_at=NOW, revision=1)
    assert announced == [str(path)]


def test_everything_that_a_key_may_have_is_kept(path: Path) -> None:
    assert keys(path, "group", "team", "--limits", "").code == 0
    made(
        path, "ci", "--limits", " rpm=60  20usd/month ", "--group", "team", "--owner", "Ann B", "--tag", "a, b",
        "--tag", "c", "--models", "gpt-4o*  fast", "--providers", "openai vllm", "--disconnect", "drain:30",
        "--expires", "90d", "--no-raw",
    )  # fmt: skip
    found = row(path, "ci")
    assert found[6:16] == (
        "Ann B", "a,b,c", "team", "gpt-4o* fast", "openai vllm", "rpm=60 20usd/month", "drain:30", 0, None,
        NOW + 90 * DAY,
    )  # fmt: skip


def test_a_key_of_a_user_id_has_no_value(path: Path) -> None:
    said = keys(path, "create", "app", "--uid", "1000")
    assert said == (0, "app is user id 1000 at a Unix socket, without a value\n", "")
    assert row(path, "app")[1:3] == (None, None)
    assert VALUE.search(keys(path, "rotate", "app").out)
    assert row(path, "app").old_digest is None


def test_a_value_may_be_given_and_is_then_not_printed(path: Path) -> None:
    said = keys(path, "create", "ci", "--value-from-stdin", given=io.StringIO(f"{CHOSEN}\nmore\n"))
    assert said == (0, "ci has the value that was given (chose…)\n", "")
    assert row(path, "ci").digest == digest_of(CHOSEN)
    said = keys(path, "rotate", "ci", "--value-from-stdin", "--json", given=io.StringIO(f"{CHOSEN}2"))
    assert (json.loads(said.out)["value"], CHOSEN in said.out + said.errors) == (None, False)
    assert row(path, "ci").digest == digest_of(f"{CHOSEN}2")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "there is nothing to read"),
        (Terminal("x"), "there is nothing to read"),
        (io.StringIO(""), "a key has 16 or more visible ASCII characters"),
        (io.StringIO("secret-of-few"), "a key has 16 or more visible ASCII characters"),
        (io.StringIO("secret with blanks in it"), "a key has 16 or more visible ASCII characters"),
        (io.TextIOWrapper(io.BytesIO(b"secret\xff\xfe" * 9), "utf-8"), "is no text"),
    ],
)
def test_what_cannot_be_a_value_is_refused_without_it(path: Path, given: Any, sentence: str) -> None:
    said = keys(path, "create", "ci", "--value-from-stdin", given=given)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.errors
    assert "secret" not in said.errors
    assert not path.exists()


def test_a_rotation_says_until_when_the_old_value_is_valid(path: Path) -> None:
    old = made(path, "ci")
    said = keys(path, "rotate", "ci")
    assert VALUE.fullmatch(said.out.strip())
    assert said.errors.endswith(f"the old key of ci ({old[:10]}…) is valid until 2026-12-02 12:00 UTC\n")
    found = row(path, "ci")
    assert found[1:6] == (digest_of(said.out.strip()), said.out[:10], digest_of(old), old[:10], NOW + 7 * DAY)
    assert f"until 2026-12-02 12:00 UTC also {old[:10]}…" in keys(path, "show", "ci").out
    later = keys(path, "show", "ci", now=NOW + 7 * DAY).out
    assert old[:10] not in later


@pytest.mark.parametrize(
    ("option", "until"),
    [
        (("--keep", "24h"), NOW + DAY),
        (("--until", "2026-11-27"), NOW + 1.5 * DAY),
        (("--now",), None),
    ],
)
def test_how_long_the_old_value_stays_can_be_said(path: Path, option: tuple[str, ...], until: float | None) -> None:
    made(path, "ci")
    before = keys(path, "rotate", "ci").out
    said = keys(path, "rotate", "ci", *option)
    assert row(path, "ci").old_until == until
    assert ("is valid no longer" in said.errors.split("\n")[1]) is (until is None)
    assert f"({before[:10]}…)" in said.errors
    assert said.errors.split("\n")[2].startswith("llm-proxy: note: the one before that (lp-")


def test_no_value_is_seen_twice_or_kept(path: Path, tmp_path: Path) -> None:
    """Every command is given; each value stands once in all that they print, and in no file."""
    printed = []
    chosen = io.StringIO(CHOSEN)
    keys(path, "group", "team", "--limits", "rpm=5")
    for argv, given in (
        (("create", "a"), None),
        (("create", "b", "--json"), None),
        (("create", "c", "--value-from-stdin"), chosen),
        (("rotate", "a"), None),
        (("rotate", "b", "--json"), None),
        (("list",), None),
        (("list", "--json", "--all"), None),
        (("show", "a"), None),
        (("show", "a", "--json"), None),
        (("change", "a", "--owner", "x", "--json"), None),
        (("disable", "a"), None),
        (("enable", "a"), None),
        (("remove", "b"), None),
        (("create", "a"), None),
        (("groups",), None),
        (("lost",), None),
    ):
        said = keys(path, *argv, given=given)
        printed.append(said.out + said.errors)
    values = VALUE.findall("".join(printed))
    assert (len(values), len(set(values))) == (4, 4)
    assert CHOSEN not in "".join(printed)
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert digest_of(values[2]).encode() in kept  # what is looked for would be found
    assert [value for value in [*values, CHOSEN] if value[:12].encode() in kept] == []


# --- changes ----------------------------------------------------------------------------------------------------------


def test_what_is_said_is_changed_and_an_empty_text_clears(path: Path, announced: list[str]) -> None:
    made(path, "ci", "--limits", "rpm=60", "--owner", "Ann", "--models", "x", "--raw", "--expires", "1d", "--tag", "a")
    assert keys(path, "change", "ci", "--limits", "rpm=5").out == "ci is changed\n"
    assert (row(path, "ci").limits, row(path, "ci").owner) == ("rpm=5", "Ann")
    clears = ("--limits", "", "--owner", " ", "--models=", "--expires", "", "--tag", "", "--raw-by-limits")
    assert keys(path, "change", "ci", *clears).code == 0
    assert row(path, "ci")[6:16] == (None, None, None, None, None, "", None, None, None, None)
    assert len(announced) == 3


def test_every_change_is_announced_and_nothing_else_is(path: Path, announced: list[str]) -> None:
    with KeyStore(str(path), 1.0) as store:
        store.add_lost("ci", 1, 1, NOW)
    for argv in (
        ("group", "team", "--limits", ""),
        ("create", "ci"),
        ("change", "ci", "--owner", "x"),
        ("disable", "ci"),
        ("enable", "ci"),
        ("rotate", "ci"),
        ("remove", "ci"),
        ("group", "team", "--remove"),
        ("settle", "1"),
    ):
        announced.clear()
        assert keys(path, *argv).code == 0
        assert announced == [str(path)], argv
    announced.clear()
    for argv in (("list",), ("groups",), ("lost",), ("create", "ci", "--group", "none")):
        keys(path, *argv)
    assert announced == []


def test_a_key_is_disabled_and_enabled(path: Path) -> None:
    made(path, "ci", "--expires", "1d")
    assert keys(path, "disable", "ci") == (0, "ci is disabled\n", "")
    assert json.loads(keys(path, "show", "ci", "--json").out)["state"] == "disabled"
    assert keys(path, "change", "ci", "--owner", "x").errors == "llm-proxy: note: ci is disabled\n"
    said = keys(path, "enable", "ci", now=NOW + 2 * DAY)
    assert said == (0, "ci is enabled\n", "llm-proxy: note: ci is expired\n")


def test_a_removed_key_is_gone_and_its_name_is_free(path: Path) -> None:
    made(path, "ci")
    assert keys(path, "remove", "ci") == (0, "ci is removed\n", "")
    assert keys(path, "list").out.startswith("There are no keys")
    assert json.loads(keys(path, "list", "--all", "--json").out)["keys"][0]["state"] == "removed"
    assert VALUE.search(keys(path, "create", "ci").out)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("create", "ci"), "there is a key called ci already"),
        (("create", "x", "--group", "none"), "there is no group called none: make it first"),
        (("create", "a b"), "a key's name has up to 64 letters, digits and . _ @ - and begins with a letter"),
        (("create", "lp-" + "x" * 43), "that is a key, and keys are called by their names"),
        (("create", HOSTILE), "a key's name has"),
        (("show", "cii"), "there is no key called cii; did you mean ci?"),
        (("show", "zzz"), "there is no key called zzz\n"),
        (("change", "zzz", "--owner", "x"), "there is no key called zzz\n"),
        (("change", "ci"), "nothing is to be changed: say what"),
        (("rotate", "zzz"), "there is no key called zzz\n"),
        (("rotate", "ci", "--keep", "0d"), "--keep: is over already"),
        (("rotate", "ci", "--until", "yesterday"), "--until: not a time; write one of: 30m"),
        (("remove", "zzz"), "there is no key called zzz\n"),
        (("group", "team", "--remove"), "1 key is in the group team: change them first"),
        (("group", "none", "--remove"), "there is no group called none"),
        (("group", "a b", "--limits", ""), "a group's name has"),
        (("settle", "9"), "there is nothing numbered 9 that is not settled"),
        (("settle", "1", "2", "--spent", "1usd"), "--spent is what one request used: settle them one by one"),
        (("settle", "1", "--spent", "much"), "--spent: write dollars, tokens or both"),
    ],
)
def test_what_makes_no_sense_is_said_and_nothing_is_changed_or_announced(
    path: Path, argv: tuple[str, ...], sentence: str, announced: list[str]
) -> None:
    keys(path, "group", "team", "--limits", "")
    made(path, "ci", "--group", "team")
    announced.clear()
    said = keys(path, *argv)
    assert (said.code, said.out, announced) == (2, "", [])
    assert sentence in said.errors
    assert is_harmless(said.errors)
    assert row(path, "ci").revision == 2


def test_all_that_is_wrong_is_said_at_once(path: Path) -> None:
    said = keys(path, "create", "ci", "--limits", "rpm=x 5eur/day", "--expires", "yesterday", "--uid", "root")
    assert said.code == 2
    lines = said.errors.splitlines()
    assert [line.split(": ")[2] for line in lines] == ["--limits", "--limits", "--expires", "--uid"]
    assert not path.exists()


# --- the ledger that is meant -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("argv", [("list",), ("show", "a"), ("rotate", "a"), ("groups",), ("lost",), ("remove", "a")])
def test_only_what_makes_something_makes_a_ledger(tmp_path: Path, argv: tuple[str, ...]) -> None:
    said = keys(tmp_path / "a.db", *argv)
    assert (said.code, said.out) == (1, "")
    assert "there is no ledger at" in said.errors
    assert list(tmp_path.iterdir()) == []


def test_a_group_makes_one(path: Path) -> None:
    assert keys(path, "group", "team", "--limits", "rpm=5").code == 0
    assert path.exists()


def test_without_a_ledger_there_are_no_keys(tmp_path: Path) -> None:
    said = give("keys", "create", "ci", environ={"LLM_PROXY_DB": "off"})
    assert (said.code, said.out) == (2, "")
    assert "LLM_PROXY_DB=off: no ledger is kept" in said.errors
    environ = {"LLM_PROXY_DB": str(tmp_path / "b.db")}
    assert give("keys", "create", "ci", environ=environ).code == 0
    assert "ci" in give("keys", "list", environ=environ).out


def test_a_file_of_something_else_is_left_alone(path: Path) -> None:
    path.write_text("my notes\n" * 100)
    said = keys(path, "create", "ci")
    assert (said.code, said.out) == (1, "")
    assert "is no SQLite database" in said.errors
    assert path.read_text() == "my notes\n" * 100


# --- groups, and what kills left --------------------------------------------------------------------------------------


def test_a_group_is_made_listed_and_removed(path: Path, announced: list[str]) -> None:
    assert keys(path, "group", "team", "--limits", "100usd/month").out == "the group team has 100usd/month\n"
    made(path, "ci", "--group", "team")
    assert keys(path, "groups").out == "group  keys  limits\nteam      1  100usd/month\n"
    [group] = json.loads(keys(path, "groups", "--json").out)["groups"]
    assert group == {"name": "team", "limits": "100usd/month", "keys": 1, "changed_at": "2026-11-25T12:00:00.000Z"}
    assert "group         team (100usd/month)\n" in keys(path, "show", "ci").out
    keys(path, "change", "ci", "--group", "")
    assert keys(path, "group", "team", "--remove", "--json").code == 0
    assert keys(path, "groups").out.startswith("There are no groups")
    assert len(announced) == 4
    said = keys(path, "group", "team", "--limits", "rpm=x tpm=y")
    assert [line.split(": ")[2] for line in said.errors.splitlines()] == ["--limits", "--limits"]


def test_what_a_kill_left_is_listed_and_settled(path: Path, announced: list[str]) -> None:
    with KeyStore(str(path), 1.0, lambda: NOW) as store:
        store.add_lost("ci", 50_000, 1200, NOW - 60)
        store.add_lost(HOSTILE, 7, 8, None)
    said = keys(path, "lost").out
    assert is_harmless(said)
    assert said.startswith("id  key ")
    assert " 2026-11-25 11:59 UTC  $0.050000   1,200\n" in said
    said = keys(path, "settle", "1", "--spent", "0.02usd 300tokens").out
    assert said == "1 request is settled, at $0.020000 and 300 tokens\n"
    assert keys(path, "settle", "2").out == "1 request is settled, at $0.000000 and 0 tokens\n"
    assert announced == [str(path)] * 2
    assert keys(path, "lost").out == "Nothing that a killed process had reserved counts.\n"
    first, _ = json.loads(keys(path, "lost", "--all", "--json").out)["lost"]
    assert (first["settled_micros"], first["settled_tokens"], first["micros"]) == (20_000, 300, 50_000)
    assert " $0.020000     300\n" in keys(path, "lost", "--all").out
