"""What the bytes of a request do not show, and makes it cost more than they could.

Lives here: `look`, `Look`. May not live here: tokens, prices, budgets (policy), the exact text (prompt).
How it works: text has no more tokens than bytes, so that a body bounds its own input, unless it names something that is
kept or looked up elsewhere, or holds an image or sound, whose tokens have little to do with its bytes (a white picture
of 2,000 x 2,000 pixels has 4 KB and up to 48,000 tokens). A chat of plain text with the usual settings is read
strictly, and is no more than that; most other bodies hold none of the names that could mean so, and that is seen at
once. Else each member of the body is looked at by itself: types of content and of tools that are not known for text are
not; the client's own functions and schemas are, whatever their properties are called. What is taken for unbounded too
often costs a larger reservation, which comes back in the end. Names below the top level that are written with escapes
of plain letters, as no client does, could be any. What is large is not worth a look: it reserves its bytes anyway, and
those are about a context window.
Only a request whose tokens or dollars are limited is looked at.
Doubted: members of dialects to come; models that search by themselves; a tool that asks a dearer model (Anthropic's
advisor). An argument of a tool call that is named as one of these members makes Anthropic's and Gemini's calls
unbounded: they send arguments as objects.
"""

from __future__ import annotations

import re
from math import ceil
from typing import Final, NamedTuple

import msgspec

from proxy.dialects.body import every_member, members_in_list, without_half_pairs
from proxy.dialects.call import UnreadableBody
from proxy.dialects.shapes import read_plain_chat

# Members that stand for something elsewhere, or for what is no text.
_ELSEWHERE: Final = frozenset(
    b"""
    audio audio_embeds audio_url cached_content cachedcontent container conversation document_url file_data file_id
    file_uri file_url filedata fileid fileuri image image_embeds image_pil image_url images inline_data inlinedata
    input_audio input_file input_image item_reference mcp_servers plugins previous_response_id prompt_embeds
    search_parameters video video_url web_search_options
    """.split()
)
# Of answers; n_cmpl: llama.cpp.
_COUNTS: Final = frozenset(("n", "best_of", "n_cmpl", "candidate_count", "candidatecount"))
_WRAPPERS: Final = frozenset(("generationconfig", "generation_config", "extra_body"))  # have such members inside
_TOOLS: Final = frozenset(("tools", "functions"))
_PROMPTS: Final = frozenset(("prompt", "prompt_embeds"))
# Schemas of the answer, which are text whatever is in them, and what no model reads.
_OWN_TEXT: Final = frozenset(("response_format", "text", "format", "metadata", "model"))
# Where any of these stands between quotes, each member is looked at. "id": an item of the Responses API may be kept
# elsewhere, and be told by nothing else.
_TELLING: Final = (
    _ELSEWHERE
    | {name.encode() for name in _COUNTS | _WRAPPERS - {"generationconfig", "generation_config"} | _TOOLS | _PROMPTS}
    | {b"background", b"id", b"type"}
)

# Types of content, of items, of schemas and of settings that bring nothing in. All others are taken to.
_TEXT_TYPES: Final = frozenset(
    b"""
    adaptive allowed_tools any array auto boolean clear_thinking_20251015 clear_tool_uses_20250919 content custom
    custom_tool_call custom_tool_call_output disabled enabled ephemeral function function_call function_call_output
    grammar input_text input_tokens integer json json_object json_schema message none null number object output_text
    reasoning reasoning_text redacted_thinking refusal string summary_text text thinking thinking_turns tool tool_result
    tool_use tool_uses
    """.split()
)
_TYPE: Final = re.compile(rb'"type"\s*:\s*(?:"([^"]*)"|[^\s"])')
# Members of a tool that is the client's own. Any other one could be a tool of the provider's (Gemini's `googleSearch`).
_OWN_TOOL: Final = frozenset(
    """
    allowed_callers annotations cache_control custom defer_loading description eager_input_streaming format function
    function_declarations functiondeclarations input_examples input_schema name output_schema parameters strict title
    type
    """.split()
)
_OWN_TYPES: Final = frozenset((b'"function"', b'"custom"', b"null"))

# Escapes of ASCII letters, digits and the underscore, and of the two letters that some servers fold to such (body.py);
# not those behind a backslash that is escaped itself: text about escapes. 2 MB of Go's `\u003cp\u003e` take 16 ms.
_ESCAPED: Final = re.compile(rb"\\(?<!\\\\)(?:\\\\)*+u(?:00(?:3[0-9]|[46][1-9a-f]|[57][0-9a]|5f)|017f|212a)")
_FOLDED: Final = ("\u017f".encode(), "\u212a".encode())

# To split 256 KB takes 1.2 ms; of the worst (nothing but quotes, or tools of nothing but names) 6. In 33 MB, which took
# 0.7 s and 400 MB, only the members at the top are found: 50 ms, of them as many as reading the call takes in copying.
_LARGE: Final = 256 * 1024  # bytes
_MOST_CHOICES: Final = 1_000_000


