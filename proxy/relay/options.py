"""What the data path may take: seconds, bytes, connections, certificates.

Lives here: the options of this room, as frozen values with their defaults and reasons. `server/settings.py` fills them.
May not live here: reading the environment, names of variables.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from proxy.outcome import Limit
from proxy.policy.keys import CANCEL, Disconnect
from proxy.wire.head import HeadLimits

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Seconds; 0 = none. Reasons and neighbours in HTTP.md 2. Reasoning models are silent for minutes, so what waits for a
# provider is generous; the rest is what nginx and Envoy users know.
DEFAULT_SECONDS: dict[Limit, float] = {
    Limit.IDLE: 75.0,
    Limit.HEAD: 10.0,
    Limit.BODY: 30.0,
    Limit.QUEUE: 0.0,  # here 0 means: do not wait, refuse at once
    Limit.CONNECT: 5.0,
    Limit.SEND: 30.0,
    Limit.FIRST_BYTE: 120.0,
    Limit.FIRST_BYTE_UNARY: 600.0,
    Limit.FIRST_EVENT: 300.0,
    Limit.HOLD: 15.0,  # here 0 means: do not hold; long enough for an overloaded provider to say so
    Limit.STREAM: 300.0,
    Limit.TOTAL: 0.0,
    Limit.CLIENT_STALL: 60.0,
    Limit.SHUTDOWN: 30.0,
}


@dataclass(frozen=True, slots=True)
class ByteLimits:
    """Sizes in bytes, or counts, beyond which we refuse, pause or drop."""

    body: int = 32 * MIB  # of one request; framing counts (Anthropic's own limit is 32 MB)
    upload: int = 1024 * MIB  # of a request body that streams through unread (OpenAI's files: 512 MB); 0 = none
    bodies: int = 256 * MIB  # of all requests held at once; then 503
    event: int = 1 * MIB  # one event of a stream that is read; a larger one passes unread
    upstream_head: int = 64 * KIB
    buffer: int = 64 * KIB  # high water towards a slow side
    replay: int = 8 * MIB  # of one request body that is kept for a further attempt; larger ones get one attempt
    min_body_rate: int = 256  # bytes a second a request body must average after its first 30 s; 0 = none
    connections: int = 10_000  # of clients; then accepted and closed with 503
    streams_per_key: int = 0  # concurrent streamed answers of one key; 0 = none
    drains: int = 100  # answers that are read on after their clients left, at once; further ones are cancelled
    drain: int = 16 * MIB  # of one such answer
    kept: int = 256 * MIB  # of requests and events of all exchanges, kept in case their text must be counted


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """Upstream connections, per origin."""

    max_connections: int = 1_000  # open ones per origin
    max_idle: int = 100  # kept for reuse per origin
    idle_seconds: float = 55.0  # below the 60 s after which common load balancers drop an idle connection
    age_seconds: float = 3_600.0  # so that DNS changes are followed
    queue: int = 1_000  # exchanges that may wait for a connection of one origin, then 503


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """Certificates for TLS towards upstreams. None: the system's CA bundle, no client certificate."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class RelayOptions:
    seconds: dict[Limit, float] = field(default_factory=lambda: dict(DEFAULT_SECONDS))
    head: HeadLimits = field(default_factory=HeadLimits)
    bytes: ByteLimits = field(default_factory=ByteLimits)
    pool: PoolOptions = field(default_factory=PoolOptions)
    tls: UpstreamTls = field(default_factory=UpstreamTls)
    identity: bool = True  # ask for unencoded streams (DESIGN 4)
    meters: bool = True  # read what answers report about usage
    retries: int = 2  # attempts after the first, as the vendors' own clients make (WIRE 5); 0 = none
    hedge_share: float = 0.05  # of requests to aliases that hedge, which are sent twice: p95 makes no more of them
    retry_share: float = 0.2  # of requests, beyond which nothing is tried again (policy.retry)
    stops: bool = False  # break off an answer that costs more than was reserved and than is left
    shows_timing: bool = False  # tell clients our id and how long each side took
    disconnect: Disconnect = CANCEL
    disconnect_by_key: dict[str, Disconnect] = field(default_factory=dict)
