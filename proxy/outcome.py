"""How an exchange ended, and what it used: the words every room shares.

Lives here: who (`Side`), when (`Phase`), which limit (`Limit`), why (`Kind`), the four together (`Failure`),
the one table from a failure to a status, how many tokens and how sure (`Usage`, `Source`), and the record that every
exchange leaves (`Receipt`).
May not live here: anything that imports another room, reads a clock, or knows HTTP beyond status numbers.
How it works: whoever meets a failure makes one `Failure` and hands it on; nobody else decides what it means.
Doubted: nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, assert_never


class Side(Enum):
    """Who ended it, or whose fault it was. The first letter of the value stands in the access log."""

    CLIENT = "client"
    UPSTREAM = "upstream"
    PROXY = "proxy"

    @property
    def letter(self) -> str:
        return self.value[0].upper()


class Phase(Enum):
    """Where in its life an exchange is, in order. TOTAL spans all of them."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    ADMIT = "admit"
    QUEUE = "queue"
    CONNECT = "connect"
    SEND = "send"
    FIRST_BYTE = "first_byte"
    FIRST_EVENT = "first_event"
    STREAM = "stream"
    DONE = "done"
    TOTAL = "total"

    @property
    def letter(self) -> str:
        return _PHASE_LETTERS[self]


_PHASE_LETTERS: Final = {
    Phase.IDLE: "I",
    Phase.HEAD: "H",
    Phase.BODY: "B",
    Phase.ADMIT: "A",
    Phase.QUEUE: "Q",
    Phase.CONNECT: "C",
    Phase.SEND: "S",
    Phase.FIRST_BYTE: "F",
    Phase.FIRST_EVENT: "E",
    Phase.STREAM: "D",  # data, as in HAProxy's log
    Phase.DONE: "-",
    Phase.TOTAL: "T",
}


class Limit(Enum):
    """A number of seconds that some phase may last. `LLM_PROXY_TIMEOUT_<NAME>` sets it; 0 means none.

    Most are a phase's own; the rest bound what is not a phase: a client that does not read, a drain at shutdown.
    """

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    QUEUE = "queue"
    CONNECT = "connect"
    SEND = "send"
    FIRST_BYTE = "first_byte"
    FIRST_BYTE_UNARY = "first_byte_unary"
    FIRST_EVENT = "first_event"
    HOLD = "hold"
    STREAM = "stream"
    TOTAL = "total"
    CLIENT_STALL = "client_stall"
    SHUTDOWN = "shutdown"


class Kind(Enum):
    """Why an exchange did not end well. The value is what receipts, logs and error bodies show; keep it stable."""

    # The client broke a rule: refused, nothing sent upstream.
    BAD_REQUEST = "bad_request"
    UNREADABLE_BODY = "unreadable_body"
    LINE_TOO_LONG = "line_too_long"
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    MEDIA_TYPE_UNSUPPORTED = "media_type_unsupported"
    METHOD_UNKNOWN = "method_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    VERSION_UNSUPPORTED = "version_unsupported"
    CODING_UNSUPPORTED = "coding_unsupported"
    EXPECTATION_FAILED = "expectation_failed"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UNROUTED = "unrouted"
    MODEL_UNKNOWN = "model_not_found"
    CONFLICT = "conflict"  # with what there is already
    TOO_MANY = "too_many_requests"
    BUDGET = "budget_exhausted"
    EXCEEDS_LIMIT = "exceeds_limit"  # it needs more than a limit ever gives
    UNPRICED = "unpriced_model"
    MODEL_FORBIDDEN = "model_forbidden"
    # Somebody was too slow: side and phase say who and where.
    TIMEOUT = "timeout"
    # The client went away, or does not read.
    CLIENT_LEFT = "client_left"
    CLIENT_STALLED = "client_stalled"
    # We could not, or would not.
    OVERLOADED = "overloaded"
    SHUTDOWN = "shutdown"
    LOOP = "loop"
    INTERNAL = "internal"
    # Only of an attempt: another one answered first; or it was to carry on an answer, and is not the same.
    OUTRUN = "outrun"
    DIFFERS = "differs"
    # The upstream failed.
    CONNECT_FAILED = "connect_failed"
    RESET = "reset"
    PROTOCOL = "protocol"
    MISSING_END = "missing_end"
    CREDENTIAL_REFUSED = "credential_refused"
    ERROR_STATUS = "error_status"
    ERROR_EVENT = "error_event"


