"""A configuration read again holds as a whole or not at all, and what came of it is told without secrets."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.reload import Reloaded
from proxy.catalog.load import VARIABLES
from proxy.cli import main
from proxy.outcome import Limit
from proxy.policy.admission import Admission, Grant
from proxy.policy.counters import MemoryStore
from proxy.policy.keys import AuthMode, Disconnect
from proxy.policy.limits import Limiter
from proxy.policy.rules import Rules, parse_rules
from proxy.relay.relay import Relay
from proxy.server.reload import Reloading, changes, diff, joined, put, read_again, tell
from proxy.server.settings import ConfigurationError, Settings, read_settings
from proxy.server.table import NUMBERS, SETTINGS, TIMEOUTS
from proxy.telemetry.lines import note_json, note_text
from tests.fakes.loops import run
from tests.policy.heads import head
from tests.policy.test_limits import costing

NOW = 1_800_000_000 * 10**9
KEY, OTHER = "lp-0123456789abcdef", "lp-fedcba9876543210"
X = {"LLM_PROXY_PROVIDER_X": "openai+http://127.0.0.1:9/v1"}


def settings(**environ: str) -> Settings:
    return read_settings({"LLM_PROXY_DB": "off", **X, **environ})


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"LLM_PROXY_TIMEOUT_HEAD": "soon", "LLM_PROXY_MAX_BODY": "big", "LLM_PROXY_LIMITS": "key ci: rpm=6"},
        {"LLM_PROXY_LISTEN": "0.0.0.0:8080"},
        {"LLM_PROXY_TLS_CERT": __file__, "LLM_PROXY_TLS_KEY": __file__, "LLM_PROXY_UPSTREAM_CA": __file__},
        {"LLM_PROXY_ENV_FILE": "/nowhere", "LLM_PROXY_KEYS": "ci=short"},
    ],
)
def test_whatever_is_wrong_is_found_as_check_finds_it(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*VARIABLES, *(setting.name for setting in SETTINGS)):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main(["check", "--json"]) == 2
    with pytest.raises(ConfigurationError) as wrong:
        read_again(environ)
    assert wrong.value.errors == json.loads(capsys.readouterr().out)["errors"] != []


def test_files_are_read_as_they_are_now_and_the_environment_as_it_was(tmp_path: Path) -> None:
    file, secret = tmp_path / "env", tmp_path / "secret"
    provider = f"LLM_PROXY_PROVIDER_Y=openai+http://h\nLLM_PROXY_PROVIDER_Y_API_KEY_FILE={secret}"
    file.write_text(f"LLM_PROXY_DB=off\nLLM_PROXY_HOSTS=a\n{provider}")
    secret.write_text("sk-one-0123456789abc")
    environ = {"LLM_PROXY_ENV_FILE": str(file), "LLM_PROXY_MAX_BODY": "1M"}
    first = read_again(environ)
    file.write_text(file.read_text() + "\nLLM_PROXY_HOSTS=b\nLLM_PROXY_MAX_BODY=2M")
    secret.write_text("sk-two-0123456789abc")
    second = read_again(environ)
    assert [*first.hosts, *second.hosts] == ["a", "b"]
    assert second.relay.bytes.body == 1024 * 1024, "the environment wins"
    told = changes(first, second)
    assert told[0] == "~ hosts: a -> b" and told[1].startswith("~ providers.y.credential: bearer #") and len(told) == 2


def test_who_does_not_know_its_environment_says_so() -> None:
    with pytest.raises(ConfigurationError, match="restart it"):
        read_again(None)


# --- what can be put in force -----------------------------------------------------------------------------------------

FIXED = {
    "LLM_PROXY_LISTEN": "127.0.0.1:18080",
    "LLM_PROXY_ADMIN_LISTEN": "off",
    "LLM_PROXY_HEALTH_LISTEN": "127.0.0.1:18082",
    "LLM_PROXY_AUTH": "passthrough",
    "LLM_PROXY_LOG": "text",
    "LLM_PROXY_DB": "other.db",
    "LLM_PROXY_DB_DAYS": "7",
    "LLM_PROXY_DB_SIZE": "5M",
    "LLM_PROXY_COUNT": "off",
    "LLM_PROXY_BUDGET_ZONE": "Europe/Berlin",
    "LLM_PROXY_BUDGET_LOST": "operator",
    "LLM_PROXY_CLEAR_ENV": "on",
    "LLM_PROXY_UPSTREAM_CA": __file__,
    "LLM_PROXY_TIMEOUT_CONNECT": "1",
    "LLM_PROXY_TIMEOUT_QUEUE": "1",
    "LLM_PROXY_MAX_UPSTREAM_HEAD": "2k",
    **{name: "7" for name, row in NUMBERS.items() if row.part == "pool"},
}
FREE = {
    "LLM_PROXY_ADMIN_TOKEN": OTHER,
    "LLM_PROXY_KEYS": f"ci={KEY}",
    "LLM_PROXY_LIMITS": "all: rpm=60",
    "LLM_PROXY_BUDGET_STOP": "on",
    "LLM_PROXY_RESERVE_INPUT": "7",
    "LLM_PROXY_RESERVE_OUTPUT": "7",
    "LLM_PROXY_HOSTS": "llm.internal",
    "LLM_PROXY_DEFAULT_PROVIDER": "x",
    "LLM_PROXY_PROVIDER_<NAME>": "anthropic+http://127.0.0.1:9",
    "LLM_PROXY_PROVIDER_<NAME>_API_KEY": "short",
    "LLM_PROXY_PROVIDER_<NAME>_API_KEYS": "short,another",
    "LLM_PROXY_PROVIDER_<NAME>_AUTH": "api-key",
    "LLM_PROXY_PROVIDER_<NAME>_HEADERS": "x-team: a",
    "LLM_PROXY_PROVIDER_<NAME>_INCLUDE_USAGE": "off",
    "LLM_PROXY_MODELS": "fast = x/m",
    "LLM_PROXY_RETRIES": "1",
    "LLM_PROXY_RETRY_SHARE": "0.5",
    "LLM_PROXY_HEDGE_SHARE": "0.5",
    "LLM_PROXY_IDENTITY": "off",
    "LLM_PROXY_INCLUDE_USAGE": "off",
    "LLM_PROXY_METER": "off",
    "LLM_PROXY_DISCONNECT": "drain",
    "LLM_PROXY_RESPONSE_HEADERS": "on",
    **dict.fromkeys(TIMEOUTS, "7"),
    **dict.fromkeys(NUMBERS, "1234567"),
    "LLM_PROXY_MAX_REQUEST_LINE": "7k",
}
# Shown to TLS, or read by a start only: tested where that happens.
ELSEWHERE = {
    "LLM_PROXY_TLS_CERT", "LLM_PROXY_TLS_KEY", "LLM_PROXY_UPSTREAM_CERT", "LLM_PROXY_UPSTREAM_KEY",
    "LLM_PROXY_ENV_FILE", "LLM_PROXY_PRICES",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({setting.name for setting in SETTINGS} - ELSEWHERE))
def test_each_variable_is_put_in_force_and_told_or_takes_a_restart(name: str) -> None:
    """Nothing is passed over in silence. `now` has two providers, so that a default is one's choice."""
    given = {**X, "LLM_PROXY_PROVIDER_Y": "openai+http://127.0.0.1:9/v1", "LLM_PROXY_MAX_BODY": "1M"}
    given |= {} if name in FREE and name.endswith("DEFAULT_PROVIDER") else {"LLM_PROXY_DEFAULT_PROVIDER": "y"}
    now = read_settings(given, has_keys=lambda _: False)
    value = FIXED[name] if name in FIXED else FREE[name]
    new = read_settings({**given, name.replace("<NAME>", "X"): value}, has_keys=lambda _: False)
    put_in_force, late = joined(now, new)
    told = changes(now, put_in_force)
    if name in FIXED:
        assert late == [f"{name}: takes a restart"] and told == []
    else:
        assert late == [] and told != []
        assert changes(put_in_force, put_in_force) == []


