"""The sentence of a Failure that every dialect's error body is made of.

Lives here: the message for people, one for each kind.
May not live here: statuses (outcome), shapes and type names (each dialect has its own).
How it works: whoever met the failure may have said more in `detail`; else the kind speaks. The prefix tells who speaks:
people otherwise search the provider's documentation for an error that the provider never made.
Doubted: nothing yet.
"""

from __future__ import annotations

from typing import Final

from proxy.outcome import Failure, Kind

PREFIX: Final = "llm-proxy: "

_SENTENCES: dict[Kind, str] = {
    Kind.BAD_REQUEST: "the request is not valid HTTP/1.1",
    Kind.UNREADABLE_BODY: "the request body cannot be read",
    Kind.LINE_TOO_LONG: "the request line is too long",
    Kind.HEAD_TOO_LARGE: "the request head is too large",
    Kind.BODY_TOO_LARGE: "the request body is too large",
    Kind.MEDIA_TYPE_UNSUPPORTED: "the media type of the request body is not supported here",
    Kind.METHOD_UNKNOWN: "the request method is not known",
    Kind.METHOD_NOT_ALLOWED: "the request method is not allowed here",
    Kind.VERSION_UNSUPPORTED: "the HTTP version is not supported: use HTTP/1.1",
    Kind.CODING_UNSUPPORTED: "the transfer coding is not supported: use chunked",
    Kind.EXPECTATION_FAILED: "the expectation is not supported: only 100-continue is",
    Kind.UNAUTHORIZED: "no valid key came with the request",
    Kind.FORBIDDEN: "the request is not allowed",
    Kind.NOT_FOUND: "nothing is at this path",
    Kind.UNROUTED: "no provider is configured for this model",
    Kind.MODEL_UNKNOWN: "there is no model of this name here",
    Kind.CONFLICT: "the request does not go with what there is already",
    Kind.TIMEOUT: "a time limit was reached",
    Kind.CLIENT_LEFT: "the client closed the connection",
    Kind.CLIENT_STALLED: "the client did not read its answer",
    Kind.TOO_MANY: "a limit on requests was reached: try again later",
    Kind.BUDGET: "a budget is used up",
    Kind.EXCEEDS_LIMIT: "the request needs more than a limit ever gives: send less",
    Kind.UNPRICED: "no price is known for this model, and the key has a budget in dollars",
    Kind.MODEL_FORBIDDEN: "the key may not be used for this model",
    Kind.OVERLOADED: "too many requests at once: try again later",
    Kind.SHUTDOWN: "the proxy is shutting down: try again",
    Kind.LOOP: "the request came back to the proxy that sent it",
    Kind.INTERNAL: "an error inside the proxy ended the request",
    Kind.OUTRUN: "another attempt answered first",
    Kind.DIFFERS: "the answer could not be carried on",
    Kind.CONNECT_FAILED: "the provider could not be reached",
    Kind.RESET: "the provider closed the connection before its answer was complete",
    Kind.PROTOCOL: "the provider's answer is not valid HTTP/1.1",
    Kind.MISSING_END: "the provider's stream ended without its last event: the answer may be incomplete",
    Kind.CREDENTIAL_REFUSED: "the provider refused the credential that the proxy is configured with",
    Kind.ERROR_STATUS: "the provider answered with an error",
    Kind.ERROR_EVENT: "the provider reported an error in its stream",
}


def sentence(failure: Failure) -> str:
    """What people read in an error body or event."""
    return PREFIX + (failure.detail or _SENTENCES[failure.kind])
