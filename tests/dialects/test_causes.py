"""Why a provider would not answer: every shape of WIRE 6, whole, cut off, in events, and hostile."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects.causes import Cause, cause_of, wait_in
from tests import recordings
from tests.dialects import transcripts


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def openai(message: str, kind: str | None = "invalid_request_error", code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}, indent=4).encode()


def anthropic(kind: str, message: str, **more: Any) -> bytes:
    return body(type="error", error={"type": kind, "message": message, **more}, request_id="req_1")


def gemini(code: int, status: str, message: str, *details: dict[str, Any]) -> bytes:
    error = {"code": code, "message": message, "status": status, "details": list(details)}
    return json.dumps({"error": error}, indent=2).encode()


def quota(*ids: str) -> dict[str, Any]:
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": each} for each in ids]}


RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
SPENT = "You exceeded your current quota, please check your plan and billing details."
TOO_MUCH = "Rate limit reached for own-1 on tokens per min (TPM): Limit 30000, Used 28039, Requested 3906."

BODIES: list[tuple[Cause, int, bytes]] = [
    # Content
    (Cause.POLICY, 400, openai("Your request was rejected by our safety system.", code="content_policy_violation")),
    (Cause.POLICY, 400, openai("The response was filtered due to ...", kind=None, code="content_filter")),
    (Cause.POLICY, 400, body(error={"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}})),
    (Cause.POLICY, 400, openai("Invalid prompt: it was flagged as violating our usage policy.", code="invalid_prompt")),
    (Cause.POLICY, 403, body(error={"code": 403, "message": "own-1 requires moderation. Your input was flagged."})),
    (Cause.POLICY, 400, gemini(400, "INVALID_ARGUMENT", "blocked", {"reason": "PROHIBITED_CONTENT"})),
    # Longer than the window
    (Cause.CONTEXT, 400, openai("Your input exceeds the limit.", code="context_length_exceeded")),
    (Cause.CONTEXT, 400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")),
    (
        Cause.CONTEXT,
        400,
        anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 3"),
    ),
    (
        Cause.CONTEXT,
        400,
        gemini(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
    ),
    (Cause.CONTEXT, 400, body(object="error", message="This model's maximum context length is 8 tokens.", code=400)),
    (Cause.CONTEXT, 400, body(message="The decoder prompt (length 9) is longer than the maximum model length of 8.")),
    (
        Cause.CONTEXT,
        400,
        body(error={"code": 400, "message": "request exceeds the size", "type": "exceed_context_size_error"}),
    ),
    (Cause.CONTEXT, 500, body(error="the request exceeds the available context size, try increasing it")),
    (Cause.CONTEXT, 400, body(error="the input length exceeds the context length")),
    (Cause.CONTEXT, 400, body(code="x", error="This model's maximum prompt length is 8 but the request contains 9.")),
    (Cause.CONTEXT, 400, body(error_type="TOO_MANY_TOKENS", id="1", message="size limit exceeded by 25836.")),
    (Cause.CONTEXT, 400, body(error={"message": "The messages are too long.", "type": "too_many_prompt_tokens"})),
    (
        Cause.CONTEXT,
        400,
        body(message="Input Tokens Exceeded: Number of input tokens exceeds maximum length."),
    ),
    (
        Cause.CONTEXT,
        400,
        body(error={"message": "Provider returned error", "code": 400, "metadata": {"raw": "prompt is too long: 9"}}),
    ),
    # Used up
    (Cause.QUOTA, 429, openai(SPENT, kind="insufficient_quota", code="insufficient_quota")),
    (Cause.QUOTA, 400, anthropic("invalid_request_error", "Your credit balance is too low to access the API.")),
    (Cause.QUOTA, 400, anthropic("invalid_request_error", "You have reached your specified API usage limits.")),
    (Cause.QUOTA, 429, anthropic("rate_limit_error", "x", details={"error_code": "workspace_spend_limit"})),
    (Cause.QUOTA, 402, anthropic("billing_error", "x")),
    (Cause.QUOTA, 402, b""),
    (Cause.QUOTA, 403, body(code="x", error="Your team has reached its monthly spending limit.")),
    (
        Cause.QUOTA,
        429,
        gemini(429, "RESOURCE_EXHAUSTED", SPENT, quota("PerMinute", "GenerateRequestsPerDayPerProject"), RETRY_INFO),
    ),
    (Cause.QUOTA, 429, body(error={"code": 429, "message": "Rate limit exceeded: free-models-per-day."})),
    # No such model
    (Cause.MODEL, 404, openai("The model `x` does not exist or you do not have access.", code="model_not_found")),
    (Cause.MODEL, 403, openai("Project `p` does not have access to it.", code="model_not_found")),
    (Cause.MODEL, 404, anthropic("not_found_error", "model: there-is-no-such-model")),
    (Cause.MODEL, 404, body(error="model 'own:1b' not found")),
    (Cause.MODEL, 404, body(error='model "own:1b" not found, try pulling it first')),
    (Cause.MODEL, 404, gemini(404, "NOT_FOUND", "models/x is not found for API version v1beta")),
    (Cause.MODEL, 404, body(error={"code": "DeploymentNotFound", "message": "The API deployment does not exist."})),
    (Cause.MODEL, 404, body(id="1", message="model 'x' was removed on September 15.")),
    (Cause.MODEL, 400, body(message="The provided model identifier is invalid.")),
    (Cause.MODEL, 400, body(error={"message": "Model Not Exist", "type": "invalid_request_error"})),
    (Cause.MODEL, 400, body(error={"code": 400, "message": "own/x is not a valid model ID"})),
    # Our credential
    (Cause.CREDENTIAL, 401, b""),
    (Cause.CREDENTIAL, 401, body(detail="Invalid API Key")),
    (Cause.CREDENTIAL, 403, body(message="The security token included in the request is invalid.")),
    (Cause.CREDENTIAL, 400, gemini(400, "INVALID_ARGUMENT", "API key expired.", BAD_KEY)),
    (Cause.CREDENTIAL, 400, gemini(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")),
    (Cause.CREDENTIAL, 400, body(code="invalid-argument", error="Incorrect API key provided.")),
    # Too much at once
    (Cause.OVERLOADED, 529, anthropic("overloaded_error", "Overloaded")),
    (Cause.OVERLOADED, 503, gemini(503, "UNAVAILABLE", "The model is overloaded.")),
    (Cause.OVERLOADED, 498, body(error={"message": "x", "type": "capacity_exceeded"})),
    (Cause.OVERLOADED, 503, b"<html>503 Service Temporarily Unavailable</html>"),
    (Cause.RATE, 429, openai(TOO_MUCH, kind="tokens", code="rate_limit_exceeded")),
    (Cause.RATE, 429, anthropic("rate_limit_error", "This would exceed your rate limit of 50 requests per minute.")),
    (Cause.RATE, 429, body(error={"code": "429", "message": "... exceeded the token rate limit of your tier."})),
    (Cause.RATE, 429, gemini(429, "RESOURCE_EXHAUSTED", SPENT, quota("RequestsPerMinutePerProject"), RETRY_INFO)),
    (Cause.RATE, 429, openai("input tokens: maximum context window limit per minute reached", kind="tokens")),
    (Cause.RATE, 413, openai(TOO_MUCH, kind="tokens", code="rate_limit_exceeded")),
    (Cause.RATE, 429, b"slow down"),
    # The request
    (Cause.INVALID, 400, openai("Invalid 'messages': empty array.", code="empty_array")),
    (Cause.INVALID, 400, body(detail=[{"type": "missing", "loc": ["body"], "msg": "Field required", "input": {}}])),
    (Cause.INVALID, 413, anthropic("request_too_large", "Request exceeds the maximum size")),
    (Cause.INVALID, 404, b"404 page not found"),
    (Cause.INVALID, 400, b""),
    # Nobody knows
    (Cause.OTHER, 500, openai("The server had an error while processing your request.", kind="server_error")),
    (Cause.OTHER, 500, openai("it broke", kind="invalid_request_error")),
    (Cause.OTHER, 502, b"<html><body>Bad Gateway</body></html>"),
    (Cause.OTHER, 409, body(error={"message": "conflict"})),
    (Cause.OTHER, 408, b""),
]


def name(row: object) -> str | None:
    return row.value if isinstance(row, Cause) else None


@pytest.mark.parametrize(("cause", "status", "data"), BODIES, ids=name)
def test_a_body_tells_its_cause(cause: Cause, status: int, data: bytes) -> None:
    assert cause_of(status, data) is cause


@pytest.mark.parametrize(("cause", "status", "data"), BODIES, ids=name)
def test_a_body_that_is_cut_off_or_wrapped_tells_it_as_well(cause: Cause, status: int, data: bytes) -> None:
    if data[:1] == b"{":
        assert cause_of(status, b"[" + data + b"\n]\n") is cause  # Gemini without alt=sse
        assert cause_of(status, b"\r\n " + data[:-1]) is cause
        assert cause_of(status, data[:-1] + b',"more":"' + b"x" * 100_000) is cause
        assert cause_of(status, b"event: error\ndata: " + json.dumps(json.loads(data)).encode() + b"\n\n") is cause


def one_line(data: bytes) -> bytes:
    return json.dumps(json.loads(data)).encode()


CHUNK = b'{"id":"1","choices":[{"delta":{"content":"an error: prompt is too long, overloaded"}}]}'


@pytest.mark.parametrize(
    ("cause", "block"),
    [
        (Cause.OVERLOADED, b"event: error\ndata: " + one_line(anthropic("overloaded_error", "x")) + b"   \n\n"),
        (Cause.RATE, b"event: error\ndata: " + one_line(anthropic("rate_limit_error", "x")) + b"\n\n"),
        (Cause.CREDENTIAL, b"event: error\ndata: " + one_line(anthropic("authentication_error", "x")) + b"\n\n"),
        (Cause.MODEL, b"event: error\ndata: " + one_line(anthropic("not_found_error", "model: x")) + b"\n\n"),
        (Cause.CONTEXT, b"data: " + one_line(openai("x", code="context_length_exceeded")) + b"\n\ndata: [DONE]\n\n"),
        (Cause.OTHER, b"data: " + one_line(openai("it broke", kind="server_error")) + b"\n\ndata: [DONE]\n\n"),
        (
            Cause.QUOTA,
            b'event: error\ndata: {"type":"error","code":"insufficient_quota","message":"x","param":null}\n\n',
        ),
        (
            Cause.RATE,
            b'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed","usage":null,'
            b'"instructions":"say: context_length_exceeded","error":{"code":"rate_limit_exceeded","message":"x"}}}\n\n',
        ),
        (
            Cause.INVALID,
            b'event: error\ndata: {"error":{"message":"x","type":"invalid_request_error","code":"tool_use_failed",'
            b'"failed_generation":"{\\"code\\":\\"content_filter\\"}","status_code":400}}\n\n',
        ),
        (Cause.OTHER, b'data: {"choices":[],"error":{"code":502,"message":"Provider disconnected"}}\n\n'),
        (Cause.INVALID, b'data: {"choices":[],"error":{"code":400,"message":"bad"}}\n\n'),
        (Cause.RATE, b'data: {"choices":[{"error":{"code":429,"message":"x"},"finish_reason":"error"}]}\n\n'),
        (Cause.OVERLOADED, b'data: {"choices":[],"x_groq":{"id":"r","error":"over capacity"}}\n\n'),
        (Cause.OVERLOADED, b"data: " + one_line(gemini(503, "UNAVAILABLE", "x")) + b"\n\n"),
        (Cause.OVERLOADED, b"data: {}\n\n" + gemini(503, "UNAVAILABLE", "x")),
        (Cause.OVERLOADED, b",\n" + gemini(503, "UNAVAILABLE", "x") + b"\n]\n"),
        (Cause.OVERLOADED, b'[{"candidates":[]}\n,\n' + gemini(503, "UNAVAILABLE", "x")),
        (Cause.POLICY, b'data: {"promptFeedback":{"blockReason":"PROHIBITED_CONTENT"}}\n\n'),
        (Cause.POLICY, b'{ "error": { "message": "...", "code": "content_filter", "status": 400 } }'),
        (Cause.OTHER, b'data: {"error":{"object":"error","type":"InternalServerError","code":500}}\n\n'),
        (Cause.INVALID, b'data: {"object":"error","message":"x","type":"BadRequestError","code":400}\n\n'),
        (Cause.OVERLOADED, b'error: {"code":503,"message":"out of memory"}\n\n'),
        (Cause.MODEL, b'{"error":"model \'x\' not found"}\n'),
        (Cause.CONTEXT, b'{"message":{"content":"error"},"done":false}\n{"error":"prompt too long; sorry"}\n'),
        (Cause.OTHER, b'{"error":"model runner has unexpectedly stopped"}\n'),
        (Cause.OTHER, b"data: " + CHUNK + b"\n\n"),
        (Cause.RATE, b": ping\n\ndata: " + CHUNK + b'\n\ndata: {"error":{"code":429}}\n\ndata: [DONE]\n\n'),
        (Cause.OTHER, b""),
        (Cause.OTHER, b"data: error\n\n"),
    ],
)
def test_an_event_tells_its_cause(cause: Cause, block: bytes) -> None:
    assert cause_of(200, block) is cause


def test_what_a_message_quotes_of_the_callers_own_objects_is_not_read() -> None:
    """FastAPI repeats the input that it refuses."""
    told = body(detail=[{"type": "missing", "msg": "Field required", "input": {"code": "content_filter"}}])
    assert cause_of(400, told) is Cause.INVALID


EXPECTED_STATUSES = {401: Cause.CREDENTIAL, 402: Cause.QUOTA, 413: Cause.INVALID, 498: Cause.OVERLOADED}
RECORDED_WORDS = {
    "no-such-model": Cause.MODEL,
    "context-length-exceeded": Cause.CONTEXT,
    "content-filtering": Cause.POLICY,
    "auth-error": Cause.CREDENTIAL,
    "authentication-error": Cause.CREDENTIAL,
    "insufficient-quota": Cause.QUOTA,
    "overloaded": Cause.OVERLOADED,
    "529": Cause.OVERLOADED,
    "503": Cause.OVERLOADED,
    "rate-limit": Cause.RATE,
    "429": Cause.RATE,
    "model-not-found": Cause.MODEL,
    "unknown-model": Cause.MODEL,
    "missing-model": Cause.MODEL,
}
FIRST_ANSWERED_429 = ("gemini-gem", "azure-grok")  # to a prompt that was too long


def expected_of(entry: dict[str, Any]) -> Cause | None:
    """By the recording's own name or status; None: neither says."""
    if "context-length" in entry["id"] and any(each in entry["id"] for each in FIRST_ANSWERED_429):
        return Cause.RATE
    for word, cause in RECORDED_WORDS.items():
        if word in entry["id"]:
            return cause
    return EXPECTED_STATUSES.get(entry["response"]["status"])


