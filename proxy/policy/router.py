"""Where does a request go?

Lives here: method and path -> `Route`; which dialect words a refusal.
May not live here: connections, credentials, bodies; which model is meant (plan). Nothing here raises, whatever the
bytes.
How it works: two steps, because the model stands in the body. `route` needs the head only and says whether the body
must be held; `plan` then names the targets. Paths are compared raw and exactly: the ones we know are keys of a dict, so
only others need to be looked at for what might lead elsewhere (dot segments, `//`, backslashes, encoded or not), and
for other spellings of a path that is read, which a provider may take for it: they are refused, else a stream could pass
unread, past its limits.
Doubted: `anthropic-version` sends every further /v1 path to the Anthropic provider, not only /v1/models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from proxy.catalog.snapshot import Provider, Snapshot
from proxy.dialects import DIALECTS
from proxy.dialects.call import Dialect
from proxy.dialects.gemini import find_model
from proxy.outcome import Failure, Kind
from proxy.policy.plan import join, no_default, not_spoken, of_family, refusal

HeadGet = Callable[[bytes], bytes | None]

PLAIN = DIALECTS["plain"]


class Route(NamedTuple):
    """What the head alone decides. `provider` is None where the model in the body decides. `path` is not yet joined to
    a base URL."""

    dialect: Dialect
    reads_body: bool
    provider: Provider | None
    path: bytes


# --- known paths ------------------------------------------------------------------------------------------------------

# Below /v1 in the OpenAI family. Every one of these is a POST with the model in a JSON body.
_OPENAI_PATHS: Final = {
    b"/chat/completions": "openai-chat",
    b"/completions": "openai-completions",
    b"/embeddings": "openai-embeddings",
    b"/responses": "openai-responses",
    b"/responses/compact": "openai-responses",
    b"/responses/input_tokens": "openai-responses",
}
_ANTHROPIC_PATHS: Final = {
    b"/v1/messages": "anthropic-messages",
    b"/v1/messages/count_tokens": "anthropic-count-tokens",
}
_OLLAMA_PATHS: Final = {b"/api/chat": "ollama", b"/api/generate": "ollama"}
# Further methods on the paths above, which go on unread. OpenAI lists stored chat completions there.
_ALSO: Final = {b"/v1/chat/completions": (b"GET",)}
# What Gemini's dialect reads. Other methods after the colon (predict, batch...) pass unread.
_GEMINI_ACTIONS: Final = frozenset(
    {b"generateContent", b"streamGenerateContent", b"countTokens", b"embedContent", b"batchEmbedContents"}
)
_GEMINI_SPELT: Final = {action.lower(): action for action in _GEMINI_ACTIONS}
_GEMINI_ROOTS: Final = (b"/v1beta/", b"/v1alpha/", b"/upload/v1beta/", b"/upload/v1alpha/")
_GEMINI_OPENAI: Final = b"/v1beta/openai"

_POST_PATHS: dict[bytes, str] = {
    **{b"/v1" + path: dialect for path, dialect in _OPENAI_PATHS.items()},
    **_ANTHROPIC_PATHS,
    **_OLLAMA_PATHS,
}
# Ready-made answers for the paths that nearly every request has: one dict lookup, no allocation.
_UNIFIED: Final = {path: Route(DIALECTS[dialect], True, None, path) for path, dialect in _POST_PATHS.items()}


# --- what a target may look like --------------------------------------------------------------------------------------

# RFC 3986 section 3.3: what a path may hold, and only whole escapes.
_PATH: Final = re.compile(rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*")
# After decoding once, as the next reader will: a segment of one or two dots (with or without parameters, which some
# servers cut off first), control bytes, backslashes.
_STRAY: Final = re.compile(rb"(?:^|/)\.{1,2}(?:[/;]|$)|[\x00-\x1f\x7f\\]")
# Raw quotes and brackets in a query do no harm and real clients send them.
_QUERY: Final = re.compile(rb"[!-\"$-~]*")

_BAD_TARGET: Final = refusal(Kind.BAD_REQUEST, "the request target must be a plain absolute path without dot segments")
_BAD_QUERY: Final = refusal(Kind.BAD_REQUEST, "the query holds bytes that must be percent-encoded")


def _is_plain_path(path: bytes) -> bool:
    if _PATH.fullmatch(path) is None or b"//" in path:
        return False
    return _STRAY.search(unquote_to_bytes(path) if b"%" in path else path) is None


_PARAMETERS: Final = re.compile(rb";[^/]*")
_SLASHES: Final = re.compile(rb"//+")
_REPEATED_V1: Final = re.compile(rb"\A(?:/v1)+(?=/v1/)")  # a base URL of /v1 joined twice


def _canonical(path: bytes) -> bytes:
    """What the most lenient server could take `path` for: decoded once, without parameters, repeated or trailing
    slashes, letter case and a doubled /v1."""
    if b"%" in path:
        path = unquote_to_bytes(path)
    if b";" in path:
        path = _PARAMETERS.sub(b"", path)
    return _REPEATED_V1.sub(b"", _SLASHES.sub(b"/", path).rstrip(b"/ ").lower())


def _misspelt(end: bytes) -> Failure:
    detail = "write this path as its API has it, without escapes, parameters or further slashes; it ends in "
    return refusal(Kind.BAD_REQUEST, detail + end.decode("ascii", "replace"))


# --- route ------------------------------------------------------------------------------------------------------------


def route(method: bytes, path: bytes, query: bytes, snapshot: Snapshot, head_get: HeadGet) -> Route | Failure:
    """What `method` and `path` (raw, as sent) decide. `head_get` answers the value of a field by lower-case name.

    Failures: BAD_REQUEST for targets that two readers could understand differently, METHOD_NOT_ALLOWED, NOT_FOUND,
    UNROUTED.
    """
    if query and _QUERY.fullmatch(query) is None:
        return _BAD_QUERY
    known = _UNIFIED.get(path)
    if known is not None:
        if method == b"POST":
            return known
        if method not in _ALSO.get(path, ()):
            return refusal(Kind.METHOD_NOT_ALLOWED, "this path is called with POST")
    elif not _is_plain_path(path):
        return _BAD_TARGET
    elif _canonical(path) in _UNIFIED:
        return _misspelt(_canonical(path))
    if method == b"TRACE":  # shows a caller the fields we add, credential included
        return refusal(Kind.METHOD_NOT_ALLOWED, "TRACE is not relayed")
    if path.startswith(b"/v1/"):
        return _v1_route(method, path, snapshot, head_get)
    if path.startswith(_GEMINI_ROOTS):
        return _gemini_route(method, path, snapshot)
    if path.startswith(b"/api/"):
        return _home_route(method, path, "ollama", snapshot)
    return _named_route(method, path, snapshot)


def allow(path: bytes) -> bytes:
    """The value of Allow for a METHOD_NOT_ALLOWED on `path` (RFC 9110 section 15.5.6)."""
    return b", ".join((b"POST", *_ALSO.get(path, ()))) if path in _UNIFIED else b"GET, HEAD, POST, PUT, PATCH, DELETE"


def dialect_of(path: bytes) -> Dialect:
    """The dialect in which a refusal of `path` is worded. A guess for where no Route exists yet; any bytes will do."""
    known = _UNIFIED.get(path) or _UNIFIED.get(_canonical(path))
    if known is not None:
        return known.dialect
    if path.startswith(b"/v1/messages"):
        return DIALECTS["anthropic-messages"]
    if path.startswith(_GEMINI_ROOTS):
        return DIALECTS["gemini"]
    if path.startswith(b"/api/"):
        return DIALECTS["ollama"]
    return PLAIN


def _v1_route(method: bytes, path: bytes, snapshot: Snapshot, head_get: HeadGet) -> Route | Failure:
    """/v1/ and what is not known below it: files, images, stored responses, lists of models."""
    if method == b"POST":
        action = _gemini_action(path)
        if action in _GEMINI_ACTIONS or (action is not None and path.startswith(b"/v1/models/")):
            return _gemini_route(method, path, snapshot)  # Gemini's stable version of its API, and Vertex
    if path.startswith(b"/v1/messages/"):
        return _home_route(method, path, "anthropic", snapshot)
    if head_get(b"anthropic-version") is not None:
        provider = of_family("anthropic", snapshot)
        if provider is not None:
            return _unread(method, provider, path)
    # Google's client lists models at /v1/models as well; only the carrier of its key tells it from OpenAI's.
    if path.startswith(b"/v1/models") and head_get(b"x-goog-api-key") is not None:
        return _gemini_route(method, path, snapshot)
    if snapshot.default is None:
        return no_default(snapshot)
    return _unread(method, snapshot.default, path)


def _unread(method: bytes, provider: Provider, path: bytes) -> Route | Failure:
    """`path` goes on as it is, unless `provider` could take it for one that is read."""
    if method == b"POST":
        spelt = _canonical(path)
        action = _GEMINI_SPELT.get(_gemini_action(spelt) or b"") if provider.family == "gemini" else None
        if action is not None:
            return _misspelt(b":" + action)
        if spelt != path and _dialect_below(replace(provider, base=provider.base.lower()), spelt) is not None:
            return _misspelt(spelt[spelt.rfind(b"/", 0, spelt.rfind(b"/")) :])
    return Route(PLAIN, False, provider, path)


def _home_route(method: bytes, path: bytes, family: str, snapshot: Snapshot) -> Route | Failure:
    provider = of_family(family, snapshot)
    if provider is None:
        return refusal(Kind.UNROUTED, f"no provider of the {family} family is configured, and only one has this path")
    return _unread(method, provider, path)


def _named_route(method: bytes, path: bytes, snapshot: Snapshot) -> Route | Failure:
    """/{provider}/...: everything that provider has, under its own paths, with any method."""
    name, slash, rest = path[1:].partition(b"/")
    provider = snapshot.providers.get(name.decode("latin-1"))
    if provider is None or not slash:
        detail = "no such path: set the client's base URL to this proxy's address and /v1, or to /{provider}"
        return refusal(Kind.NOT_FOUND, detail)
    rest = b"/" + rest
    if method == b"POST":
        dialect = _dialect_below(provider, rest)
        if dialect is not None:
            return Route(DIALECTS[dialect], True, provider, rest)
    return _unread(method, provider, rest)


def _dialect_below(provider: Provider, path: bytes) -> str | None:
    """The dialect of `path` under a provider's own name, None if we do not read it."""
    family = provider.family
    if family == "anthropic":
        return _ANTHROPIC_PATHS.get(path)
    if family == "gemini":
        if path.startswith(_GEMINI_OPENAI):
            return _OPENAI_PATHS.get(path[len(_GEMINI_OPENAI) :])
        return "gemini" if _gemini_action(path) in _GEMINI_ACTIONS else None
    if family == "ollama":
        return _POST_PATHS.get(path)
    if family in ("openai", "azure"):
        joined = join(provider, path)
        if family == "azure" and joined.startswith(b"/openai/deployments/"):
            return _OPENAI_PATHS.get(b"/" + joined[len(b"/openai/deployments/") :].partition(b"/")[2])
        return _OPENAI_PATHS.get(joined[len(provider.base) :])
    return None