def test_the_examples_above_are_of_variables_that_there_are() -> None:
    gone = {*FIXED, *FREE, *ELSEWHERE} - {setting.name for setting in SETTINGS}
    assert not gone


def test_a_queue_may_be_longer_or_shorter_and_not_come_or_go() -> None:
    def seconds(now: str, new: str) -> tuple[float, int]:
        found, late = joined(settings(LLM_PROXY_TIMEOUT_QUEUE=now), settings(LLM_PROXY_TIMEOUT_QUEUE=new))
        return found.relay.seconds[Limit.QUEUE], len(late)

    assert seconds("1", "2") == (2.0, 0)
    assert seconds("1", "0") == (1.0, 1)
    assert seconds("0", "1") == (0.0, 1)


def test_the_first_keys_close_and_nothing_opens() -> None:
    def mode(now: dict[str, str], new: dict[str, str]) -> tuple[AuthMode, list[str], list[str]]:
        found, late = joined(settings(**now), settings(**new))
        return found.mode, list(found.keys), [each.partition(":")[0] for each in late]

    keys, off = {"LLM_PROXY_KEYS": f"ci={KEY}"}, {"LLM_PROXY_AUTH": "off"}
    assert mode({}, keys) == (AuthMode.KEYS, ["ci"], [])
    assert mode(off, keys) == (AuthMode.OFF, [], ["LLM_PROXY_AUTH"])
    assert mode(keys, {}) == (AuthMode.KEYS, [], ["LLM_PROXY_AUTH"])
    assert mode(keys, off) == (AuthMode.KEYS, [], ["LLM_PROXY_AUTH"])
    assert mode({}, off) == (AuthMode.OFF, [], ["LLM_PROXY_AUTH"])