class Failure(NamedTuple):
    """One failure, complete: whoever sees it needs no other source. `detail` is a sentence for people, free of
    secrets and of anything the other side sent."""

    side: Side
    phase: Phase
    kind: Kind
    detail: str = ""


def status_of(failure: Failure) -> int:
    """The HTTP status a client gets for `failure` while its answer has not begun (RFC 9110 section 15).

    499 is never sent: it stands in receipts for a client that left (nginx uses the same number).
    """
    match failure.kind:
        case Kind.BAD_REQUEST | Kind.UNREADABLE_BODY | Kind.EXCEEDS_LIMIT:
            return 400
        case Kind.UNAUTHORIZED:
            return 401
        case Kind.FORBIDDEN | Kind.UNPRICED | Kind.MODEL_FORBIDDEN:
            return 403
        case Kind.NOT_FOUND | Kind.UNROUTED | Kind.MODEL_UNKNOWN:
            return 404
        case Kind.METHOD_NOT_ALLOWED:
            return 405
        case Kind.CONFLICT:
            return 409
        case Kind.BODY_TOO_LARGE:
            return 413
        case Kind.LINE_TOO_LONG:
            return 414
        case Kind.MEDIA_TYPE_UNSUPPORTED:
            return 415
        case Kind.EXPECTATION_FAILED:
            return 417
        case Kind.TOO_MANY | Kind.BUDGET:
            return 429
        case Kind.HEAD_TOO_LARGE:
            return 431
        case Kind.CLIENT_LEFT | Kind.CLIENT_STALLED:
            return 499
        case Kind.INTERNAL | Kind.OUTRUN | Kind.DIFFERS:
            return 500
        case Kind.METHOD_UNKNOWN | Kind.CODING_UNSUPPORTED:
            return 501
        case Kind.CONNECT_FAILED | Kind.RESET | Kind.PROTOCOL | Kind.MISSING_END:
            return 502
        case Kind.CREDENTIAL_REFUSED | Kind.ERROR_STATUS | Kind.ERROR_EVENT:
            return 502
        case Kind.OVERLOADED | Kind.SHUTDOWN:
            return 503
        case Kind.VERSION_UNSUPPORTED:
            return 505
        case Kind.LOOP:
            return 508
        case Kind.TIMEOUT:
            return _timeout_status(failure.phase)
        case _:
            assert_never(failure.kind)


def _timeout_status(phase: Phase) -> int:
    if phase in (Phase.IDLE, Phase.HEAD, Phase.BODY):
        return 408
    if phase is Phase.QUEUE:
        return 503
    return 504


def milliseconds(seconds: float) -> float:
    """For receipts: to the microsecond, since more digits would claim what no clock here knows."""
    return int(seconds * 1e6) / 1e3


class Source(Enum):
    """Where a figure comes from, the surest first. The value stands in logs and the ledger; keep it stable."""

    REPORTED = "reported"  # by the provider
    COUNTED = "counted"  # by a tokenizer, out of the text that passed
    ESTIMATED = "estimated"  # from the number of bytes
    NONE = "none"  # nobody knows


_SURENESS: Final = {source: index for index, source in enumerate(Source)}


def weaker(one: Source, other: Source) -> Source:
    """The less sure of two sources: what a sum of both is worth."""
    return one if _SURENESS[one] >= _SURENESS[other] else other


class Billed(NamedTuple):
    """A part of an exchange that is billed at a model of its own (Anthropic's iterations, WIRE 0.10). Figures mean the
    same as in `Usage`."""

    model: str | None  # None: the model of the exchange
    input: int
    output: int
    cached: int = 0
    cache_write: int = 0


