"""Why a provider would not answer, as far as what it says tells.

Lives here: `Cause`, `cause_of` for a body with an error status and for events that tell an error, `wait_in` (Gemini
says in its body how long to wait). May not live here: what is done about it (policy.retry), which events are errors
(the watches).
How it works: a few members at known places are read: codes and types into `names`, sentences into `text`. A name that a
vendor documents decides; what has no name of its own (WIRE 6) is known by its wording, and at last by its status. Where
several causes fit, the one that helps most to decide counts: an OpenAI context error is an `invalid_request_error`,
too. What is cut off or no JSON is searched for the same members with a regular expression.
Doubted: wordings change, and a message may repeat what the caller wrote. A wrong guess costs one try at another target,
or spares one; it never changes what a client is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from itertools import islice
from typing import Final

from proxy.dialects.watch import is_filled, parse
from proxy.wire.sse import split_events


class Cause(Enum):
    """The first of these that fits, in this order."""

    POLICY = "policy"  # content that this provider, and most likely any, refuses
    CONTEXT = "context"  # longer than the model's context window
    QUOTA = "quota"  # used up or not paid for: waiting does not help
    MODEL = "model"  # there is no such model there
    CREDENTIAL = "credential"  # ours is refused, altogether or for this
    OVERLOADED = "overloaded"
    TOO_LARGE = "too_large"  # one request is more than a window of the limit ever has: others may pass
    RATE = "rate"  # too many requests or tokens in a window
    INVALID = "invalid"  # the request, and it would be anywhere
    OTHER = "other"


# As vendors write them, in small letters. OpenAI and imitators: `code`, `type`. Anthropic: `type`. Gemini: `status`,
# the `reason` of a detail, `blockReason`.
_NAMES: Final = {
    name: cause
    for cause, names in {
        Cause.POLICY: "content_filter content_policy_violation responsibleaipolicyviolation invalid_prompt safety "
        "prohibited_content image_safety blocklist spii moderation_blocked data_inspection_failed",
        Cause.CONTEXT: "context_length_exceeded exceed_context_size_error context_window_exceeded "
        "too_many_prompt_tokens too_many_tokens",
        Cause.QUOTA: "insufficient_quota insufficient_user_quota insufficient_balance exceeded_current_quota_error "
        "quota_exceeded",
        Cause.MODEL: "model_not_found model_not_available model_decommissioned invalid_model deploymentnotfound",
        Cause.CREDENTIAL: "api_key_invalid invalid_api_key authentication_error unauthenticated permission_error "
        "permission_denied",
        Cause.OVERLOADED: "overloaded_error server_is_overloaded engine_overloaded capacity_exceeded unavailable "
        "slow_down",
        Cause.RATE: "rate_limit_error rate_limit_exceeded ratelimitreached resource_exhausted too_many_requests "
        "throttlingexception",
        Cause.INVALID: "invalid_request_error invalid_request invalid_argument invalid-argument badrequesterror "
        "failed_precondition request_too_large",
    }.items()
    for name in names.split()
}
# Parts of names: Anthropic's `details.error_code` of a spend limit, `billing_error`; the day in Gemini's `quotaId`.
_QUOTA_PARTS: Final = ("spend", "billing", "credit", "perday")

_POLICY: Final = re.compile(
    r"content (?:management )?policy|content filter|usage polic"
    r"|(?:input|prompt|content|request) (?:was|is|has been) flagged"
)
# Anthropic, Cohere, Gemini, xAI, Bedrock, Perplexity, vLLM; a window that something exceeds is sought apart.
_CONTEXT: Final = re.compile(
    r"(?:prompt|input|messages) (?:is |are )?too long|too many (?:input |prompt )?tokens"
    r"|longer than the maximum model length|exceeds (?:the )?maximum (?:number of tokens|length)"
    r"|maximum prompt length"
)
_WINDOW: Final = re.compile(r"context[ _-](?:length|window|size|limit)")
_EXCEEDED: Final = re.compile(r"exceed|maxim|max |larger|longer|too |reduce")
_QUOTA: Final = re.compile(
    r"credit balance|insufficient (?:credits?|balance|funds|quota)|spend(?:ing)? limit|billing (?:hard )?limit"
    r"|api usage limits|-per-day"
)
_MODEL: Final = re.compile(
    r"\bmodel\b.{0,150}?(?:not (?:be )?found|not exist|was removed|decommissioned|identifier is invalid)"
    r"|invalid model\b|not a valid model|no endpoints found",
    re.DOTALL,
)
_KEY: Final = re.compile(
    r"(?:invalid|incorrect|wrong|expired|missing) api[ _-]?key"
    r"|api[ _-]?key (?:is |was )?(?:not valid|invalid|expired|not found)"
)
_OVERLOADED: Final = re.compile(r"overloaded|(?:over|at|no) capacity|high demand")
_RATE: Final = re.compile(r"rate limit|too many requests")

_MOST: Final = 64 * 1024  # bytes that are looked at
_MOST_EVENTS: Final = 64  # that are parsed; an error is among the first of a stream that failed, or alone
_MOST_VALUES: Final = 64  # objects of one document that are looked into
_MOST_DEPTH: Final = 8  # of Gemini's quotaId in an array: 7
_MOST_TEXT: Final = 2000  # characters of one sentence; the longest seen has 500
_MOST_TEXTS: Final = 4000  # of all of them: hostile text of so many is searched in 2 ms
_ERROR_SIGNS: Final = (b"rror", b"failed", b"blockReason")  # bytes that every event telling an error has

_NAME_KEYS: Final = (
    "code", "type", "status", "reason", "error_type", "error_code", "status_code", "quotaId", "blockReason",
)  # fmt: skip
_TEXT_KEYS: Final = ("message", "error", "detail", "msg", "raw")  # `raw`: what OpenRouter was told by whom it asked
_INNER_KEYS: Final = (
    "error", "innererror", "details", "detail", "violations", "metadata", "response", "x_groq", "choices",
    "promptFeedback",
)  # fmt: skip
_NAME_SIGHT: Final = re.compile(rb'"(?:%s)"\s*:\s*"?([\w.-]{1,80})' % "|".join(_NAME_KEYS).encode())
_TEXT_SIGHT: Final = re.compile(
    rb'"(?:%s)"\s*:\s*"((?:[^"\\]|\\.){1,2000}+)' % "|".join(_TEXT_KEYS).encode(), re.DOTALL
)
LONGEST_WAIT: Final = 86_400.0  # seconds; more is a mistake, or no advice
_DELAY: Final = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,9}(?:\.\d{1,9})?)s"')


class _Said:
    """What an error says: names and sentences in small letters, and the status that it gives itself."""

    __slots__ = ("names", "status", "text")

    def __init__(self, status: int) -> None:
        self.status = status
        self.names: set[str] = set()
        self.text = ""

    def add_name(self, value: object) -> None:
        if isinstance(value, str):
            self.names.add(value.lower())
            if value.isascii() and value.isdigit() and len(value) == 3:
                value = int(value)
        if isinstance(value, int) and 400 <= value < 600 and self.status < 400:
            self.status = value

    def add_text(self, value: str) -> None:
        room = min(_MOST_TEXT, _MOST_TEXTS - len(self.text))
        if room > 0:
            self.text += value[:room].lower() + "\n"


def cause_of(status: int, body: bytes) -> Cause:
    """The cause that `body` gives: a document that came with an error status, or, with 200, a block of events of which
    one tells an error. Either may be cut off, or be something else. Never raises."""
    if status < 400:
        for document in _error_documents(body[-_MOST:]):
            cause = _decide(_read(document, 0))
            if cause is not Cause.OTHER:
                return cause
        return Cause.OTHER
    body = body[:_MOST].strip()
    document = parse(body)
    if document is None:
        document = next(_error_documents(body), None)
    return _decide(_sight(body, status) if document is None else _read(document, status))


def wait_in(body: bytes) -> float | None:
    """Seconds to wait by the `retryDelay` of Gemini's RetryInfo, which sends no header (WIRE 5); None: nothing said."""
    # The bytes are a key: inside a string the quotes would be escaped.
    found = _DELAY.search(body, 0, _MOST)
    seconds = LONGEST_WAIT + 1 if found is None else float(found[1])
    return seconds if seconds <= LONGEST_WAIT else None


