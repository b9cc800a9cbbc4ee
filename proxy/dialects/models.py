"""Lists of models, as the clients of OpenAI and of Anthropic read them.

Lives here: the bodies of `/v1/models` and `/v1/models/{id}` in both formats, Anthropic's pages. May not live here:
which models there are (policy/listing), when such an answer is given (relay).
How it works: a model is a name and an owner. Nobody knows when an alias was made, but both formats want a moment: it is
handed in, as seconds since the epoch for one format and as a text for the other, and is the same for all models.
Doubted: a page behind a name that is gone (after a reload) is empty, so that a client comes to an end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import parse_qsl

import orjson

Model = tuple[str, str]  # its name, its owner

_PAGE: Final = 20  # models on a page where the client says nothing: what Anthropic's own API gives
_MOST: Final = 1000  # and at most


def openai_list(models: Iterable[Model], created: int) -> bytes:
    """`created`: seconds since the epoch."""
    return orjson.dumps({"object": "list", "data": [_openai(model, created) for model in models]})


def openai_one(model: Model, created: int) -> bytes:
    return orjson.dumps(_openai(model, created))


def _openai(model: Model, created: int) -> dict[str, object]:
    name, owner = model
    return {"id": name, "object": "model", "created": created, "owned_by": owner}


def anthropic_list(models: Sequence[Model], created_at: str, query: bytes) -> bytes:
    """The page that `query` asks for. `created_at`: as RFC 3339 writes it, 2026-01-31T12:00:00Z."""
    asked = parse_qsl(query.decode("latin-1"))
    stages = {value for name, value in asked if name in ("lifecycle", "lifecycle[]")}
    names = [name for name, _ in models] if not stages or "active" in stages else []
    page, has_more = _page(names, dict(asked))
    return orjson.dumps(
        {
            "data": [_anthropic(name, created_at) for name in page],
            "has_more": has_more,
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
    )


def anthropic_one(model: Model, created_at: str) -> bytes:
    return orjson.dumps(_anthropic(model[0], created_at))


def _anthropic(name: str, created_at: str) -> dict[str, object]:
    # `lifecycle` is newer than the rest: clients that know it need it.
    return {"type": "model", "id": name, "display_name": name, "created_at": created_at, "lifecycle": "active"}


def _page(names: list[str], asked: dict[str, str]) -> tuple[list[str], bool]:
    """The names behind `after_id` or before `before_id`, and whether there are more of them in that direction."""
    limit = _limit(asked.get("limit", ""))
    after, before = asked.get("after_id"), asked.get("before_id")
    if after is not None:
        names = names[names.index(after) + 1 :] if after in names else []
    if before is not None:
        names = names[: names.index(before)] if before in names else []
        if after is None:  # the last ones, as near to it as they can be
            return names[-limit:], len(names) > limit
    return names[:limit], len(names) > limit


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        return _PAGE
    return max(1, min(int(text[:9]), _MOST))  # cut, since Python refuses to read numbers of thousands of digits
