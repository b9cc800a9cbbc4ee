"""Keys in the ledger are as they are now: seen by the next request, closed where they cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider, Snapshot
from proxy.ledger.counters import Counters, beside, bump
from proxy.ledger.keys import KeyRow, KeyStore, digest_of
from proxy.ledger.models import ModelRow, ModelStore
from proxy.ledger.schema import LedgerUnusable
from proxy.policy.admission import Admission
from proxy.policy.keys import AuthMode, Disconnect, Key, KeyRing
from proxy.policy.limits import FOREVER, Demand, Hold, Limiter
from proxy.policy.rules import Rules, parse_rules
from proxy.relay.relay import Relay
from proxy.server import keys as module
from proxy.server.keys import StoredKeys
from proxy.server.lost import LostRequests
from proxy.server.models import StoredModels
from tests.policy.heads import head

SECOND = 10**9
NOW = 1_800_000_000 * SECOND + 600 * SECOND  # ten minutes into an hour: no window ends while a test runs
VALUE = "lp-0123456789abcdef"
OTHER = "lp-fedcba9876543210"
STATIC = "static-0123456789"
X = Provider("x", "openai", Origin("http", "127.0.0.1", 9))


class Place:
    """A ledger with keys, and what a server makes of it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "a.db")
        self.notes: list[tuple[str, str]] = []
        self.store = KeyStore(self.path, 1.0, lambda: NOW / SECOND)
        self.counters = self.open()
        self.admission = self.admits(AuthMode.KEYS)

    def note(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append((level, message))

    def open(self, now: int = NOW) -> Counters:
        return Counters(beside(self.path), self.note, now)

    def admits(self, mode: AuthMode) -> Admission:
        def window_end(window: str, now: int) -> int:
            return FOREVER if window == "total" else now - now % (3600 * SECOND) + 3600 * SECOND

        ring = KeyRing({"static": Secret(STATIC)} if mode is AuthMode.KEYS else {}, mode)
        limiter = Limiter(self.counters, window_end)
        is_off = mode is AuthMode.OFF
        return Admission(ring, limiter, browser_guard=is_off, hosts=frozenset(), streams_per_key=0)

    def serve(self, *, mode: AuthMode = AuthMode.KEYS, is_open: bool = False, carries: bool = False) -> StoredKeys:
        self.admission = self.admits(mode)
        static = frozenset({"static"}) if mode is AuthMode.KEYS or is_open else None
        lost = LostRequests(self.counters, self.admission, carries, self.note)
        self.relay = cast(Relay, SimpleNamespace(snapshot=Snapshot({"x": X})))
        self.models = StoredModels(self.path, self.relay, self.note)
        return StoredKeys(self.path, self.counters, self.admission, static, is_open, lost, self.models, self.note)

    def create(self, name: str, value: str = VALUE, **columns: Any) -> None:
        self.store.create(KeyRow(name, digest_of(value), value[:5], **columns))
        bump(beside(self.path))

    def who(self, value: str = VALUE, now: int = NOW) -> str | None:
        """The name of the key that this value opens, None: it opens nothing."""
        found = self.admission.admit(head(("x-api-key", value)), now)
        return getattr(found, "key", None)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.store.close()


def test_a_key_opens_as_soon_as_it_exists_and_no_longer_than_it_does(place: Place) -> None:
    stored = place.serve()
    assert place.who() is None
    place.create("ci")
    assert place.who() is None, "nobody has looked"
    stored.look()
    assert place.who() == "ci"
    place.store.change("ci", disabled=1)
    bump(beside(place.path))
    stored.look()
    assert place.who() is None
    place.store.change("ci", disabled=0)
    place.store.remove("ci")
    bump(beside(place.path))
    stored.look()
    assert place.who() is None
    assert place.who(STATIC) == "static"


def test_what_went_from_one_key_to_another_opens_that_one(place: Place) -> None:
    """Also where the one that had it was changed last; and afterwards the other one can be removed."""
    place.create("a", uid=1000)
    place.create("b", OTHER)
    stored = place.serve()
    place.store.change("a", uid=None)
    place.store.change("b", uid=1000)
    place.store.rotate("a", digest_of("lp-third"), "lp-t", None)
    place.store.rotate("b", digest_of(VALUE), VALUE[:5], None)
    place.store.change("a", owner="Ann")
    bump(beside(place.path))
    stored.look()
    assert place.who() == "b"
    assert getattr(place.admission.admit(head(), NOW, 1000), "key", None) == "b"
    place.store.remove("b")
    bump(beside(place.path))
    stored.look()
    assert place.who() is None
    assert getattr(place.admission.admit(head(), NOW, 1000), "key", None) is None


def test_all_that_a_key_is(place: Place) -> None:
    place.store.set_group("team", "rpm=7")
    place.create(
        "ci",
        key_group="team",
        models="gpt* o3",
        providers="openai",
        limits="rpm=5",
        disconnect="drain:9",
        raw=0,
        uid=12,
    )
    place.serve()
    key = place.admission.ring.named("ci")
    assert key is not None
    assert (key.group, key.models, key.providers) == ("team", ("gpt*", "o3"), frozenset({"openai"}))
    assert (key.disconnect, key.raw, key.uid, key.until) == (Disconnect(True, 9.0), False, 12, FOREVER)
    chain = place.admission.limiter.chain("ci", "team", (), None)
    assert [(scope, rule.name) for scope, rule in chain.names] == [("key ci", "rpm"), ("group team", "rpm")]
    assert getattr(place.admission.admit(head(), NOW, 12), "key", None) == "ci"
    assert getattr(place.admission.admit(head(), NOW, 13), "key", None) is None


def test_rotated_both_values_open_until_a_date(place: Place) -> None:
    place.create("ci")
    place.store.rotate("ci", digest_of(OTHER), OTHER[:5], NOW / SECOND + 60)
    place.serve()
    assert (place.who(), place.who(OTHER)) == ("ci", "ci")
    later = NOW + 61 * SECOND
    assert (place.who(now=later), place.who(OTHER, later)) == (None, "ci")


def test_a_key_expires(place: Place) -> None:
    place.create("ci", expires_at=NOW / SECOND + 60)
    place.serve()
    assert (place.who(), place.who(now=NOW + 61 * SECOND)) == ("ci", None)


def test_names_and_values_of_the_environment_come_first(place: Place) -> None:
    place.create("static", VALUE, limits="rpm=1")
    place.create("thief", STATIC)
    place.serve()
    assert (place.who(), place.who(STATIC)) == (None, "static")
    assert place.admission.limiter.rules("key static") == parse_rules("")
    assert [level for level, _ in place.notes] == ["warn", "warn"]


def test_a_key_or_a_group_whose_limits_cannot_be_read_is_closed(place: Place) -> None:
    place.create("ci", limits="nonsense")
    place.store.set_group("team", "nonsense")
    place.create("other", OTHER, key_group="team")
    place.serve()
    assert place.who() is None
    assert place.who(OTHER) == "other"
    chain = place.admission.limiter.chain("other", "team", (), None)
    assert not isinstance(place.admission.limiter.take(chain, ONE, NOW), Hold)
    assert [level for level, _ in place.notes] == ["error", "error"]


def test_the_limits_of_a_key_that_is_closed_stay_for_its_requests_that_wait(place: Place) -> None:
    place.create("ci", limits="rpm=5")
    stored, limiter = place.serve(), place.admission.limiter

    def then() -> Rules:
        bump(beside(place.path))
        stored.look()
        return limiter.rules("key ci")

    place.store.change("ci", disabled=1)
    assert then() == parse_rules("rpm=5")
    assert place.who() is None
    place.store.change("ci", limits="rpm=6")
    assert then() == parse_rules("rpm=6")
    place.store.change("ci", disabled=0, limits="nonsense")
    assert then() == parse_rules("rpm=6")
    assert place.who() is None
    place.store.remove("ci")
    assert then() == parse_rules("rpm=6")
    place.create("ci")
    assert then() == parse_rules("")


ONE = Demand((1, 0, 0, 0, 0), (1, 0, 0, 0, 0))


def test_a_changed_group_holds_at_once(place: Place) -> None:
    place.store.set_group("team", "rpm=7")
    stored = place.serve()
    place.store.set_group("team", "rpm=9")
    bump(beside(place.path))
    stored.look()
    assert place.admission.limiter.rules("group team") == parse_rules("rpm=9")
    place.store.remove_group("team")
    bump(beside(place.path))
    stored.look()
    assert place.admission.limiter.rules("group team") == parse_rules("")


def test_whoever_changed_keys_in_this_process_has_them_seen(place: Place) -> None:
    """Whatever the counters' file says; and not at each request from then on."""
    stored = place.serve()
    place.store.create(KeyRow("ci", digest_of(VALUE), VALUE[:5]))
    stored.look()
    assert place.who() is None
    stored.look_again()
    assert place.who() == "ci"
    place.store.change("ci", disabled=1)
    stored.look()
    assert place.who() == "ci", "nobody said so"


@pytest.mark.parametrize("mode", [AuthMode.KEYS, AuthMode.OFF, AuthMode.PASSTHROUGH])
def test_aliases_that_are_stored_are_looked_at_as_keys_are(place: Place, mode: AuthMode) -> None:
    """Also where no keys are used."""
    stored = place.serve(mode=mode)
    with ModelStore(place.path, 1.0) as models:
        models.put("fast", "fast = x/m")
        stored.look()
        assert place.relay.snapshot.aliases == {}, "nobody has said so"
        bump(beside(place.path))
        stored.look()
        assert [*place.relay.snapshot.aliases] == ["fast"]
        models.remove("fast")
    stored.look_again()
    assert place.relay.snapshot.aliases == {}
    stored.close()
    with pytest.raises(LedgerUnusable, match="closed"):
        place.models.look()


def test_aliases_that_cannot_be_read_now_are_read_later(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, now, waits = place.serve(), [0.0], [1.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with ModelStore(place.path, 1.0) as models:
        models.put("fast", "fast = x/m")
    place.create("ci")

    def models_of(store: ModelStore) -> list[ModelRow]:
        if waits.pop():
            raise LedgerUnusable("it is locked")
        return [ModelRow("fast", "fast = x/m", revision=1)]

    monkeypatch.setattr(ModelStore, "models", models_of)
    stored.look()
    assert place.relay.snapshot.aliases == {} and place.who() == "ci", "what could be read holds"
    assert [level for level, text in place.notes if "of keys and aliases cannot be read (it is locked)" in text]
    waits.append(0.0)
    stored.look()
    assert waits == [0.0], "not at once"
    now[0] = 1.0
    stored.look()
    assert [*place.relay.snapshot.aliases] == ["fast"] and waits == []
    stored.close()


def test_a_key_gives_way_to_a_static_one_of_its_name_or_value_and_comes_back(place: Place) -> None:
    place.create("ci", limits="rpm=7")
    place.create("gone", "lp-gone-0123456789")
    stored = place.serve()
    ring = place.admission.ring
    ring.put(Key("ci"), {digest(OTHER): FOREVER})
    stored.set_static(frozenset({"static", "ci"}), False)
    assert (place.who(), place.who(OTHER)) == (None, "ci")
    ring.remove("ci")
    ring.put(Key("same"), {digest(VALUE): FOREVER})
    stored.set_static(frozenset({"static", "same"}), False)
    assert (place.who(), place.who(OTHER)) == ("same", None)
    place.store.remove("gone")  # seen by nobody yet
    ring.remove("same")
    stored.set_static(frozenset({"static"}), False)
    assert (place.who(), place.who(STATIC), place.who("lp-gone-0123456789")) == ("ci", "static", None)
    assert place.admission.limiter.rules("key ci") == parse_rules("rpm=7")


def digest(value: str) -> bytes:
    return bytes.fromhex(digest_of(value))


# -- on and off -------------------------------------------------------------------------------------------------------


def test_the_first_key_turns_keys_on_and_nothing_turns_them_off(place: Place) -> None:
    stored = place.serve(mode=AuthMode.OFF, is_open=True)
    assert place.admission.ring.mode is AuthMode.OFF
    assert place.admission.browser_guard
    place.create("ci")
    stored.look()
    assert place.admission.ring.mode is AuthMode.KEYS
    assert not place.admission.browser_guard
    place.store.remove("ci")
    bump(beside(place.path))
    stored.look()
    assert place.admission.ring.mode is AuthMode.KEYS
    assert place.who() is None
    stored.close()
    place.serve(mode=AuthMode.OFF, is_open=True)
    assert place.admission.ring.mode is AuthMode.KEYS, "also after a restart"


def test_static_keys_turn_keys_on_as_well_whatever_the_ledger_says_later(place: Place) -> None:
    stored = place.serve(mode=AuthMode.OFF, is_open=True)
    place.admission.ring.set_mode(AuthMode.KEYS)
    stored.set_static(frozenset({"static"}), False)
    bump(beside(place.path))
    stored.look()
    assert place.admission.ring.mode is AuthMode.KEYS


def test_who_said_off_means_it(place: Place) -> None:
    place.create("ci")
    place.serve(mode=AuthMode.OFF, is_open=False)
    assert place.admission.ring.mode is AuthMode.OFF
    assert len(place.admission.ring) == 0, "the keys in the ledger are nobody's"


def test_a_ledger_that_cannot_be_read_for_now_closes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.create("ci")
    opened: list[float] = []

    def locked(path: str, wait: float) -> KeyStore:
        opened.append(wait)
        raise LedgerUnusable("it is locked") from OSError(28, "No space left on device")

    real, clock = module.KeyStore, [100.0]
    monkeypatch.setattr(module, "KeyStore", locked)
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    stored = place.serve(mode=AuthMode.OFF, is_open=True)
    assert place.admission.ring.mode is AuthMode.KEYS
    assert place.admission.version == 1, "what the relay has of before does not hold any more"
    assert place.who() is None
    for _ in range(5):
        stored.look()
    assert len(opened) == 1, "not at each request"
    monkeypatch.setattr(module, "KeyStore", real)
    clock[0] += 1
    stored.look()
    assert place.who() == "ci"


def test_a_ledger_that_can_never_be_used_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: str, wait: float) -> KeyStore:
        raise LedgerUnusable("it is damaged")

    monkeypatch.setattr(module, "KeyStore", broken)
    with pytest.raises(LedgerUnusable):
        place.serve()