RECORDED = [entry for entry in recordings.recorded() if (entry["expect"] or {}).get("error")]


@pytest.mark.parametrize("entry", RECORDED, ids=lambda entry: entry["id"])
def test_a_recorded_error_tells_its_cause(entry: dict[str, Any]) -> None:
    data = (recordings.FIXTURES / entry["response"]["file"]).read_bytes()
    status = entry["response"]["status"]
    found = cause_of(status, data)
    expected = expected_of(entry)
    if expected is not None:
        assert found is expected
    elif status >= 400:
        assert found in ((Cause.OTHER,) if status >= 500 else (Cause.INVALID, Cause.MODEL))


OWN = {
    "anthropic-messages/error-529": Cause.OVERLOADED,
    "anthropic-messages/overloaded-first": Cause.OVERLOADED,
    "anthropic-messages/overloaded-in-mid-text": Cause.OVERLOADED,
    "gemini/array-with-an-error": Cause.OVERLOADED,
    "gemini/bare-error-after-the-events": Cause.OVERLOADED,
    "gemini/error-400-bad-key": Cause.CREDENTIAL,
    "gemini/error-event": Cause.OVERLOADED,
    "ollama/error-404": Cause.MODEL,
    "ollama/error-line": Cause.OTHER,
    "openai-chat/error-401": Cause.CREDENTIAL,
    "openai-chat/gpustack-error-field": Cause.OTHER,
    "openai-chat/groq-error-event": Cause.INVALID,
    "openai-chat/groq-error-inside-x-groq": Cause.OVERLOADED,
    "openai-chat/openai-error-then-done": Cause.OTHER,
    "openai-chat/openrouter-error-chunk": Cause.OTHER,
    "openai-chat/openrouter-error-without-choices": Cause.OTHER,
    "openai-chat/vllm-error-bare": Cause.OTHER,
    "openai-responses/error-alone": Cause.OVERLOADED,
    "openai-responses/error-then-failed": Cause.RATE,
}