def test_an_admin_token_may_come_and_become_another_one_and_not_go() -> None:
    def token(now: dict[str, str], new: dict[str, str]) -> tuple[str | None, int]:
        found, late = joined(settings(**now), settings(**new))
        return found.admin_token.reveal() if found.admin_token else None, len(late)

    one, two = {"LLM_PROXY_ADMIN_TOKEN": KEY}, {"LLM_PROXY_ADMIN_TOKEN": OTHER}
    assert token({}, one) == (KEY, 0)
    assert token(one, two) == (OTHER, 0)
    assert token(one, {}) == (KEY, 1)


def test_providers_for_another_mode_are_not_used_in_this_one() -> None:
    now = settings(OPENAI_API_KEY="sk-0123456789abcdef")
    new = settings(LLM_PROXY_AUTH="passthrough")
    found, late = joined(now, new)
    assert found.snapshot is now.snapshot and late == ["LLM_PROXY_AUTH: takes a restart"]


def test_tls_does_not_come_or_go_but_its_files_may_be_others(tmp_path: Path) -> None:
    tls = {}
    for name in ("a", "b"):
        mine = trustme.CA().issue_cert("localhost")
        mine.cert_chain_pems[0].write_to_path(str(tmp_path / name))
        mine.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        tls[name] = {"LLM_PROXY_TLS_CERT": str(tmp_path / name), "LLM_PROXY_TLS_KEY": str(tmp_path / f"{name}.key")}
    one, two = settings(**tls["a"]), settings(**tls["b"])
    found, late = joined(one, two)
    assert (found.tls_cert, found.tls_key, late) == (two.tls_cert, two.tls_key, [])
    assert joined(settings(), two).takes_restart == ["LLM_PROXY_TLS_CERT: takes a restart"]
    assert joined(one, settings()).settings.tls_cert == one.tls_cert


# --- in words ---------------------------------------------------------------------------------------------------------


def test_a_line_for_each_change() -> None:
    old = {"a": {"b": 1, "gone": "x"}, "rules": {"key ci": "rpm=60"}, "timeouts": {"LLM_PROXY_T": 1.0}, "same": [1]}
    new = {"a": {"b": 2}, "rules": {"all": "rpm=6"}, "timeouts": {"LLM_PROXY_T": 2.5}, "same": [1], "is": True}
    assert diff(old, new) == [
        "~ a.b: 1 -> 2",
        "- a.gone: x",
        "- limits key ci: rpm=60",
        "~ LLM_PROXY_T: 1 -> 2.5",
        "+ limits all: rpm=6",
        "+ is: on",
    ]


def test_what_is_empty_is_not_there() -> None:
    assert diff({"a": None, "b": [], "c": {}, "d": ""}, {}) == []
    assert diff({"a": None}, {"a": "#12ab34cd"}) == ["+ a: #12ab34cd"]