@dataclass(slots=True, init=False)
class Usage:
    """What one exchange used. Every number is tokens unless it says otherwise; None = not known.

    `input` is all input, cached tokens and cache writes included; `output` all output, reasoning included, whatever the
    provider's own fields mean (DESIGN 15). `complete`: both figures are the final ones.
    """

    input: int | None
    output: int | None
    cached: int | None  # part of input
    cache_write: int | None  # part of input
    cache_write_1h: int | None  # part of cache_write that is kept for an hour and costs more
    reasoning: int | None  # part of output
    searches: int | None  # web searches, which cost apart from tokens
    cost_micros: int | None  # micro-dollars, as the provider itself says
    input_source: Source
    output_source: Source
    complete: bool
    counted_input: int | None  # by our tokenizer, before the factor of the model's family
    counted_output: int | None
    billed: tuple[Billed, ...]  # what is billed where that is not input and output; empty elsewhere

    # Written out, since what dataclasses make of it cannot be compiled (scripts/compile.py): a third of the time.
    def __init__(
        self,
        input: int | None = None,
        output: int | None = None,
        cached: int | None = None,
        cache_write: int | None = None,
        cache_write_1h: int | None = None,
        reasoning: int | None = None,
        searches: int | None = None,
        cost_micros: int | None = None,
        input_source: Source = Source.NONE,
        output_source: Source = Source.NONE,
        complete: bool = False,
        counted_input: int | None = None,
        counted_output: int | None = None,
        billed: tuple[Billed, ...] = (),
    ) -> None:
        self.input = input
        self.output = output
        self.cached = cached
        self.cache_write = cache_write
        self.cache_write_1h = cache_write_1h
        self.reasoning = reasoning
        self.searches = searches
        self.cost_micros = cost_micros
        self.input_source = input_source
        self.output_source = output_source
        self.complete = complete
        self.counted_input = counted_input
        self.counted_output = counted_output
        self.billed = billed

    @property
    def source(self) -> Source:
        """How sure the two figures are together."""
        return weaker(self.input_source, self.output_source)


def sum_usage(parts: Iterable[Usage]) -> Usage:
    """What several attempts used in all. A figure that a part does not know adds nothing; a sum is as sure as the least
    sure of those that know it, and complete if every part is. Not for pricing: a part may have a price of its own, so
    costs are added up instead."""
    every = list(parts)
    total = Usage()
    for name in _ADDED:
        setattr(total, name, sum_known(getattr(part, name) for part in every))
    total.input_source = _weakest(part.input_source for part in every if part.input is not None)
    total.output_source = _weakest(part.output_source for part in every if part.output is not None)
    total.complete = bool(every) and all(part.complete for part in every)
    total.billed = tuple(billed for part in every for billed in part.billed)
    return total


_ADDED: Final = (
    "input", "output", "cached", "cache_write", "cache_write_1h", "reasoning", "searches", "cost_micros",
    "counted_input", "counted_output",
)  # fmt: skip


def _weakest(sources: Iterable[Source]) -> Source:
    return max(sources, key=_SURENESS.__getitem__, default=Source.NONE)


def sum_known(parts: Iterable[int | None]) -> int | None:
    """The sum of those that are known; None: none is."""
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


class Attempt(NamedTuple):
    """One try at one target. Times are milliseconds since the exchange began; `failure` is None if it went well.

    `why` it was made, in a word that logs and the ledger show: `first` · `stale` (the pooled link before was dead
    already) · `retry` (same target) · `fallback` (another target) · `hedge` (the one before was slow, and went on) ·
    `resume` (carries on a stream that was cut).
    The last five are its own, where the receipt has the exchange's: sums of tokens and cost over all attempts, and what
    the client saw. Where no attempt has any usage or cost, all that was used is the last answered one's and need not be
    said twice: so it is usually, with a single attempt. The ledger's row of that attempt gets the exchange's figures.
    """

    provider: str
    model: str | None  # as it was asked for there
    started_ms: float
    ended_ms: float
    reused: bool  # on a pooled connection
    status: int  # 0: no answer
    failure: Failure | None
    why: str = "first"
    first_event_ms: float | None = None
    usage: Usage | None = None
    cost_micros: int | None = None  # by our prices; None: no price is known, or as `usage`
    model_served: str | None = None
    bytes_out: int = 0  # of its answer's body, to the client