@pytest.mark.parametrize("entry", transcripts.entries(), ids=lambda entry: entry["id"])
def test_our_own_transcripts_tell_their_causes_and_good_answers_none(entry: dict[str, Any]) -> None:
    found = cause_of(entry["response"]["status"], transcripts.answer_body(entry))
    if entry["id"] != "gemini/blocked-prompt":  # no error: an answer of its own kind
        assert found is OWN.get(entry["id"], Cause.OTHER)


PIECES = """{ } [ ] " \\ , 429 null data: error: "error": "code": "message":" "type": "details":[ "model_not_found"""
SHREDS = st.sampled_from([each.encode() for each in PIECES.split()] + [b"\n", b"\n\n", b" ", b"9" * 400, b"\xff"])


@given(st.sampled_from([200, 400, 404, 429, 500]), st.lists(SHREDS, max_size=30), st.binary(max_size=20))
def test_no_bytes_make_it_raise(status: int, shreds: list[bytes], junk: bytes) -> None:
    for data in (b"".join(shreds) + junk, junk + b"".join(shreds)):
        assert cause_of(status, data) in Cause
        wait_in(data)


DEEP = {"error": [{"error": [{"message": "model " * 300, "code": "x"}] * 64}] * 64}


@pytest.mark.parametrize(
    "data",
    [
        b'{"message":"' + b"model " * 100_000 + b'"}',
        b'{"message":"' + b"model " * 100_000,
        b'{"error":' * 100_000,
        b"[" * 1_000_000,
        b"event: error\ndata: {\n\n" * 40_000,
        b'{"error":\n' * 100_000,
        b'"type":"' * 100_000,
        json.dumps(DEEP).encode(),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_hostile_body_costs_little(data: bytes) -> None:
    """A megabyte of it takes 10 ms at most; a search that is not linear would take minutes."""
    assert cause_of(400, data) is Cause.INVALID
    assert cause_of(200, data) is Cause.OTHER


@pytest.mark.parametrize(
    ("data", "seconds"),
    [
        (gemini(429, "RESOURCE_EXHAUSTED", SPENT, quota("x"), RETRY_INFO), 34.4),
        (b"[" + gemini(429, "RESOURCE_EXHAUSTED", SPENT, {"retryDelay": "48s"}) + b"]", 48.0),
        (b'{"error":{"details":[{"retryDelay":"0.5s"},{"x', 0.5),
        (b'{"retryDelay":"-1s"}', None),
        (b'{"retryDelay":"86401s"}', None),
        (b'{"retryDelay":"1000000000000s"}', None),
        (b'{"retryDelay":"soon"}', None),
        (openai('say "retryDelay":"1s"'), None),
        (b"", None),
    ],
)
def test_gemini_says_in_its_body_how_long_to_wait(data: bytes, seconds: float | None) -> None:
    assert wait_in(data) == seconds
