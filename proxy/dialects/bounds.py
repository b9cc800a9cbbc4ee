"""What the bytes of a request do not show, and makes it cost more than they could.

Lives here: `look`, `Look`. May not live here: tokens, prices, budgets (policy), the exact text (prompt).
How it works: text has no more tokens than bytes, so that a body bounds its own input, unless it names something that is
kept or looked up elsewhere, or holds an image or sound, whose tokens have little to do with its bytes (a white picture
of 2,000 x 2,000 pixels has 4 KB and up to 48,000 tokens). These are looked for by the names of members that the
dialects use, anywhere in the body: what is found too often costs a larger reservation, which comes back in the end.
Where a key is written with escapes of plain letters, which no client does, everything is taken to be there.
Only a request whose tokens or dollars are limited is looked at: 1.5 KB take 3 us.
Doubted: members of dialects to come.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Members that stand for something elsewhere, or for what is no text; tools that a provider runs by itself, and reads
# the results of, as often as it likes.
_ELSEWHERE = re.compile(
    rb'"(?:file_?(?:id|url|uri|data|search|path)|cached_?content|previous_response_id|conversation|container|mcp_servers|'
    rb"inline_?data|image(?:_url|s)?|input_(?:image|audio|file)|audio|video(?:_url)?|web_search_options|plugins|"
    rb"search_parameters|google_?search(?:_?retrieval)?|url_?context|code_?execution|item_reference|mcp|computer[a-z_0-9]*|"
    rb'code_(?:interpreter|execution)[a-z_0-9]*|web_(?:search|fetch)[a-z_0-9]*|memory_[0-9]*|bash_[0-9]*)"'
    rb'|"prompt"\s*:\s*\{|"type"\s*:\s*"(?:url|file)"',
    re.IGNORECASE,
)
_LATER = re.compile(rb'"background"\s*:\s*true')
_CHOICES = re.compile(rb'"(?:n|best_of|candidate_?count)"\s*:\s*(\d{1,6})', re.IGNORECASE)
_ESCAPED_KEY = re.compile(rb'\\u00[2-7][0-9a-fA-F](?:[^"\\]|\\.)*"\s*:', re.DOTALL)
_MOST_CHOICES = 128  # of OpenAI; others allow 1 to 16


class Look(NamedTuple):
    """`is_bounded`: its input has no more tokens than bytes; `choices`: answers asked for at once; `has_tools`: the
    provider puts text of its own around tools; `is_later`: its answer comes another time, so that nobody here sees what
    it uses."""

    is_bounded: bool
    choices: int
    has_tools: bool
    is_later: bool = False


def look(body: bytes) -> Look:
    """Looks at a request body that its dialect has read."""
    if b"\\u00" in body and _ESCAPED_KEY.search(body):
        return Look(False, _MOST_CHOICES, True, True)
    choices = max((int(found) for found in _CHOICES.findall(body)), default=1)
    choices = min(max(choices, 1), _MOST_CHOICES)
    is_later = _LATER.search(body) is not None
    return Look(_ELSEWHERE.search(body) is None, choices, b'"tools"' in body, is_later)
