"""How a user would send each recorded request, and with which configuration.

Lives here: `Recorded` (an entry of the manifest with the path at the sidecar and the target at the provider) and the
environment that makes both true. May not live here: expectations about answers (test_identity).
How it works: the recorded path tells the base URL that a user of that vendor configures; in the OpenAI family that is
the path without its known end. Each different base is a provider of its own, called by name, so that many ways of
joining a base are walked. Entries without a path get the usual one of their dialect. The project's own transcripts are
read the same way.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import recordings

TRANSCRIPTS = Path(__file__).resolve().parent.parent / "dialects" / "transcripts"

_USUAL = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "openai-responses": "/v1/responses",
    "openai-embeddings": "/v1/embeddings",
    "embeddings": "/v1/embeddings",
    "anthropic-messages": "/v1/messages",
    "gemini-generate": "/v1beta/models/m:generateContent",
    "gemini-stream": "/v1beta/models/m:streamGenerateContent",
    "ollama-chat": "/api/chat",
    "ollama-generate": "/api/generate",
}
_OPENAI_END = re.compile(r"/(chat/completions|completions|responses|embeddings)$")


def folders() -> list[Path]:
    """The project's own transcripts, and the recorded traffic where it is at hand."""
    return [TRANSCRIPTS, *([recordings.FIXTURES] if recordings.is_at_hand() else [])]


@dataclass(frozen=True, slots=True)
class Recorded:
    """`path` is what the client asks the sidecar for, `target` what the provider must be asked for."""

    id: str
    method: str
    path: str
    target: str
    provider: str
    base: str  # family+path of the provider's base URL
    request: bytes
    content_type: str
    is_recorded: bool  # the request is
    status: int
    fields: dict[str, str]
    body: bytes
    streaming: bool
    broken: str  # framing of a stream of the transcripts that must be broken off; "" for all others


def _clean(path: str) -> str:
    """A recorded path as a client would write it: scrubbed parts and double slashes are the recorder's."""
    path = re.sub(r"^<[A-Z_]+>", "/v1", path).replace("//", "/")
    return urllib.parse.quote(path, safe="/:%!$&'()*+,;=@-._~")


def _way(entry: dict[str, Any]) -> tuple[str, str, str]:
    """(family, base path, path below it)."""
    api, path = entry["api"], _clean(entry["request"]["path"] or _USUAL.get(entry["api"], "/v1/unknown"))
    if api.startswith("openai") or api == "embeddings":
        found = _OPENAI_END.search(path)
        if found is not None and "/prompts/" not in path:
            return "openai", path[: found.start()], "/v1" + found[0]
        return "plain", "", path
    if "anthropic/v1/messages" in path or path.startswith("/v1/messages"):
        base = path[: path.index("/v1/messages")]
        return "anthropic", base, path[len(base) :]
    if api.startswith("gemini") or ":countTokens" in path:
        return "gemini", "", path
    if api.startswith("ollama"):
        return "ollama", "", path
    return "plain", "", path


def load(folder: Path) -> list[Recorded]:
    made: list[Recorded] = []
    names: dict[str, str] = {}
    for entry in json.loads((folder / "manifest.json").read_text())["fixtures"]:
        asked, told = entry["request"], entry["response"]
        family, base, below = _way(entry)
        name = names.setdefault(f"{family}+{base}", f"r{len(names)}")
        query = asked.get("query") or ("alt=sse" if _wants_sse(entry) else "")
        query = f"?{query}" if query else ""
        kept = re.sub(r"\?key=[^&]*&", "?", query)  # a carrier of keys stays at the sidecar
        request = (folder / asked["file"]).read_bytes() if asked.get("file") else _request(entry)
        request = b"" if (asked.get("method") or "POST").upper() == "GET" else request
        path = below if family == "openai" and base == "/v1" else f"/{name}{below}"
        target = base + (below.removeprefix("/v1") if family == "openai" else below)
        made.append(
            Recorded(
                id=entry["id"],
                method=(asked.get("method") or "POST").upper(),
                path=path + query,
                target=target + kept,
                provider=name,
                base=f"{family}+{base}",
                request=request,
                content_type=asked.get("content_type") or "application/json",
                is_recorded=bool(asked.get("file")),
                status=told["status"],
                fields=told.get("headers") or {},
                body=(folder / told["file"]).read_bytes(),
                streaming=bool(entry.get("streaming")),
                broken=_broken(entry),
            )
        )
    return made


def _broken(entry: dict[str, Any]) -> str:
    is_incomplete = entry.get("streaming") and entry["expect"].get("complete") is False
    return str(entry["response"].get("framing")) if is_incomplete and entry["response"]["status"] == 200 else ""


def _wants_sse(entry: dict[str, Any]) -> bool:
    facts = entry.get("stream_facts") or {}
    return not entry["request"]["path"] and entry["api"] == "gemini-stream" and facts.get("framing") == "sse"


def _request(entry: dict[str, Any]) -> bytes:
    """A request for an answer whose own was not kept. Spaces and number forms that a re-serialiser would lose."""
    stream = "true" if entry.get("streaming") else "false"
    return b'{ "model" : "m", "temperature":1.0, "x":1e2,"stream": %b ,"max_tokens":9,"messages":[] }' % stream.encode()


def environ(loaded: list[Recorded], port: int) -> dict[str, str]:
    """Every provider, without a credential: a recorded 401 is then the provider's word to the client."""
    found: dict[str, str] = {"LLM_PROXY_INCLUDE_USAGE": "off"}  # nothing is put into a request, or taken out
    for each in loaded:
        family, _, base = each.base.partition("+")
        found[f"LLM_PROXY_PROVIDER_{each.provider.upper()}"] = f"{family}+http://127.0.0.1:{port}{base}"
    usual = next((each.provider for each in loaded if each.base == "openai+/v1"), None)
    return found if usual is None else {**found, "LLM_PROXY_DEFAULT_PROVIDER": usual}
