"""Environment -> Settings: what one process does.

Lives here: reading our variables and files they name. The only reader of the environment.
May not live here: what each room's options mean (they are composed here, defined there), what may not go together
(contradictions), reloading, sockets.
How it works: everything is read before anything is refused; `ConfigurationError` carries every error as one sentence
that names its variable and never its value, since a value may be a secret that stands in the wrong place. Only what is
wrong with aliases is shown (catalog/alias_text).
Doubted: nothing yet.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from proxy.catalog import load
from proxy.catalog.alias_text import MOST_RETRIES
from proxy.catalog.prices import Prices, PricesError
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Reserves, Snapshot
from proxy.ledger.keys import has_keys
from proxy.ledger.writer import LedgerOptions
from proxy.outcome import Limit
from proxy.policy.key_fields import LEAST_KEY, is_key_value
from proxy.policy.keys import CANCEL, AuthMode, Disconnect, KeyRing
from proxy.policy.rules import Rules
from proxy.relay.options import DEFAULT_SECONDS, ByteLimits, PoolOptions, RelayOptions, UpstreamTls
from proxy.server.addresses import Address, parse_addresses
from proxy.server.calendar import Calendar
from proxy.server.contradictions import contradictions
from proxy.server.files import builtin_prices, read_text_file
from proxy.server.table import DEFAULT_DB, LEAST_DB, NUMBERS, SETTINGS, TIMEOUTS, Number, nearest, size_text
from proxy.server.values import MAKE_KEY, parse_disconnect, parse_env_file, parse_keys, parse_limits, parse_size
from proxy.wire.head import HeadLimits

LOGS = ("json", "text", "off")
ReadFile = Callable[[str], str]


class ConfigurationError(Exception):
    """The configuration cannot be used. `errors` are all reasons, `warnings` what was odd besides."""

    def __init__(self, errors: list[str], warnings: list[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors
        self.warnings = warnings


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a worker needs to know."""

    listen: tuple[Address, ...]
    admin_listen: tuple[Address, ...]  # empty: no admin listener
    health_listen: tuple[Address, ...]
    admin_token: Secret | None  # None: the admin listener stays on this machine, and asks for none
    tls_cert: str | None  # towards clients; both or none
    tls_key: str | None
    mode: AuthMode
    is_mode_given: bool  # LLM_PROXY_AUTH; else the first key that comes to be turns keys on
    keys: dict[str, Secret]
    hosts: frozenset[str]
    log: str  # "json" | "text" | "off"
    ledger: LedgerOptions | None  # None: none is written
    counts: bool  # text is counted by a tokenizer where no provider reported
    relay: RelayOptions
    snapshot: Snapshot
    rules: dict[str, Rules]  # limits by scope: all, key ..., model ..., provider ...
    calendar: Calendar  # of budgets
    carries_lost: bool  # what a kill left reserved counts until it is settled, not only until its window ends
    warnings: tuple[str, ...] = ()
    env_file: str | None = None
    clears_env: bool = False

    def ring(self) -> KeyRing:
        """The keys, ready to be looked up."""
        return KeyRing(self.keys, self.mode)

    @property
    def browser_guard(self) -> bool:
        """Are web pages kept out (DESIGN 8)? Yes where no key would."""
        return self.mode is not AuthMode.KEYS


def read_settings(
    environ: Mapping[str, str] | None = None,
    read_file: ReadFile = read_text_file,
    has_keys: Callable[[str], bool] = has_keys,
) -> Settings:
    """Settings out of `environ` (the process's own by default). `has_keys`: whether the ledger at a path has keys.
    Raises ConfigurationError with all errors at once."""
    return _Reading(os.environ if environ is None else environ, read_file, has_keys).result()


