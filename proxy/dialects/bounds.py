"""What the bytes of a request do not show, and makes it cost more than they could.

Lives here: `look`, `Look`. May not live here: tokens, prices, budgets (policy), the exact text (prompt).
How it works: text has no more tokens than bytes, so that a body bounds its own input, unless it names something that is
kept or looked up elsewhere, or holds an image or sound, whose tokens have little to do with its bytes (a white picture
of 2,000 x 2,000 pixels has 4 KB and up to 48,000 tokens). These are looked for by the names of members that the
dialects use, anywhere in the body: what is found too often costs a larger reservation, which comes back in the end.
Where a key is written with escapes of plain letters, which no client does, everything is taken to be there.
Only a request whose tokens or dollars are limited is looked at: 1.5 KB take 3.4 us, of tools some more.
Doubted: members of dialects to come.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Members that stand for something elsewhere, or for what is no text.
_ELSEWHERE = frozenset(
    b"""
    audio cached_content cachedcontent container conversation file_data file_id file_uri file_url filedata
    fileid fileuri image image_url images inline_data inlinedata input_audio input_file input_image
    item_reference mcp_servers plugins previous_response_id search_parameters video video_url web_search_options
    """.split()
)
# What has to be looked at again: these mean something in some places only.
_CHOICES = frozenset(b"n best_of candidate_count candidatecount".split())
_AGAIN = _CHOICES | frozenset((b"tools", b"prompt", b"url", b"file", b"background"))
_TELLING = _ELSEWHERE | _AGAIN

# Tools that a provider runs by itself, and reads the results of, as often as it likes.
_HOSTED = re.compile(
    rb'"(?:google_?search(?:_?retrieval)?|url_?context|code_?execution|file_?search|mcp|image_generation|local_shell|'
    rb'(?:web_search|web_fetch|code_interpreter|code_execution|computer|memory|bash|text_editor|tool_search)[a-z_0-9]*)"'
)
_STORED_PROMPT = re.compile(rb'"prompt"\s*:\s*\{')
_SOURCE = re.compile(rb'"type"\s*:\s*"(?:url|file)"')
_LATER = re.compile(rb'"background"\s*:\s*true')
_COUNT = re.compile(rb'"(?:n|best_of|candidate_?count)"\s*:\s*(\d{1,6})')
_ESCAPED_KEY = re.compile(rb'\\u00[2-7][0-9a-f](?:[^"\\]|\\.)*"\s*:', re.DOTALL)
_MOST_CHOICES = 128  # of OpenAI; others allow 1 to 16


class Look(NamedTuple):
    """`is_bounded`: its input has no more tokens than bytes; `choices`: answers asked for at once; `has_tools`: the
    provider puts text of its own around tools; `is_later`: its answer comes another time, so that nobody here sees what
    it uses."""

    is_bounded: bool
    choices: int
    has_tools: bool
    is_later: bool = False


_TEXT = Look(True, 1, False)


def look(body: bytes) -> Look:
    """Looks at a request body that its dialect has read."""
    lower = body.lower()  # some servers ignore the case of keys
    if b"\\u00" in lower and _ESCAPED_KEY.search(lower):
        return Look(False, _MOST_CHOICES, True, True)
    # What stands between quotes: all names of members, and a few other things. Behind a quote within a string stands a
    # backslash, so that a text about a member is not taken for it.
    names = lower.split(b'"')
    if _TELLING.isdisjoint(names):
        return _TEXT
    found = _TELLING.intersection(names)
    has_tools = b"tools" in found
    is_bounded = not (
        found & _ELSEWHERE
        or (has_tools and _HOSTED.search(lower))
        or (b"prompt" in found and _STORED_PROMPT.search(lower))
        or ((b"url" in found or b"file" in found) and _SOURCE.search(lower))
    )
    choices = max((int(count) for count in _COUNT.findall(lower)), default=1) if found & _CHOICES else 1
    is_later = b"background" in found and _LATER.search(lower) is not None
    return Look(is_bounded, min(max(choices, 1), _MOST_CHOICES), has_tools, is_later)