def _error_documents(block: bytes) -> Iterator[object]:
    """The JSON values in a block of events that may tell an error, in any framing."""
    block = block.strip()
    # Alone, or some elements of Gemini's array, as the cutter gives them.
    document = parse(block) if block[:1] == b"{" else None
    if document is None and block[:1] in (b"[", b",", b"{"):
        document = parse(b"[" + block.strip(b" \t\r\n,[]") + b"]")
    if document is not None:
        yield document
        return
    yield from islice(_event_documents(block), _MOST_EVENTS)


def _event_documents(block: bytes) -> Iterator[object]:
    for name, data in split_events(block):
        if name != b"error" and not any(sign in data for sign in _ERROR_SIGNS):
            continue
        document = parse(data)
        if document is not None:
            yield document
            continue
        for line in data.splitlines():  # NDJSON
            if line[:1] == b"{" and any(sign in line for sign in _ERROR_SIGNS):
                yield parse(line)


def _read(document: object, status: int) -> _Said:
    """The members of `document` that may tell a cause."""
    said = _Said(status)
    level = [document]
    left = _MOST_VALUES
    for _ in range(_MOST_DEPTH):
        inner: list[object] = []
        for value in level[:left]:
            left -= 1
            if isinstance(value, list):
                inner += value[:_MOST_VALUES]
            elif isinstance(value, dict):
                for key in _NAME_KEYS:
                    said.add_name(value.get(key))
                for key in _TEXT_KEYS:
                    if isinstance(text := value.get(key), str):
                        said.add_text(text)
                inner += [value[key] for key in _INNER_KEYS if is_filled(value.get(key))]
        level = inner
    return said