def test_things_with_names_are_known_by_these() -> None:
    old = {"list": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}
    new = {"list": [{"name": "b", "n": 3}]}
    assert diff(old, new) == ["- list.a.name: a", "- list.a.n: 1", "~ list.b.n: 2 -> 3"]


DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
)


@given(st.dictionaries(st.text(min_size=1, max_size=5), DOCUMENTS, max_size=4))
def test_nothing_differs_from_itself(document: dict[str, Any]) -> None:
    assert diff(document, document) == []
    added = [line[:2] for line in diff({}, document)]
    assert added == ["+ "] * len(added) and len(diff(document, {})) == len(added)


def test_a_secret_is_never_shown_and_its_change_always_is() -> None:
    """Also one that is too short for a fingerprint."""
    secrets = ["sk-one-0123456789abc", "sk-two-0123456789abc", "tiny", "mini", KEY, OTHER, "team-secret-012345", "t-1"]

    def of(credential: str, key: str, field: str) -> Settings:
        provider = {"LLM_PROXY_PROVIDER_X_API_KEY": credential, "LLM_PROXY_PROVIDER_X_HEADERS": f"x-auth: {field}"}
        return settings(LLM_PROXY_KEYS=f"ci={key}", **provider)

    base = of(secrets[0], KEY, "team-secret-012345")
    for other in (of(secrets[1], KEY, "team-secret-012345"), of(secrets[0], KEY, "t-1")):
        assert [line[:14] for line in changes(base, other)] == ["~ providers.x."]
    assert changes(base, of(secrets[0], OTHER, "team-secret-012345"))[0].startswith("~ keys.ci: #")
    short = changes(of("tiny", KEY, "t-1"), of("mini", KEY, "t-1"))
    assert short == ["~ providers.x: a secret of which nothing is shown"]
    shown = str(changes(base, of("mini", OTHER, "t-1")) + changes(settings(), base) + short)
    assert not [secret for secret in secrets if secret in shown]


def test_what_open_connections_do_not_see_is_said() -> None:
    [line] = changes(settings(), settings(LLM_PROXY_MAX_HEAD="64k"))
    assert line == "~ LLM_PROXY_MAX_HEAD: 32768 -> 65536 (for new connections)"


# --- in force ---------------------------------------------------------------------------------------------------------


def with_relay(now: Settings, look: Callable[[Relay], None]) -> None:
    async def started() -> None:
        limiter = Limiter(MemoryStore(), now.calendar.end)
        for scope, rules in now.rules.items():
            limiter.set_rules(scope, rules)
        hosts, most = now.hosts, now.relay.bytes.streams_per_key
        admission = Admission(now.ring(), limiter, browser_guard=now.browser_guard, hosts=hosts, streams_per_key=most)
        look(Relay(asyncio.get_running_loop(), now.relay, admission, now.snapshot))

    run(started())


def test_all_that_the_relay_goes_by_is_put_in_one_step() -> None:
    now = settings(LLM_PROXY_KEYS=f"ci={KEY},old={OTHER}", LLM_PROXY_LIMITS="key ci: rpm=1; all: rpm=9")
    new = settings(
        LLM_PROXY_KEYS=f"ci={OTHER},new={KEY}",
        LLM_PROXY_LIMITS="key new: rpm=3; all: rpm=9",
        LLM_PROXY_HOSTS="llm",
        LLM_PROXY_MAX_STREAMS_PER_KEY="1",
        LLM_PROXY_TIMEOUT_STREAM="7",
        LLM_PROXY_DISCONNECT="drain,ci=cancel",
    )

    def look(relay: Relay) -> None:
        admission, limiter = relay.admission, relay.admission.limiter
        before = admission.version

        def who(value: str) -> object:
            return getattr(admission.admit(head(("x-api-key", value)), NOW), "key", None)

        assert (who(KEY), who(OTHER)) == ("ci", "old")
        put(relay, now, new)
        assert (who(KEY), who(OTHER)) == ("new", "ci"), "each value is that of another key now"
        assert admission.version != before
        assert limiter.rules("key ci") == Rules() and limiter.rules("key new") == parse_rules("rpm=3")
        assert limiter.rules("all") == parse_rules("rpm=9")
        grant = admission.admit(head(("x-api-key", KEY)), NOW)
        assert isinstance(grant, Grant)
        assert admission.take_stream(grant) is None
        assert admission.take_stream(grant) is not None
        assert relay.seconds.stream == 7.0
        assert relay.options.disconnect == Disconnect(True)
        assert relay.snapshot == new.snapshot and relay.snapshot is not now.snapshot

    with_relay(now, look)