@dataclass(slots=True, init=False)
class Receipt:
    """The one record of how an exchange ended. Names are the ledger's columns (DESIGN 15).

    Times in milliseconds from the first byte of the request head; None where that point was not reached. `connect_ms`
    and `queue_ms` are durations. `usage` and `cost_micros` are what the exchange took in all: the sums over its
    attempts (`sum_usage`, `sum_known`), also of those whose answer nobody saw. `provider` and `model_served` are those
    of the answer that the client got. Holds no content, no secret, no query string.
    """

    id: str
    started_at: float  # seconds since the epoch
    client: str  # address, or "unix" with the process at the other end where the system tells it
    method: str
    path: str
    key: str | None  # its name
    provider: str | None
    alias: str | None
    model_requested: str | None
    model_served: str | None
    dialect: str
    stream: bool
    status: int  # what the client was sent; 0: nothing
    ended_by: Side
    ended_phase: Phase
    ended_kind: str
    detail: str
    complete: bool
    attempts: list[Attempt]
    events: int
    bytes_in: int  # request body
    bytes_out: int  # answer body
    body_ms: float | None  # the request was complete
    queue_ms: float | None
    connect_ms: float | None
    sent_ms: float | None  # the request was sent on in full
    first_byte_ms: float | None
    first_event_ms: float | None
    total_ms: float
    provider_request_id: str | None
    tags: str | None  # what the client wrote into x-llm-proxy-tags
    usage: Usage | None  # None: nothing was asked of a provider, or nothing that uses tokens
    cost_micros: int | None  # micro-dollars by our prices; None: no price is known
    price_version: str | None
    stands_for: int  # requests; of refusals in masses one stands for those that leave no record of their own

    # As of Usage.
    def __init__(
        self,
        id: str,
        started_at: float,
        client: str,
        method: str,
        path: str,
        key: str | None = None,
        provider: str | None = None,
        alias: str | None = None,
        model_requested: str | None = None,
        model_served: str | None = None,
        dialect: str = "plain",
        stream: bool = False,
        status: int = 0,
        ended_by: Side = Side.UPSTREAM,
        ended_phase: Phase = Phase.DONE,
        ended_kind: str = "complete",
        detail: str = "",
        complete: bool = True,
        attempts: list[Attempt] | None = None,
        events: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        body_ms: float | None = None,
        queue_ms: float | None = None,
        connect_ms: float | None = None,
        sent_ms: float | None = None,
        first_byte_ms: float | None = None,
        first_event_ms: float | None = None,
        total_ms: float = 0.0,
        provider_request_id: str | None = None,
        tags: str | None = None,
        usage: Usage | None = None,
        cost_micros: int | None = None,
        price_version: str | None = None,
        stands_for: int = 1,
    ) -> None:
        self.id = id
        self.started_at = started_at
        self.client = client
        self.method = method
        self.path = path
        self.key = key
        self.provider = provider
        self.alias = alias
        self.model_requested = model_requested
        self.model_served = model_served
        self.dialect = dialect
        self.stream = stream
        self.status = status
        self.ended_by = ended_by
        self.ended_phase = ended_phase
        self.ended_kind = ended_kind
        self.detail = detail
        self.complete = complete
        self.attempts = [] if attempts is None else attempts
        self.events = events
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.body_ms = body_ms
        self.queue_ms = queue_ms
        self.connect_ms = connect_ms
        self.sent_ms = sent_ms
        self.first_byte_ms = first_byte_ms
        self.first_event_ms = first_event_ms
        self.total_ms = total_ms
        self.provider_request_id = provider_request_id
        self.tags = tags
        self.usage = usage
        self.cost_micros = cost_micros
        self.price_version = price_version
        self.stands_for = stands_for

    def note(self, failure: Failure) -> None:
        """It did not end well."""
        self.complete = False
        self.ended_by = failure.side
        self.ended_phase = failure.phase
        self.ended_kind = failure.kind.value
        self.detail = failure.detail

    @property
    def letters(self) -> str:
        """Who and when in two letters, e.g. `UD` = the upstream, during the stream; `--` = complete."""
        if self.complete:
            return "--"
        return self.ended_by.letter + self.ended_phase.letter
