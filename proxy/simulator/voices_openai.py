"""How the OpenAI family sounds: chat, the older completions, embeddings, and Responses.

Lives here: `OpenAIChat`, `OpenAICompletions`, `OpenAIEmbeddings`, `OpenAIResponses`. May not live here: other vendors;
see voices.
How it works: as any Voice. In Responses each event carries its place in `sequence_number`, and the object so far stands
in the first two events and in the last, which alone holds the usage (WIRE 3).
"""

from __future__ import annotations

from typing import Any

import orjson

from proxy.simulator.voices import CREATED, MESSAGE, Closing, Kind, Report, Voice, data, named


def _input_details(voice: Voice) -> dict[str, int]:
    written = {"cache_write_tokens": voice.cache_write} if voice.cache_write else {}
    return {"cached_tokens": voice.cached, **written}


class OpenAIChat(Voice):
    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.tokens_in,
            "completion_tokens": self.tokens_out,
            "total_tokens": self.tokens_in + self.tokens_out,
            "prompt_tokens_details": {**_input_details(self), "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning, "audio_tokens": 0},
        }

    def _shell(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-sim{self.serial:08d}",
            "object": kind,
            "created": CREATED,
            "model": self.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
            "choices": choices,
        }

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self._shell("chat.completion.chunk", [choice])
        if self.with_usage:
            chunk["usage"] = None
        return data(chunk)

    def opening(self) -> list[bytes]:
        return [self._chunk({"role": "assistant", "content": "", "refusal": None})]

    def thought(self, text: str) -> list[bytes]:
        self.tokens_out += 1
        self.reasoning += 1
        return [self._chunk({"reasoning_content": text})]

    def delta(self, text: str) -> bytes:
        self.tokens_out += 1
        return self._chunk({"content": text})

    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]:
        text = orjson.dumps(arguments).decode()
        half = len(text) // 2
        call = {"index": 0, "id": f"call_sim{self.serial:08d}", "type": "function"}
        first = self._chunk({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        rest = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in (text[:half], text[half:])]
        self.tokens_out += 3
        return [first, *(self._chunk(delta) for delta in rest)]

    def closing(self, tool: bool) -> Closing:
        end = [(Kind.FINISH, self._chunk({}, "tool_calls" if tool else "stop"))]
        if self.with_usage:
            end.append((Kind.FINISH, data({**self._shell("chat.completion.chunk", []), "usage": self._usage()})))
        return [*end, (Kind.DONE, b"data: [DONE]\n\n")]

    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if tool is not None:
            function = {"name": tool[0], "arguments": orjson.dumps(tool[1]).decode()}
            call = {"id": f"call_sim{self.serial:08d}", "type": "function", "function": function}
            message = {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}
        reason = "stop" if tool is None else "tool_calls"
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return self._whole("chat.completion", choice)

    def _whole(self, kind: str, choice: dict[str, Any]) -> dict[str, Any]:
        usage = {"usage": self._usage()} if self.reports else {}
        return {**self._shell(kind, [choice]), **usage}

    @staticmethod
    def error(status: int, request_id: str) -> dict[str, Any]:
        kinds = {400: "invalid_request_error", 401: "invalid_request_error", 404: "invalid_request_error"}
        codes = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
        kind = "requests" if status == 429 else kinds.get(status, "server_error")
        return {"error": {"message": MESSAGE, "type": kind, "param": None, "code": codes.get(status)}}

    def error_events(self) -> list[bytes]:
        return [data(self.error(500, "")), b"data: [DONE]\n\n"]


class OpenAICompletions(OpenAIChat):
    def _shell(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"cmpl-sim{self.serial:08d}",
            "object": "text_completion",
            "created": CREATED,
            "model": self.model,
            "choices": choices,
        }

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"text": delta.get("content", ""), "index": 0, "logprobs": None, "finish_reason": finish}
        chunk = self._shell("", [choice])
        if self.with_usage:
            chunk["usage"] = None
        return data(chunk)

    def opening(self) -> list[bytes]:
        return []

    def thought(self, text: str) -> list[bytes]:
        return []

    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]:
        return [self.delta(name)]

    def closing(self, tool: bool) -> Closing:
        return super().closing(False)

    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
        choice = {"text": text, "index": 0, "logprobs": None, "finish_reason": "stop"}
        return self._whole("", choice)


