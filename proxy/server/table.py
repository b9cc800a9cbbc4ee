"""Every variable of ours, once: name, default, unit, meaning.

Lives here: the table that parsing, `llm-proxy --help` and the README share (a test compares them). May not live here:
reading the environment (settings), vendors' own variables (catalog/load).
How it works: rows of limits are made from the defaults that their rooms state, so a number stands in one place.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from proxy.catalog.alias_text import MOST_RETRIES
from proxy.outcome import Limit
from proxy.relay.options import DEFAULT_SECONDS, KIB, MIB, ByteLimits, PoolOptions, RelayOptions
from proxy.wire.head import HeadLimits

PREFIX = "LLM_PROXY_"


class Setting(NamedTuple):
    """One variable. `default` as it would be written; empty if there is none."""

    name: str
    default: str
    unit: str
    what: str


class Number(NamedTuple):
    """A number of an options class: which class (`part` of RelayOptions) and field, its unit, the least that works."""

    part: str  # "head" | "bytes" | "pool"
    field: str
    unit: str  # "bytes" | "seconds" | "" for counts
    least: float
    what: str


NUMBERS: dict[str, Number] = {
    "LLM_PROXY_MAX_REQUEST_LINE": Number("head", "line", "bytes", 64, "the request line; beyond it 414"),
    "LLM_PROXY_MAX_HEAD": Number("head", "head", "bytes", 256, "a request's whole head; beyond it 431"),
    "LLM_PROXY_MAX_FIELDS": Number("head", "fields", "", 1, "header fields of a request; beyond it 431"),
    "LLM_PROXY_MAX_BODY": Number("bytes", "body", "bytes", 1, "one request body, framing included; beyond it 413"),
    "LLM_PROXY_MAX_UPLOAD": Number(
        "bytes", "upload", "bytes", 0, "one request body that streams through unread (files); beyond it 413; 0 = any"
    ),
    "LLM_PROXY_MAX_BODIES": Number("bytes", "bodies", "bytes", 1, "all request bodies held at once; beyond it 503"),
    "LLM_PROXY_MAX_REPLAY": Number(
        "bytes", "replay", "bytes", 0, "one request body that is kept for another attempt; larger ones get one attempt"
    ),
    "LLM_PROXY_MAX_EVENT": Number("bytes", "event", "bytes", 1024, "one streamed event; larger ones pass unread"),
    "LLM_PROXY_MAX_UPSTREAM_HEAD": Number("bytes", "upstream_head", "bytes", 1024, "the head of a provider's answer"),
    "LLM_PROXY_MAX_BUFFER": Number(
        "bytes",
        "buffer",
        "bytes",
        1024,
        "kept for a slow provider, and a quarter of it for a slow client, before the other side waits",
    ),
    "LLM_PROXY_MAX_CONNECTIONS": Number("bytes", "connections", "", 1, "connections of clients; beyond it 503"),
    "LLM_PROXY_MAX_STREAMS_PER_KEY": Number(
        "bytes", "streams_per_key", "", 0, "streams one key may have open; beyond it 429; 0 = any number"
    ),
    "LLM_PROXY_MAX_DRAINS": Number(
        "bytes", "drains", "", 0, "answers read on at once after their clients left; further ones are cancelled"
    ),
    "LLM_PROXY_MAX_DRAIN": Number("bytes", "drain", "bytes", 0, "one answer that is read on after its client left"),
    "LLM_PROXY_MAX_KEPT": Number(
        "bytes", "kept", "bytes", 0, "kept of requests and answers in case they must be counted; beyond it estimated"
    ),
    "LLM_PROXY_MIN_BODY_RATE": Number(
        "bytes", "min_body_rate", "bytes", 0, "a second that a request body must average after 30 s; 0 = any"
    ),
    "LLM_PROXY_POOL_CONNECTIONS": Number("pool", "max_connections", "", 1, "connections open to one provider"),
    "LLM_PROXY_POOL_IDLE": Number("pool", "max_idle", "", 0, "of these, kept idle for reuse"),
    "LLM_PROXY_POOL_IDLE_SECONDS": Number("pool", "idle_seconds", "seconds", 0, "an idle connection is kept"),
    "LLM_PROXY_POOL_AGE_SECONDS": Number("pool", "age_seconds", "seconds", 0, "a connection is used before a new one"),
    "LLM_PROXY_POOL_QUEUE": Number("pool", "queue", "", 0, "exchanges that may wait for a connection; beyond it 503"),
}

_LIMITS: dict[Limit, str] = {
    Limit.IDLE: "a client's connection may be idle between requests",
    Limit.HEAD: "a TLS handshake, and then each request head, all of it",
    Limit.BODY: "a request body may make no progress",
    Limit.QUEUE: "wait for a limit, or a free connection to the provider; 0 = refuse at once",
    Limit.CONNECT: "name lookup, connection and TLS handshake with the provider",
    Limit.SEND: "sending the request may make no progress",
    Limit.FIRST_BYTE: "until a stream's answer begins",
    Limit.FIRST_BYTE_UNARY: "until any other answer begins",
    Limit.FIRST_EVENT: "until the first event with content; comments and pings do not count",
    Limit.HOLD: "a stream's head is held back for content, so that another attempt is possible; 0 = not at all",
    Limit.STREAM: "between events with content; comments and pings do not count",
    Limit.TOTAL: "a whole exchange",
    Limit.CLIENT_STALL: "a client may read nothing of its answer",
    Limit.SHUTDOWN: "streams may go on after SIGTERM",
}
TIMEOUTS: dict[str, Limit] = {f"LLM_PROXY_TIMEOUT_{limit.name}": limit for limit in _LIMITS}

DEFAULT_DB = "llm-proxy.db"
LEAST_DB = MIB  # a smaller bound would be used up by the indexes alone


def defaults_of(part: str) -> HeadLimits | ByteLimits | PoolOptions:
    """The defaults of one part of RelayOptions."""
    if part == "head":
        return HeadLimits()
    return ByteLimits() if part == "bytes" else PoolOptions()


_RELAY = RelayOptions()


def _number_row(name: str, number: Number) -> Setting:
    value = getattr(defaults_of(number.part), number.field)
    text = f"{value:g}" if number.unit == "seconds" else size_text(value) if number.unit == "bytes" else str(value)
    return Setting(name, text, number.unit, number.what)


def size_text(size: int) -> str:
    """A number of bytes as it is written in a variable: 64k, 32M, 1000."""
    for unit, letter in ((1024 * MIB, "G"), (MIB, "M"), (KIB, "k")):
        if size and size % unit == 0:
            return f"{size // unit}{letter}"
    return str(size)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "LLM_PROXY_LISTEN",
        "127.0.0.1:8080",
        "",
        "where clients connect: host:port, :port (loopback), [v6]:port, unix:/path; several",
    ),
    Setting(
        "LLM_PROXY_ADMIN_LISTEN",
        "127.0.0.1:8081",
        "",
        "where the operator connects; without LLM_PROXY_ADMIN_TOKEN on this machine only; or off",
    ),
    Setting(
        "LLM_PROXY_ADMIN_TOKEN", "", "", "what the operator must present there: 16 characters or more; none: nothing"
    ),
    Setting("LLM_PROXY_HEALTH_LISTEN", "", "", "further addresses for /healthz and /readyz only"),
    Setting(
        "LLM_PROXY_TLS_CERT",
        "",
        "file",
        "certificate chain (PEM) for TLS with clients, on Unix sockets too; admin and health stay plain",
    ),
    Setting("LLM_PROXY_TLS_KEY", "", "file", "its private key (PEM)"),
    Setting("LLM_PROXY_AUTH", "keys, or off where there are none", "", "keys, passthrough or off"),
    Setting("LLM_PROXY_KEYS", "", "", "keys given to clients: name=key, comma-separated; 16 characters or more each"),
    Setting(
        "LLM_PROXY_LIMITS",
        "",
        "",
        "limits and budgets: 'all: rpm=600; key ci: rpm=60 20usd/month; model m: ...; provider p: ...'",
    ),
    Setting("LLM_PROXY_BUDGET_ZONE", "UTC", "", "the time zone whose days, weeks and months budgets have"),
    Setting(
        "LLM_PROXY_BUDGET_STOP",
        "off",
        "",
        "on: break off a stream that seems to cost more than was reserved for it and than is left of its budget",
    ),
    Setting(
        "LLM_PROXY_BUDGET_LOST",
        "window",
        "",
        "until when counts what requests had reserved when the process was killed: window, or operator (keys settle)",
    ),
    Setting(
        "LLM_PROXY_RESERVE_INPUT", "200000", "", "tokens reserved for an input that refers to files, images or URLs"
    ),
    Setting("LLM_PROXY_RESERVE_OUTPUT", "32000", "", "tokens reserved for an answer that the client does not cap"),
    Setting("LLM_PROXY_HOSTS", "", "", "names clients may call this proxy by, beside localhost and addresses"),
    Setting("LLM_PROXY_DEFAULT_PROVIDER", "openai, or the only one", "", "where unknown model names and paths go"),
    Setting(
        "LLM_PROXY_PROVIDER_<NAME>", "", "", "a further provider: <family>+<url>, e.g. openai+http://10.0.0.5:8000/v1"
    ),
    Setting("LLM_PROXY_PROVIDER_<NAME>_API_KEY", "", "", "its credential"),
    Setting(
        "LLM_PROXY_PROVIDER_<NAME>_API_KEYS", "", "", "further credentials of the same provider, separated by commas"
    ),
    Setting("LLM_PROXY_PROVIDER_<NAME>_AUTH", "as its family", "", "bearer, x-api-key, api-key, x-goog-api-key, none"),
    Setting("LLM_PROXY_PROVIDER_<NAME>_HEADERS", "", "", "further fields for each request: 'Name: value, Name: value'"),
    Setting(
        "LLM_PROXY_PROVIDER_<NAME>_INCLUDE_USAGE",
        "as LLM_PROXY_INCLUDE_USAGE",
        "",
        "on or off for this provider; off for Mistral, which refuses members it does not know",
    ),
    Setting(
        "LLM_PROXY_MODELS",
        "",
        "",
        "aliases, and the targets they stand for: 'fast = openai/gpt-4o-mini*3, groq/llama-3.3-70b; big (hedge) = ...'",
    ),
    Setting(
        "LLM_PROXY_RETRIES",
        str(_RELAY.retries),
        "",
        f"attempts that may follow the first, 0 to {MOST_RETRIES}; an alias may say otherwise",
    ),
    Setting(
        "LLM_PROXY_RETRY_SHARE",
        f"{_RELAY.retry_share:g}",
        "",
        "the share of requests, 0 to 1, that may be tried again; beyond it a failure is final",
    ),
    Setting(
        "LLM_PROXY_HEDGE_SHARE",
        f"{_RELAY.hedge_share:g}",
        "",
        "the share of requests to aliases that hedge, 0 to 1, beside which a second attempt may run",
    ),
    Setting("LLM_PROXY_UPSTREAM_CA", "the system's", "file", "CA certificates (PEM) to verify providers with"),
    Setting("LLM_PROXY_UPSTREAM_CERT", "", "file", "client certificate (PEM) shown to providers"),
    Setting("LLM_PROXY_UPSTREAM_KEY", "", "file", "its private key (PEM)"),
    Setting(
        "LLM_PROXY_IDENTITY", "on", "", "ask providers not to compress streams, so that endings can be read; or off"
    ),
    Setting(
        "LLM_PROXY_INCLUDE_USAGE",
        "on",
        "",
        "ask OpenAI-style streams for their usage where the client does not, and keep the report from it; or off",
    ),
    Setting("LLM_PROXY_METER", "on", "", "read what answers report about their usage; or off"),
    Setting(
        "LLM_PROXY_COUNT", "on", "", "count the tokens of text where no provider reported them; off: estimate them"
    ),
    Setting(
        "LLM_PROXY_DISCONNECT",
        "cancel",
        "",
        "when a client leaves: cancel, or drain or drain:<seconds> to learn the true usage; single keys: name=drain:30",
    ),
    Setting("LLM_PROXY_PRICES", "", "file", "prices of your own, before the built-in ones"),
    Setting(
        "LLM_PROXY_RESPONSE_HEADERS", "off", "", "on: answers carry server-timing and x-llm-proxy-request-id; or off"
    ),
    Setting("LLM_PROXY_DB", DEFAULT_DB, "file", "the ledger, one row for each exchange; or off"),
    Setting("LLM_PROXY_DB_DAYS", "0", "days", "rows are kept; 0 = for ever"),
    Setting("LLM_PROXY_DB_SIZE", "0", "bytes", "the ledger may have, the oldest rows go first; 0 = any"),
    Setting(
        "LLM_PROXY_LOG", "json", "", "one line for each exchange on standard output: json, text or off (messages only)"
    ),
    Setting("LLM_PROXY_ENV_FILE", "", "file", "further variables, NAME=value by line; the environment wins"),
    Setting(
        "LLM_PROXY_CLEAR_ENV",
        "off",
        "",
        "on: `serve` starts itself again in an environment without secrets, and forbids core dumps; or off",
    ),
    *(Setting(name, f"{DEFAULT_SECONDS[limit]:g}", "seconds", _LIMITS[limit]) for name, limit in TIMEOUTS.items()),
    *(_number_row(name, number) for name, number in NUMBERS.items()),
)


def nearest(name: str, known: set[str]) -> str | None:
    """The known name that `name` may have been meant to be. Vendors' variables only where nearly every letter agrees:
    an environment holds many variables that are nobody's typo."""
    import difflib  # 10 ms, spent only where there is something to compare

    if name.startswith(("LLM_PROXY", "LLMPROXY")):
        # Without the prefix, which would make all of ours look alike.
        ours = [other.removeprefix(PREFIX) for other in known if other.startswith(PREFIX)]
        rest = re.sub("^LLM_?PROXY_?", "", name)
        near = [PREFIX + other for other in difflib.get_close_matches(rest, ours, 1, 0.6)]
    elif "API" in name or "URL" in name or "OLLAMA" in name:
        near = difflib.get_close_matches(name, [other for other in known if not other.startswith(PREFIX)], 1, 0.93)
    else:
        return None
    return near[0] if near else None
