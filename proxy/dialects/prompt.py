"""What a model is told: the text in the body of a request, for counting its tokens where no provider reported them.

Lives here: `request_text`, `RequestText`.
May not live here: what a call asks for (each dialect's read_call), how text becomes tokens (tokens).
How it works: a table names the members of each dialect that are read into the prompt. Below them the dialects use so
few and so different names that one walk serves all: strings under names of text are text, objects that a program made
(arguments, results, schemas) are text as JSON, and what holds an image, a file or a reference is only noted.
Doubted: providers turn tools into text of their own making and add preambles; neither can be seen here (WIRE 11).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from proxy.dialects.text import json_text, read_json
from proxy.dialects.watch import is_filled

_DEEPEST: Final = 40  # levels that are walked; real ones have up to ten


class RequestText(NamedTuple):
    """What a request holds. Not counted: `has_other`."""

    pieces: list[str]  # text, each piece to be counted by itself
    overhead: int  # tokens beside the text: those given as numbers, and what frames messages
    has_other: bool  # images, sound, files, what is stored elsewhere: tokens that nobody here can know


class _Members(NamedTuple):
    """Which members of a body are read into the prompt."""

    messages: str = ""  # the list of messages, if there is one
    per_message: int = 0  # tokens that frame each of them, and as many that begin the answer
    walked: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()  # of the answer
    fetched: tuple[str, ...] = ()  # make the provider add more that it keeps or looks up


# With 3 tokens a message and 3 for the beginning of the answer OpenAI's reported input is met within 4 tokens in all
# recorded calls of text alone, up to 4,020 tokens; Gemini reports the text and nothing else (WIRE 11, and a test in
# tests/tokens/test_teller.py).
_FRAME: Final = 3

_MEMBERS: Final = {
    "openai-chat": _Members(
        "messages", _FRAME, schemas=("response_format",), fetched=("web_search_options", "search_parameters", "plugins")
    ),
    "openai-completions": _Members(walked=("prompt", "suffix")),
    "openai-responses": _Members(
        "input", _FRAME, ("instructions",), ("text",), ("previous_response_id", "conversation", "prompt")
    ),
    "openai-embeddings": _Members(walked=("input",)),
    "anthropic-messages": _Members("messages", _FRAME, ("system",), fetched=("container", "mcp_servers")),
    "anthropic-count-tokens": _Members("messages", _FRAME, ("system",), fetched=("mcp_servers",)),
    "gemini": _Members(
        "contents",
        walked=("systemInstruction", "system_instruction", "content", "requests"),
        fetched=("cachedContent", "cached_content"),
    ),
    "ollama": _Members(
        "messages", _FRAME, ("system", "prompt", "suffix", "input", "context"), ("format",), ("images",)
    ),
}

_TEXT: Final = frozenset(
    """
    arguments code codeExecutionResult content custom executableCode function functionCall functionResponse
    function_call input instructions name output parts reasoning_content refusal summary text thinking title tool_calls
    transcript
    """.split()
)
_OBJECTS: Final = frozenset({"arguments", "args", "input", "response", "parameters"})  # made by a model or a program
_OTHER: Final = frozenset(
    """
    audio encrypted_content file fileData file_data file_id file_url image image_url images inlineData inline_data
    input_audio video video_url
    """.split()
)
_FUNCTIONS: Final = (None, "function", "custom")  # types of tools that are the client's own
_DECLARED: Final = frozenset(
    {"function", "custom", "functionDeclarations", "function_declarations", "name"}
)  # ... have these
_OTHER_TYPES: Final = ("item_reference", "redacted_thinking")  # compared with anything, hashable or not


def request_text(dialect: str, body: bytes) -> RequestText | None:
    """What the body of a request holds of text; None where it cannot be read, or where nothing in it is known."""
    members = _MEMBERS.get(dialect)
    value = read_json(body) if members is not None else None
    if members is None or not isinstance(value, dict):
        return None
    walk = _Walk()
    messages = value.get(members.messages)
    if messages:
        walk.overhead += members.per_message * (1 + (len(messages) if isinstance(messages, list) else 1))
    for name in (members.messages, *members.walked):
        walk.take(value.get(name))
    for name in ("tools", "functions"):
        walk.take_tools(value.get(name))
    for name in members.schemas:
        walk.take_schema(value.get(name))
    if any(is_filled(value.get(name)) for name in members.fetched):
        walk.has_other = True
    found = RequestText(walk.pieces, walk.overhead, walk.has_other)
    return found if any(found) else None


class _Walk:
    """Collects what lies below some members."""

    __slots__ = ("has_other", "overhead", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.overhead = 0
        self.has_other = False

    def take(self, value: object, depth: int = 0) -> None:
        if isinstance(value, str):
            if value:
                self.pieces.append(value)
        elif depth > _DEEPEST:
            self.has_other = True
        elif isinstance(value, list):
            for each in value:
                if type(each) is int:  # a prompt that is given as tokens
                    self.overhead += 1
                else:
                    self.take(each, depth + 1)
        elif isinstance(value, dict):
            self._take_members(value, depth)

    def take_tools(self, tools: object) -> None:
        """Functions of the client's own. What a provider's own tools bring into the prompt only the provider knows."""
        for tool in tools if isinstance(tools, list) else []:
            self.take_object(tool)
            if not isinstance(tool, dict) or tool.get("type") not in _FUNCTIONS or not tool.keys() & _DECLARED:
                self.has_other = True

    def take_schema(self, schema: object) -> None:
        text = json_text(schema)
        if "schema" in text or '"properties"' in text:  # else only "text" or "json" by name
            self.pieces.append(text)

    def take_object(self, value: object) -> None:
        """An object that the model reads as JSON."""
        if text := json_text(value):
            self.pieces.append(text)

    def _take_members(self, members: dict[str, Any], depth: int) -> None:
        if members.get("type") in _OTHER_TYPES:
            self.has_other = True
        for name, value in members.items():
            if name in _OBJECTS and isinstance(value, dict):
                self.take_object(value)
            elif name in _TEXT:
                self.take(value, depth + 1)
            elif name == "source":
                self._take_source(value, depth)
            elif name == "reasoning" and not members.get("reasoning_content"):
                self.take(value, depth + 1)
            elif name in _OTHER and is_filled(value):
                self.has_other = True

    def _take_source(self, source: object, depth: int) -> None:
        # Anthropic's documents: text as such, content in blocks, or (most of them) a file.
        kind = source.get("type") if isinstance(source, dict) else None
        if isinstance(source, dict) and kind in ("text", "content"):
            self.take(source.get("data"), depth + 1)
            self.take(source.get("content"), depth + 1)
        elif kind is not None:
            self.has_other = True
        else:
            self.take(source, depth + 1)  # the address of a search result