def _sight(body: bytes, status: int) -> _Said:
    """The same from bytes that cannot be parsed: a document that was cut off, a page, a line of text."""
    said = _Said(status)
    if body[:1] not in (b"{", b"["):
        said.add_text(body[: 2 * _MOST_TEXT].decode("utf-8", "replace"))
        return said
    for found in islice(_NAME_SIGHT.finditer(body), _MOST_VALUES):
        said.add_name(found[1].decode("ascii", "replace"))
    for found in islice(_TEXT_SIGHT.finditer(body), _MOST_VALUES):
        said.add_text(found[1].decode("utf-8", "replace"))
    return said


def _decide(said: _Said) -> Cause:
    found = {_NAMES[name] for name in said.names if name in _NAMES}
    for cause in Cause:
        if (cause in found and _is_possible(cause, said.status)) or _is_told(cause, said):
            return cause
    return Cause.OTHER


def _is_possible(cause: Cause, status: int) -> bool:
    """Some servers give their own breakdown the type of a bad request."""
    return cause is not Cause.INVALID or status < 500


def _is_told(cause: Cause, said: _Said) -> bool:
    """By wording or status."""
    status, text = said.status, said.text
    is_about_request = status not in (401, 429)  # limits on tokens are worded like windows
    match cause:
        case Cause.POLICY:
            return is_about_request and bool(_POLICY.search(text))
        case Cause.CONTEXT:
            is_exceeded = bool(_WINDOW.search(text) and _EXCEEDED.search(text)) or bool(_CONTEXT.search(text))
            return is_about_request and is_exceeded
        case Cause.QUOTA:
            is_named = any(part in name for name in said.names for part in _QUOTA_PARTS)
            return status == 402 or is_named or bool(_QUOTA.search(text))
        case Cause.MODEL:
            is_unknown = status == 404 or "not_found_error" in said.names
            return (is_unknown and "model" in text) or (status in (0, 400, 403, 404, 422) and bool(_MODEL.search(text)))
        case Cause.CREDENTIAL:
            return status in (401, 403) or (status < 500 and bool(_KEY.search(text)))
        case Cause.OVERLOADED:
            return status in (498, 503, 529) or bool(_OVERLOADED.search(text))
        case Cause.TOO_LARGE:
            return status == 429 and "request too large" in text
        case Cause.RATE:
            return status == 429 or bool(_RATE.search(text))
        case Cause.INVALID:
            return 400 <= status < 500 and status not in (408, 409)
        case Cause.OTHER:
            return True