class _Reading:
    """One pass over one environment."""

    def __init__(self, environ: Mapping[str, str], read_file: ReadFile, has_keys: Callable[[str], bool]) -> None:
        self._read_file = read_file
        self._has_keys = has_keys
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._environ = {name: value.strip() for name, value in environ.items() if value.strip()}
        self._env_file = self._environ.get("LLM_PROXY_ENV_FILE")
        if self._env_file is not None:
            self._environ = self._from_env_file(self._env_file) | self._environ
        self._secrets = load.secret_names(self._environ) | {"LLM_PROXY_KEYS", "LLM_PROXY_ADMIN_TOKEN"}
        self._put_in_secret_files()

    def result(self) -> Settings:
        mode, keys = self._auth()
        loaded = load.load(self._environ, passthrough=mode is AuthMode.PASSTHROUGH)
        self._errors += loaded.errors
        self._warnings += loaded.warnings
        settings = Settings(
            listen=self._addresses("LLM_PROXY_LISTEN", "127.0.0.1:8080"),
            admin_listen=self._addresses("LLM_PROXY_ADMIN_LISTEN", "127.0.0.1:8081", may_be_off=True),
            health_listen=self._addresses("LLM_PROXY_HEALTH_LISTEN", "off", may_be_off=True),
            admin_token=self._admin_token(),
            tls_cert=self._file("LLM_PROXY_TLS_CERT"),
            tls_key=self._file("LLM_PROXY_TLS_KEY"),
            mode=mode,
            is_mode_given="LLM_PROXY_AUTH" in self._environ,
            keys=keys,
            hosts=self._hosts(),
            log=self._one_of("LLM_PROXY_LOG", LOGS, "json"),
            ledger=self._ledger(),
            counts=self._is_on("LLM_PROXY_COUNT"),
            relay=self._relay(keys),
            snapshot=replace(loaded.snapshot, prices=self._prices(), reserves=self._reserves()),
            rules=self._rules(keys, loaded.snapshot),
            calendar=self._calendar(),
            carries_lost=self._one_of("LLM_PROXY_BUDGET_LOST", ("window", "operator"), "window") == "operator",
            env_file=self._env_file,
            clears_env=self._is_on("LLM_PROXY_CLEAR_ENV", "off"),
        )
        self._errors += contradictions(settings)
        self._warn(settings)
        if self._errors:
            raise ConfigurationError(self._errors, self._warnings)
        return replace(settings, warnings=tuple(self._warnings))

    # --- files --------------------------------------------------------------------------------------------------------

    def _from_env_file(self, path: str) -> dict[str, str]:
        text = self._text_of("LLM_PROXY_ENV_FILE", path) or ""
        found, bad_lines = parse_env_file(text)
        self._errors += [f"LLM_PROXY_ENV_FILE: line {number} is not NAME=value" for number in bad_lines]
        if found.pop("LLM_PROXY_ENV_FILE", None) is not None:
            self._warnings.append("LLM_PROXY_ENV_FILE: the file cannot name another one")
        return {name: value.strip() for name, value in found.items() if value.strip()}

    def _put_in_secret_files(self) -> None:
        for name in self._secrets:
            path = self._environ.pop(name + "_FILE", None)
            if path is None:
                continue
            if name in self._environ:
                self._errors.append(f"{name}: {name}_FILE is set too; set one of them")
                continue
            text = self._text_of(name + "_FILE", path)
            if text is None:
                continue
            if text.strip():
                self._environ[name] = text.strip()
            else:
                self._errors.append(f"{name}_FILE: there is nothing in the file")

    def _text_of(self, variable: str, path: str) -> str | None:
        try:
            return self._read_file(path)
        except OSError as error:
            self._errors.append(f"{variable}: the file cannot be read ({error.strerror or 'unknown reason'})")
        except ValueError:
            self._errors.append(f"{variable}: the file is not a short UTF-8 text")
        return None

    def _file(self, variable: str) -> str | None:
        path = self._environ.get(variable)
        if path is not None:
            self._text_of(variable, path)
        return path

    # --- single values ------------------------------------------------------------------------------------------------

    def _addresses(self, variable: str, default: str, *, may_be_off: bool = False) -> tuple[Address, ...]:
        text = self._environ.get(variable, default)
        if may_be_off and text.lower() == "off":
            return ()
        found = parse_addresses(text)
        if isinstance(found, str):
            self._errors.append(f"{variable}: {found}")
            return ()
        return tuple(found)

    def _one_of(self, variable: str, known: tuple[str, ...], default: str) -> str:
        text = self._environ.get(variable, default).lower()
        if text not in known:
            self._errors.append(f"{variable}: must be one of {', '.join(known)}")
            return default
        return text

    def _hosts(self) -> frozenset[str]:
        names = [name.strip().lower() for name in self._environ.get("LLM_PROXY_HOSTS", "").split(",")]
        for name in names:
            if name and re.fullmatch(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", name) is None:
                self._errors.append("LLM_PROXY_HOSTS: write plain host names, without port, separated by commas")
        return frozenset(name for name in names if name)

    def _auth(self) -> tuple[AuthMode, dict[str, Secret]]:
        text = self._environ.get("LLM_PROXY_KEYS", "")
        keys, problems = parse_keys(text)
        self._errors += [f"LLM_PROXY_KEYS: {problem}" for problem in problems]
        asked = self._environ.get("LLM_PROXY_AUTH")
        path = self._environ.get("LLM_PROXY_DB", DEFAULT_DB)
        has_ledger = path.lower() != "off"
        if asked is None:
            return (AuthMode.KEYS if text or (has_ledger and self._has_keys(path)) else AuthMode.OFF), keys
        try:
            mode = AuthMode(asked.lower())
        except ValueError:
            self._errors.append("LLM_PROXY_AUTH: must be one of keys, passthrough, off")
            return (AuthMode.KEYS if text else AuthMode.OFF), keys
        if mode is AuthMode.KEYS and not text and not has_ledger:
            self._errors.append("LLM_PROXY_AUTH: keys needs LLM_PROXY_KEYS=name=key,..., or a ledger to keep keys in")
        if mode is not AuthMode.KEYS and text:
            self._errors.append(f"LLM_PROXY_KEYS: would mean nothing with LLM_PROXY_AUTH={mode.value}; unset one")
        return mode, keys

    def _admin_token(self) -> Secret | None:
        text = self._environ.get("LLM_PROXY_ADMIN_TOKEN")
        if text is not None and not is_key_value(text):
            how = f"needs {LEAST_KEY} or more visible ASCII characters; make one with: {MAKE_KEY}"
            self._errors.append(f"LLM_PROXY_ADMIN_TOKEN: {how}")
        return None if text is None else Secret(text)

    # --- numbers ------------------------------------------------------------------------------------------------------

    def _ledger(self) -> LedgerOptions | None:
        path = self._environ.get("LLM_PROXY_DB", DEFAULT_DB)
        days, size = 0.0, 0
        if "LLM_PROXY_DB_DAYS" in self._environ:
            days = self._quantity("LLM_PROXY_DB_DAYS", "days", 0.0, 0.0)
        if "LLM_PROXY_DB_SIZE" in self._environ:
            size = int(self._number("LLM_PROXY_DB_SIZE", Number("", "", "bytes", 0, "")) or 0)
            if 0 < size < LEAST_DB:
                self._errors.append(f"LLM_PROXY_DB_SIZE: must be {size_text(LEAST_DB)} or more, or 0 for any size")
        return None if path.lower() == "off" else LedgerOptions(path, days=days, max_bytes=size)

    def _prices(self) -> Prices | None:
        """The built-in table, with the user's over it."""
        prices = builtin_prices()
        path = self._environ.get("LLM_PROXY_PRICES")
        text = None if path is None else self._text_of("LLM_PROXY_PRICES", path)
        if text is None:
            return prices
        try:
            return prices.overlaid(Prices.of(text.encode()))
        except PricesError as error:
            self._errors += [f"LLM_PROXY_PRICES: {problem}" for problem in error.problems]
            return prices

    def _disconnect(self, keys: dict[str, Secret]) -> tuple[Disconnect, dict[str, Disconnect]]:
        found = parse_disconnect(self._environ.get("LLM_PROXY_DISCONNECT", "cancel"))
        if isinstance(found, str):
            self._errors.append(f"LLM_PROXY_DISCONNECT: {found}")
            return CANCEL, {}
        if not set(found[1]) <= set(keys):  # which one is not repeated: it may be the key instead of its name
            self._errors.append("LLM_PROXY_DISCONNECT: not every name in it is that of a key in LLM_PROXY_KEYS")
        return found

    def _rules(self, keys: dict[str, Secret], snapshot: Snapshot) -> dict[str, Rules]:
        rules, problems = parse_limits(self._environ.get("LLM_PROXY_LIMITS", ""))
        named = [scope.partition(" ") for scope in rules]
        if any(kind == "key" and name not in keys for kind, _, name in named):
            problems.append("not every key in it is in LLM_PROXY_KEYS; those of others: `llm-proxy keys change`")
        if any(kind == "provider" and name not in snapshot.providers for kind, _, name in named):
            problems.append("not every provider in it exists")
        self._errors += [f"LLM_PROXY_LIMITS: {problem}" for problem in problems]
        return rules

    def _calendar(self) -> Calendar:
        try:
            return Calendar(self._environ.get("LLM_PROXY_BUDGET_ZONE", "UTC"))
        except ValueError as error:
            self._errors.append(f"LLM_PROXY_BUDGET_ZONE: {error}")
            return Calendar()

    def _reserves(self) -> Reserves:
        names = {"input": "LLM_PROXY_RESERVE_INPUT", "output": "LLM_PROXY_RESERVE_OUTPUT"}
        tokens = Number("", "", "", 1, "")
        given = {field: self._number(name, tokens) for field, name in names.items() if name in self._environ}
        return Reserves(**{field: int(value) for field, value in given.items() if value is not None})

    def _is_on(self, variable: str, default: str = "on") -> bool:
        return self._one_of(variable, ("on", "off"), default) == "on"

    def _relay(self, keys: dict[str, Secret]) -> RelayOptions:
        seconds = dict(DEFAULT_SECONDS)
        for variable, limit in TIMEOUTS.items():
            if variable in self._environ:
                seconds[limit] = self._seconds(variable, 0.0, seconds[limit])
        given: dict[str, dict[str, int | float]] = {"head": {}, "bytes": {}, "pool": {}}
        for variable, number in NUMBERS.items():
            if variable in self._environ:
                value = self._number(variable, number)
                if value is not None:
                    given[number.part][number.field] = value
        default, by_key = self._disconnect(keys)
        tls = UpstreamTls(
            self._file("LLM_PROXY_UPSTREAM_CA"),
            self._file("LLM_PROXY_UPSTREAM_CERT"),
            self._file("LLM_PROXY_UPSTREAM_KEY"),
        )
        return RelayOptions(
            seconds=seconds,
            head=replace(HeadLimits(), **given["head"]),  # type: ignore[arg-type]
            bytes=replace(ByteLimits(), **given["bytes"]),  # type: ignore[arg-type]
            pool=replace(PoolOptions(), **given["pool"]),  # type: ignore[arg-type]
            tls=tls,
            identity=self._is_on("LLM_PROXY_IDENTITY"),
            meters=self._is_on("LLM_PROXY_METER"),
            retries=self._retries(RelayOptions().retries),
            retry_share=self._share("LLM_PROXY_RETRY_SHARE", RelayOptions().retry_share),
            hedge_share=self._share("LLM_PROXY_HEDGE_SHARE", RelayOptions().hedge_share),
            stops=self._is_on("LLM_PROXY_BUDGET_STOP", "off"),
            shows_timing=self._is_on("LLM_PROXY_RESPONSE_HEADERS", "off"),
            disconnect=default,
            disconnect_by_key=by_key,
        )

    def _retries(self, default: int) -> int:
        text = self._environ.get("LLM_PROXY_RETRIES", str(default))
        value = parse_size(text, letters=False)
        if value is None or value > MOST_RETRIES:
            self._errors.append(f"LLM_PROXY_RETRIES: must be a whole number from 0 to {MOST_RETRIES}")
            return default
        return value

    def _share(self, variable: str, default: float) -> float:
        text = self._environ.get(variable, str(default))
        if re.fullmatch(r"0?\.\d{1,9}|[01](\.0{0,9})?", text, re.ASCII) is None:
            self._errors.append(f"{variable}: must be a fraction from 0 to 1, e.g. 0.2")
            return default
        return float(text)

    def _number(self, variable: str, number: Number) -> int | float | None:
        if number.unit == "seconds":
            return self._seconds(variable, number.least, number.least)
        value = parse_size(self._environ[variable], letters=number.unit == "bytes")
        if value is None or value < number.least:
            how = "a whole number, or one with k, M or G" if number.unit == "bytes" else "a whole number"
            self._errors.append(f"{variable}: must be {how}, {number.least:g} or more")
            return None
        return value

    def _seconds(self, variable: str, least: float, otherwise: float) -> float:
        return self._quantity(variable, "seconds", least, otherwise)

    def _quantity(self, variable: str, unit: str, least: float, otherwise: float) -> float:
        text = self._environ[variable]
        if re.fullmatch(r"\d{1,9}(\.\d{1,9})?|\.\d{1,9}", text, re.ASCII) is None or not math.isfinite(float(text)):
            self._errors.append(f"{variable}: must be a number of {unit}, e.g. 2.5")
            return otherwise
        return max(least, float(text))

    # --- warnings -----------------------------------------------------------------------------------------------------

    def _warn(self, settings: Settings) -> None:
        if not settings.snapshot.providers and not self._errors:
            self._warnings.append("no provider is configured: set e.g. OPENAI_API_KEY, or LLM_PROXY_PROVIDER_<NAME>")
        if settings.mode is AuthMode.KEYS and settings.ledger is not None and not settings.keys:
            if not self._has_keys(settings.ledger.path):
                self._warnings.append("LLM_PROXY_AUTH: there are no keys yet: `llm-proxy keys create NAME` makes one")
        if not all(address.is_local for address in settings.admin_listen):
            self._warnings.append(
                "LLM_PROXY_ADMIN_LISTEN: has no TLS, so that the admin token crosses the network in clear text: keep "
                "that network to yourself, or put TLS before it"
            )
        if not settings.relay.meters and any(rules.counts_tokens for rules in settings.rules.values()):
            self._warnings.append(
                "LLM_PROXY_METER: off, so that limits count what requests reserve, and not what they use"
            )
        if not settings.relay.seconds[Limit.HEAD]:
            self._warnings.append("LLM_PROXY_TIMEOUT_HEAD: 0 lets a silent client hold a connection for ever")
        known = {setting.name for setting in SETTINGS} | self._secrets | set(load.VARIABLES)
        known |= {name + "_FILE" for name in self._secrets}
        for name in sorted(set(self._environ) - known):
            if name.startswith(load.PREFIX):
                continue  # load has judged it
            near = nearest(name, known)
            if not (name.startswith(("LLM_PROXY", "LLMPROXY")) or near):
                continue
            hint = f"did you mean {near}?" if near else "`llm-proxy serve --help` lists the names"
            self._warnings.append(f"{name}: not a variable of this program; {hint}")