class OpenAIEmbeddings(OpenAIChat):
    """Answers without a text; its errors are those of chat."""

    def rows(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": {"prompt_tokens": self.tokens_in, "total_tokens": self.tokens_in}} if self.reports else {}
        return {"object": "list", "data": rows, "model": self.model, **usage}

    def report(self) -> Report:
        return Report(self.tokens_in, 0)


class OpenAIResponses(Voice):
    def __init__(self, model: str, serial: int, tokens_in: int, *, with_usage: bool = False) -> None:
        super().__init__(model, serial, tokens_in)
        self._sequence = 0
        self._text: list[str] = []
        self._kept = 0  # characters in _text; what is beyond the first million is left out of the closing events
        self._items: list[dict[str, Any]] = []

    def _event(self, kind: str, **fields: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return named(event)

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        usage = None
        if status == "completed" and self.reports:
            usage = {
                "input_tokens": self.tokens_in,
                "input_tokens_details": _input_details(self),
                "output_tokens": self.tokens_out,
                "output_tokens_details": {"reasoning_tokens": self.reasoning},
                "total_tokens": self.tokens_in + self.tokens_out,
            }
        return {
            "id": f"resp_sim{self.serial:08d}",
            "object": "response",
            "created_at": CREATED,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "model": self.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage,
            "metadata": {},
        }

    def _part(self, text: str) -> dict[str, Any]:
        return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}

    def _message(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        item = {"id": f"msg_sim{self.serial:08d}", "type": "message", "status": status}
        return {**item, "role": "assistant", "content": content}

    def _call(self, name: str, arguments: str, status: str) -> dict[str, Any]:
        item = {"id": f"fc_sim{self.serial:08d}", "type": "function_call", "status": status}
        return {**item, "call_id": f"call_sim{self.serial:08d}", "name": name, "arguments": arguments}

    def opening(self) -> list[bytes]:
        value = self._response("in_progress", [])
        return [self._event("response.created", response=value), self._event("response.in_progress", response=value)]

    def thought(self, text: str) -> list[bytes]:
        self.tokens_out += 1
        self.reasoning += 1
        where = {"item_id": f"rs_sim{self.serial:08d}", "output_index": 0}
        begin = b""
        if not self._items:
            item = {"id": where["item_id"], "type": "reasoning", "summary": []}
            self._items.append(item)
            begin = self._event("response.output_item.added", output_index=0, item=item)
            part = {"type": "summary_text", "text": ""}
            begin += self._event("response.reasoning_summary_part.added", **where, summary_index=0, part=part)
        return [begin + self._event("response.reasoning_summary_text.delta", **where, summary_index=0, delta=text)]

    def delta(self, text: str) -> bytes:
        self.tokens_out += 1
        if self._kept < 1_000_000:
            self._text.append(text)
            self._kept += len(text)
        where = {"item_id": f"msg_sim{self.serial:08d}", "output_index": len(self._items)}
        begin = b""
        if not self.started:
            self.started = True
            item = self._message("in_progress", [])
            begin = self._event("response.output_item.added", output_index=where["output_index"], item=item)
            begin += self._event("response.content_part.added", **where, content_index=0, part=self._part(""))
        return begin + self._event("response.output_text.delta", **where, content_index=0, delta=text, logprobs=[])

    def tool(self, name: str, arguments: dict[str, Any]) -> list[bytes]:
        self.tokens_out += 3
        text = orjson.dumps(arguments).decode()
        half = len(text) // 2
        index = len(self._items)
        where = {"item_id": f"fc_sim{self.serial:08d}", "output_index": index}
        added = self._event("response.output_item.added", output_index=index, item=self._call(name, "", "in_progress"))
        kind = "response.function_call_arguments"
        deltas = [self._event(f"{kind}.delta", **where, delta=part) for part in (text[:half], text[half:])]
        done = self._event(f"{kind}.done", **where, name=name, arguments=text)
        item = self._call(name, text, "completed")
        self._items.append(item)
        done += self._event("response.output_item.done", output_index=index, item=item)
        return [added + deltas[0], deltas[1] + done]

    def closing(self, tool: bool) -> Closing:
        end: Closing = []
        if self.started:
            text = "".join(self._text)
            item = self._message("completed", [self._part(text)])
            where = {"item_id": item["id"], "output_index": len(self._items), "content_index": 0}
            last = self._event("response.output_text.done", **where, text=text, logprobs=[])
            last += self._event("response.content_part.done", **where, part=self._part(text))
            last += self._event("response.output_item.done", output_index=len(self._items), item=item)
            end.append((Kind.FINISH, last))
            self._items.append(item)
        last = self._event("response.completed", response=self._response("completed", self._items))
        return [*end, (Kind.DONE, last)]

    def whole(self, text: str, tool: tuple[str, dict[str, Any]] | None) -> dict[str, Any]:
        item = self._message("completed", [self._part(text)])
        if tool is not None:
            item = self._call(tool[0], orjson.dumps(tool[1]).decode(), "completed")
        return self._response("completed", [item])

    @staticmethod
    def error(status: int, request_id: str) -> dict[str, Any]:
        return OpenAIChat.error(status, request_id)

    def error_events(self) -> list[bytes]:
        error = {"code": "server_error", "message": self.error(500, "")["error"]["message"]}
        failed = {**self._response("failed", []), "error": error}
        return [self._event("error", **error, param=None), self._event("response.failed", response=failed)]