def test_what_was_used_of_a_limit_that_stays_counts_on() -> None:
    now = settings(LLM_PROXY_LIMITS="all: rpm=9 concurrent=2")
    new = settings(LLM_PROXY_LIMITS="all: rpm=9 concurrent=4")

    def look(relay: Relay) -> None:
        limiter = relay.admission.limiter
        limiter.take(limiter.chain(None, None, (), None), costing(0, 0), NOW)
        put(relay, now, new)
        assert limiter.running("all") == 1
        assert limiter.ahead("all", new.rules["all"].rates[0], NOW) > 0

    with_relay(now, look)


def test_the_same_once_more_is_another_snapshot_all_the_same() -> None:
    """What connections remember of before must be looked at again: a host may have been taken away."""
    now = settings()

    def look(relay: Relay) -> None:
        before = relay.snapshot
        put(relay, now, now)
        assert relay.snapshot is not before and relay.snapshot == before

    with_relay(now, look)


def test_a_provider_that_stays_is_the_same_and_what_is_known_of_it_stands() -> None:
    y = {"LLM_PROXY_PROVIDER_Y": "openai+http://127.0.0.1:10/v1", "LLM_PROXY_DEFAULT_PROVIDER": "x"}
    now = settings(**y)

    def look(relay: Relay) -> None:
        x, health, retries = relay.snapshot.providers["x"], relay.health, relay.retries
        put(relay, now, settings(**y, LLM_PROXY_HOSTS="llm"))
        assert relay.snapshot.providers["x"] is relay.snapshot.default is x
        assert relay.health is health and relay.retries is retries
        changed = {**y, "LLM_PROXY_PROVIDER_Y": "openai+http://127.0.0.1:11/v1", "LLM_PROXY_RETRY_SHARE": "0.5"}
        put(relay, now, settings(**changed))
        assert relay.snapshot.providers["x"] is x and relay.snapshot.providers["y"].origin.port == 11
        assert relay.health is not health, "what failed there may work now"
        assert relay.retries is not retries

    with_relay(now, look)


def test_a_share_that_was_changed_is_counted_anew_and_one_that_stays_counts_on() -> None:
    now = settings()

    def look(relay: Relay) -> None:
        hedges, retries = relay.hedges, relay.retries
        assert hedges.take(0.0) and not hedges.take(0.0)
        put(relay, now, settings(LLM_PROXY_HOSTS="llm"))
        assert relay.hedges is hedges
        put(relay, now, settings(LLM_PROXY_HEDGE_SHARE="1"))
        assert relay.retries is retries
        assert relay.hedges.take(0.0) and not relay.hedges.take(0.0), "it begins with one, as at start"
        relay.hedges.note_request()
        assert relay.hedges.take(0.0) and not hedges.take(0.0)

    with_relay(now, look)


@pytest.mark.sources
def test_whoever_waits_for_a_limit_is_looked_at_at_once() -> None:
    class Waiting:
        woken = 0

        def wake(self) -> None:
            self.woken += 1

    def look(relay: Relay) -> None:
        waiting: Any = Waiting()
        relay.waiting = waiting
        put(relay, settings(), settings(LLM_PROXY_LIMITS="all: rpm=9"))
        assert waiting.woken == 1

    with_relay(settings(), look)


def test_the_first_keys_turn_the_guard_against_pages_into_one_by_keys() -> None:
    now, new = settings(), settings(LLM_PROXY_KEYS=f"ci={KEY}")

    def look(relay: Relay) -> None:
        put(relay, now, new)
        assert relay.admission.ring.mode is AuthMode.KEYS and not relay.admission.browser_guard
        assert getattr(relay.admission.admit(head(), NOW), "key", None) is None

    with_relay(now, look)