# --- Gemini: the model stands in the path -----------------------------------------------------------------------------


def _gemini_action(path: bytes) -> bytes | None:
    """What follows the last colon (raw or encoded) in the last segment of `path`, if there is one."""
    last = path.rpartition(b"/")[2]
    if b"%" in last:
        last = last.replace(b"%3A", b":").replace(b"%3a", b":")
    _, colon, action = last.rpartition(b":")
    return action if colon else None


def _gemini_route(method: bytes, path: bytes, snapshot: Snapshot) -> Route | Failure:
    """Any path of Gemini's. `provider/model` in it names a provider, and is then taken out of the path."""
    if method == b"POST" and _gemini_action(path) in _GEMINI_ACTIONS:
        named = find_model(path)
        if named is not None and named.model in snapshot.aliases:
            return Route(DIALECTS["gemini"], True, None, path)
    provider, path = _gemini_provider(path, snapshot)
    if provider is None:
        return refusal(Kind.UNROUTED, "no Gemini provider is configured: set GEMINI_API_KEY")
    if provider.family != "gemini":
        return not_spoken(provider, "gemini")
    if method == b"POST":
        dialect = _dialect_below(provider, path)
        if dialect is not None:
            return Route(DIALECTS[dialect], True, provider, path)
    return _unread(method, provider, path)


def _gemini_provider(path: bytes, snapshot: Snapshot) -> tuple[Provider | None, bytes]:
    before, found, after = path.partition(b"/models/")
    if found:
        model = unquote_to_bytes(after.partition(b"/")[0]) if b"%" in after else after
        name, slash, _ = model.partition(b"/")
        named = snapshot.providers.get(name.decode("latin-1")) if slash or b"/" in after else None
        if named is not None:
            cut = re.compile(rb"/|%2[Ff]").split(after, maxsplit=1)
            return named, before + b"/models/" + cut[1]
    default = snapshot.default
    if default is not None and default.family == "gemini":
        return default, path
    return of_family("gemini", snapshot), path