class Look(NamedTuple):
    """`is_bounded`: its input has no more tokens than bytes; `choices`: answers asked for at once; `has_tools`: the
    provider puts text of its own around tools; `is_later`: its answer comes another time, so that nobody here sees what
    it uses."""

    is_bounded: bool
    choices: int
    has_tools: bool
    is_later: bool = False


_TEXT: Final = Look(True, 1, False)
_ANYTHING: Final = Look(False, _MOST_CHOICES, True)


def look(body: bytes) -> Look:
    """Looks at a request body that its dialect has read."""
    # 1.5 KB of chat: 3.0 us; 1.3 KB of text in parts: 10; 3.7 KB with ten tools: 50
    # python -m timeit -s "from tests.dialects.cost import CHAT_BODY as b; from proxy.dialects.bounds import look"
    # "look(b)"
    if len(body) <= _LARGE:
        try:
            read_plain_chat(body)  # 1 KB: 9,700 instructions, what comes next 28,700 (bench.instructions)
            return _TEXT
        except (ValueError, msgspec.MsgspecError, RecursionError):
            pass
        lower = body.lower()  # some servers ignore the case of keys
        # What stands between quotes: all names of members, and a few other things. Behind a quote within a string
        # stands a backslash, so that a text about a member is not taken for it.
        if _TELLING.isdisjoint(lower.split(b'"')) and not _is_veiled(lower):
            return _TEXT
    try:
        return _look_closely(every_member(body))
    except UnreadableBody:  # cannot be: its dialect has read it
        return _ANYTHING


def _look_closely(members: list[tuple[str, bytes]]) -> Look:
    is_bounded, has_tools, is_later = True, False, False
    choices, prompts = 1, 0
    for wrapper in [raw for name, raw in members if name.casefold() in _WRAPPERS and raw[:1] == b"{"]:
        members = members + every_member(wrapper)
    for key, raw in members:
        name = key.casefold()
        if name in _COUNTS:
            choices = max(choices, _count(raw))
        elif name in _TOOLS:
            has_tools = True
            is_bounded = is_bounded and _are_own(name, raw)
        elif name == "background":
            is_later = is_later or raw not in (b"false", b"null")
        elif name not in _OWN_TEXT:
            if name in _PROMPTS:
                prompts += _prompts_in(raw)
            is_bounded = is_bounded and _is_text(name, raw)
    return Look(is_bounded, min(choices * max(1, prompts), _MOST_CHOICES), has_tools, is_later)


def _is_veiled(lower: bytes) -> bool:
    """Whether names in lower-case text may mean others than they show."""
    if b"\\" in lower and b"\\u" in lower and _ESCAPED.search(lower):  # the first of them is found 20 times as fast
        return True
    return not lower.isascii() and (_FOLDED[0] in lower or _FOLDED[1] in lower)


def _is_text(name: str, raw: bytes) -> bool:
    """Whether a member brings no more into the input than what stands there."""
    if name.encode() in _ELSEWHERE or len(raw) > _LARGE or (name == "prompt" and raw[:1] == b"{"):
        return False
    if raw[:1] not in (b"{", b"["):
        return True
    lower = raw.lower()
    if _is_veiled(lower) or not _ELSEWHERE.isdisjoint(lower.split(b'"')):
        return False
    if not _TEXT_TYPES.issuperset(_TYPE.findall(lower)):
        return False
    if name != "input" or b'"id"' not in lower:
        return True
    items = members_in_list(raw)  # an item that has no more than its id is kept elsewhere
    return items is not None and all(any(each in ("type", "role") for each, _ in item) for item in items)


def _are_own(name: str, raw: bytes) -> bool:
    """Whether tools are functions of the client's own: a provider runs others by itself, and reads the results of as
    many calls as it likes."""
    tools = members_in_list(raw) if len(raw) <= _LARGE else None
    if tools is None:
        return raw == b"null"
    return all(_is_own(member.casefold(), value) for tool in tools for member, value in tool)


def _is_own(member: str, value: bytes) -> bool:
    return member in _OWN_TOOL and (member != "type" or value in _OWN_TYPES)


def _prompts_in(raw: bytes) -> int:
    """How many prompts there are, each of which gets answers of its own; at least: a text may hold quotes."""
    if raw[:1] != b"[":
        return 1
    if len(raw) > _LARGE:
        return raw.count(b'"') // 2 + raw.count(b"[")
    try:
        listed = msgspec.json.decode(without_half_pairs(raw) or raw, type=list[msgspec.Raw])
    except msgspec.MsgspecError:  # cannot be
        return _MOST_CHOICES
    return 1 if all(memoryview(each)[:1].tobytes().isdigit() for each in listed) else len(listed)


def _count(raw: bytes) -> int:
    """A number of answers. Some servers take "50" and 5e1 for 50; what is no number at all is one for nobody."""
    if raw.isdigit() and len(raw) < 7:
        return int(raw)
    try:
        return min(ceil(float(raw.strip(b'"'))), _MOST_CHOICES)
    except OverflowError:  # infinite
        return _MOST_CHOICES
    except ValueError:
        return 1 if raw in (b"null", b"true", b"false") or raw[:1] in (b"{", b"[") else _MOST_CHOICES