# --- one after another ------------------------------------------------------------------------------------------------


class Reads:
    """Settings that are read when a test lets them, and all that came of it."""

    def __init__(self) -> None:
        self.go = threading.Semaphore(0)
        self.begun = 0
        self.put: list[Settings] = []
        self.notes: list[tuple[str, str, dict[str, Any]]] = []
        self.error: Exception | None = None

    def read(self) -> Settings:
        self.begun += 1
        assert self.go.acquire(timeout=5)  # only reached when something hangs
        if self.error is not None:
            raise self.error
        return settings()

    def take(self, found: Settings) -> Reloaded:
        self.put.append(found)
        return Reloaded([f"~ number: {len(self.put)}"], [], [], [])

    def note(self, level: str, message: str, /, **more: object) -> None:
        self.notes.append((level, message, more))

    def start(self) -> Reloading:
        return Reloading(asyncio.get_running_loop(), self.read, self.take, self.note)


async def end_of(future: Future[Reloaded]) -> Reloaded:
    return await asyncio.wrap_future(future)


def test_one_after_another_and_whoever_comes_meanwhile_gets_the_next() -> None:
    reads = Reads()

    async def main() -> None:
        reloading = reads.start()
        first = reloading.begin()
        second, third = reloading.begin(), reloading.begin()
        assert second is third and second is not first
        reads.go.release()
        assert (await end_of(first)).changes == ["~ number: 1"]
        assert not second.done()
        reads.go.release()
        assert (await end_of(second)).changes == ["~ number: 2"]
        assert reads.begun == 2
        reads.go.release()
        assert (await end_of(reloading.begin())).changes == ["~ number: 3"]

    run(main())


def test_what_is_wrong_changes_nothing_and_is_told_by_all_its_sentences() -> None:
    reads = Reads()
    reads.error = ConfigurationError(["A: is wrong", "B: too"], ["C: is odd"])

    async def main() -> None:
        reads.go.release()
        found = await end_of(reads.start().begin())
        assert found == Reloaded([], [], ["C: is odd"], ["A: is wrong", "B: too"])

    run(main())
    assert reads.put == []
    told = [(level, message) for level, message, _ in reads.notes]
    assert told[:3] == [("warn", "C: is odd"), ("error", "A: is wrong"), ("error", "B: too")]
    assert told[3][0] == "error" and "was not reloaded" in told[3][1] and len(told) == 4


def test_a_fault_is_told_and_the_next_one_works() -> None:
    reads, heard = Reads(), []
    reads.error = RuntimeError("a fault")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
        reloading = reads.start()
        reads.go.release()
        assert "a fault of this program" in (await end_of(reloading.begin())).errors[0]
        assert heard == [reads.error]
        reads.error = None
        reads.go.release()
        assert (await end_of(reloading.begin())).errors == []

    run(main())


def test_at_the_end_nothing_is_put_in_force_any_more_and_nobody_waits() -> None:
    reads = Reads()

    async def main() -> None:
        reloading = reads.start()
        futures = [reloading.begin(), reloading.begin()]
        reloading.close()
        futures.append(reloading.begin())
        assert [future.result(0).errors for future in futures] == [["this process is shutting down"]] * 3
        reads.go.release()
        await asyncio.get_running_loop().shutdown_default_executor()
        await asyncio.sleep(0)

    run(main())
    assert reads.begun == 1 and reads.put == [] and reads.notes == []


@pytest.mark.parametrize("count", [0, 1, 8, 9, 40])
@pytest.mark.parametrize("size", [10, 60, 199])
def test_the_log_shows_each_change_whole_in_either_form(count: int, size: int) -> None:
    lines = [f"~ {number}: ".ljust(size, "x") for number in range(count)]
    notes: list[tuple[str, dict[str, Any]]] = []
    tell(Reloaded(lines, [], [], []), lambda level, message, **more: notes.append((message, more)))
    assert {message for message, _ in notes} == {"configuration reloaded"}
    assert [line for _, more in notes for line in more["changes"]] == lines
    shown = [
        note_json(0.0, "info", "x", more).decode() + note_text(0.0, "info", "x", more).decode() for _, more in notes
    ]
    assert all("".join(shown).count(line) == 2 for line in lines)
