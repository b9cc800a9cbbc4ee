"""Who is measured: everybody under one name, the floor and the direct way among them."""

from __future__ import annotations

from pathlib import Path

from bench.contestants import CONTESTANTS, FEATURES, make_key


def test_everybody_is_under_their_own_name() -> None:
    assert all(each.name == name for name, each in CONTESTANTS.items())
    assert [name for name, each in CONTESTANTS.items() if each.by_default] == [
        "direct",
        "splice",
        "nginx",
        "haproxy",
        "llm-proxy",
    ]
    assert FEATURES.items() <= CONTESTANTS.items()


def test_only_the_sidecar_can_refuse_keys_or_keep_a_ledger() -> None:
    for name in ("direct", "splice", "nginx", "haproxy"):
        assert not CONTESTANTS[name].checks_keys
        assert not CONTESTANTS[name].ledger
    assert CONTESTANTS["llm-proxy"].checks_keys


def test_splice_gets_the_upstream(tmp_path: Path) -> None:
    splice = CONTESTANTS["splice"]
    assert splice.start is not None
    assert splice.start(4711, tmp_path, "key").command[-2:] == ["bench.splice", "4711"]


def test_keys_are_long_and_new() -> None:
    assert len(make_key()) == 32
    assert make_key() != make_key()
