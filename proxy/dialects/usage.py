"""What each provider means by the figures in its usage report: the one table (DESIGN 7; WIRE 0, 4, 7).

Lives here: from a report, as JSON has it, to `Usage`: `chat`, `timings`, `embeddings`, `responses`, `MessagesReport`,
`generate_content`, `ollama`, `counted_tokens`.
May not live here: where in an answer a report stands and which of several counts (the meters).
How it works: pure functions. A report is hostile: a figure that is not a whole number from 0 to a trillion is as good
as absent, and what is no report gives None. Parts are clamped to the whole they are a part of, since prices are taken
from the differences.

                          input_tokens are                        output_tokens are
  chat                    prompt (cached, cache writes inside)    completion (reasoning inside)
    xAI                                                           completion + reasoning: total says so
    Gemini's /openai                                              total - prompt: thinking has no field of its own
    Vercel, google/*                                              completion + reasoning: the cost says so, not total
    Mistral               prompt + audio: total says so
    llama.cpp `timings`   cache_n + prompt_n                      predicted_n
  embeddings              prompt                                  0
  responses               input (cached, cache writes inside)     output (reasoning inside)
  messages                input + cache reads + cache writes      output (thinking inside)
  generate_content        prompt + tool use (cached inside)       candidates + thoughts
  ollama                  prompt_eval_count, absent where cached  eval_count, absent where 0

Doubted: Vercel bills the reasoning of `openai/*` twice; the figures here hold it once, `cost_micros` is what Vercel
says. Azure says "0 ticks" where it copies xAI's field, so that no cost of 0 is believed in ticks.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

from proxy.outcome import Billed, Source, Usage

_MOST: Final = 10**12  # no exchange has a trillion tokens, and a million such rows still fit into SQLite's integers
_MOST_BILLED: Final = 256  # iterations of one exchange; real ones have a handful

_REPORTED: Final = Source.REPORTED  # on Python 3.11 a member of an enum costs 0.12 us each time

Report = dict[str, object]


def count(value: object) -> int | None:
    """The number of tokens that `value` is; None if it is none. 12.0 is a whole number in JSON, true is not."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= _MOST:
        return value
    return None


_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


def micros(dollars: object) -> int | None:
    """Whole micro-dollars, rounded half to even; None if `dollars` is no amount of money. `repr` of a float is the
    decimal number that was sent, as long as it had up to 15 digits; its binary value would round 0.0000025 to 3."""
    if isinstance(dollars, bool) or not isinstance(dollars, int | float) or not 0 <= dollars <= 10**6:
        return None
    try:
        return int(_EXACT.quantize(_EXACT.scaleb(Decimal(repr(dollars)), 6), Decimal(1)))
    except InvalidOperation:  # 1e-300: more places than anybody's money has
        return 0


def _table(value: object) -> Report:
    return value if isinstance(value, dict) else {}


def _first(report: Report, *names: str) -> int | None:
    """The first of these figures that can be read."""
    for name in names:
        if name in report:
            figure = count(report[name])
            if figure is not None:
                return figure
    return None


_PLAIN: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)


def _usage(
    report: Report,
    given: int | None,
    output: int | None,
    cached: int | None = None,
    cache_write: int | None = None,
    reasoning: int | None = None,
) -> Usage | None:
    if given is None and output is None:
        return None
    if given is not None:
        # More cached than asked: Grok on Azure and Mistral count a preamble or whole blocks of the cache (WIRE 0.13).
        cached = _at_most(cached, given)
        cache_write = _at_most(cache_write, given - (cached or 0))
    is_plain = report.keys() <= _PLAIN  # as it nearly always is
    return Usage(
        input=given,
        output=output,
        cached=cached,
        cache_write=cache_write,
        reasoning=_at_most(reasoning, output),
        searches=None if is_plain else _searches(report),
        cost_micros=None if is_plain else _cost(report),
        input_source=Source.NONE if given is None else Source.REPORTED,
        output_source=Source.NONE if output is None else Source.REPORTED,
        complete=given is not None and output is not None,
    )


def _at_most(part: int | None, whole: int | None) -> int | None:
    return part if part is None or whole is None else min(part, whole)


def _cost(report: Report) -> int | None:
    """What the provider itself says that it costs: OpenRouter, Vercel and avian in dollars, Perplexity with its request
    fee, xAI in ticks of 1e-10 dollars."""
    if "cost" in report:
        cost = report["cost"]
        return micros(cost.get("total_cost") if isinstance(cost, dict) else cost)
    ticks = report.get("cost_in_usd_ticks")
    if type(ticks) is int and 0 < ticks <= 10**16:
        return round(Decimal(ticks) / 10_000)  # a Decimal is rounded half to even
    return None


def _searches(report: Report) -> int | None:
    """Web searches: Anthropic, OpenRouter, Perplexity, xAI (which bills by sources in chat, by calls in Responses)."""
    for name in ("server_tool_use", "server_tool_use_details"):
        found = count(_table(report.get(name)).get("web_search_requests"))
        if found is not None:
            return found
    calls = _table(report.get("server_side_tool_usage_details"))
    if calls:
        return sum(_first(calls, name) or 0 for name in ("web_search_calls", "x_search_calls"))
    return _first(report, "num_search_queries", "num_sources_used")


# -- OpenAI and its imitators ------------------------------------------------------------------------------------------


def chat(report: object, model: str | None = None) -> Usage | None:
    """A `usage` of chat or completions. `model`: who is said to have answered."""
    if not isinstance(report, dict):
        return None
    if report.keys() <= _PLAIN and (usual := _usual(report)) is not None:
        return usual
    prompt_details, details = _table(report.get("prompt_tokens_details")), report.get("completion_tokens_details")
    prompt, completion = count(report.get("prompt_tokens")), count(report.get("completion_tokens"))
    total, audio = count(report.get("total_tokens")), count(prompt_details.get("audio_tokens")) or 0
    reasoning = _first(_table(details), "reasoning_tokens")
    reasoning = _first(report, "reasoning_tokens") if reasoning is None else reasoning
    beyond = 0 if prompt is None or total is None else total - prompt - (completion or 0)  # what total has besides
    if completion is None:
        completion = beyond if prompt is not None and total is not None and beyond >= 0 else None  # OpenAI left 0 out
    elif beyond > 0 and prompt is not None:
        if beyond == reasoning:
            completion += reasoning
        elif beyond == audio:
            prompt += audio
        elif beyond == audio + (reasoning or 0):
            prompt, completion = prompt + audio, completion + (reasoning or 0)
        elif not prompt_details and not isinstance(details, dict):
            completion += beyond
    elif reasoning and "market_cost" in report and (reasoning > completion or (model or "").startswith("google/")):
        completion += reasoning
    cached = _first(prompt_details, "cached_tokens")
    if cached is None:
        cached = _first(
            report, "prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens", "cache_read_input_tokens"
        )
    written = _first(prompt_details, "cache_write_tokens")
    if written is None:
        written = _first(report, "cache_creation_input_tokens")
    return _usage(report, prompt, completion, cached, written, reasoning)


def _usual(report: Report) -> Usage | None:
    """What OpenAI itself reports, and nearly everybody: a total that is the sum of both. The same as the long way says,
    in 1.2 us instead of 5 (python -m timeit -s "from proxy.dialects.usage import chat; u = {'prompt_tokens': 10,
    'completion_tokens': 5, 'total_tokens': 15}" "chat(u)"). None: it is not as usual."""
    prompt, completion, total = report.get("prompt_tokens"), report.get("completion_tokens"), report.get("total_tokens")
    if not (type(prompt) is int and type(completion) is int and type(total) is int):
        return None
    if prompt < 0 or completion < 0 or total != prompt + completion or total > _MOST:
        return None
    usage = Usage(prompt, completion, complete=True)
    usage.input_source = usage.output_source = _REPORTED
    if len(report) > 3:
        details = report.get("prompt_tokens_details")
        if type(details) is dict:
            usage.cached = _at_most(_first(details, "cached_tokens"), prompt)
            usage.cache_write = _at_most(_first(details, "cache_write_tokens"), prompt - (usage.cached or 0))
        details = report.get("completion_tokens_details")
        if type(details) is dict:
            usage.reasoning = _at_most(_first(details, "reasoning_tokens"), completion)
    return usage


def timings(report: object) -> Usage | None:
    """llama.cpp's `timings`, which come with every last chunk, also where no usage was asked for."""
    if not isinstance(report, dict):
        return None
    cached, read = count(report.get("cache_n")), count(report.get("prompt_n"))
    # Older servers do not say how much was cached, and `prompt_n` leaves that out.
    prompt = cached + read if cached is not None and read is not None else None
    return _usage({}, prompt, count(report.get("predicted_n")), cached)


def embeddings(report: object) -> Usage | None:
    """A `usage` of embeddings: nothing is generated."""
    if not isinstance(report, dict):
        return None
    prompt = _first(report, "prompt_tokens", "total_tokens")
    return _usage(report, prompt, 0) if prompt is not None else None


def responses(report: object) -> Usage | None:
    """A `usage` of the Responses API."""
    if not isinstance(report, dict):
        return None
    into, out_of = _table(report.get("input_tokens_details")), _table(report.get("output_tokens_details"))
    return _usage(
        report,
        count(report.get("input_tokens")),
        count(report.get("output_tokens")),
        count(into.get("cached_tokens")),
        count(into.get("cache_write_tokens")),
        count(out_of.get("reasoning_tokens")),
    )


def counted_tokens(report: object) -> Usage | None:
    """The answer of an endpoint that counts: Anthropic's and OpenAI's `input_tokens`, Gemini's `totalTokens`. Nothing
    is generated, and whoever calls it knows that nothing is to be paid (`Call.is_free`)."""
    told = _first(_table(report), "input_tokens", "totalTokens")
    return _usage({}, told, 0) if told is not None else None


# -- Anthropic ---------------------------------------------------------------------------------------------------------

_MESSAGES: Final = {
    "input": ("", "input_tokens"),
    "cached": ("", "cache_read_input_tokens"),
    "written": ("", "cache_creation_input_tokens"),
    "written_1h": ("cache_creation", "ephemeral_1h_input_tokens"),
    "output": ("", "output_tokens"),
    "reasoning": ("output_tokens_details", "thinking_tokens"),
}


class MessagesReport:
    """Anthropic's figures as told so far. `message_delta` overrides `message_start` figure by figure, also downwards
    and also for the input; what it leaves out stays (WIRE 0.9)."""

    __slots__ = ("_billed", "_cost", "_figures", "_searches")

    def __init__(self) -> None:
        self._figures: dict[str, int] = {}
        self._billed: tuple[Billed, ...] = ()
        self._searches: int | None = None
        self._cost: int | None = None

    def add(self, report: object) -> bool:
        """Lay a `usage` over the figures so far. True if it tells an output."""
        if not isinstance(report, dict):
            return False
        figures = self._figures
        for name, (inner, key) in _MESSAGES.items():
            figure = count((_table(report.get(inner)) if inner else report).get(key))
            if figure is not None:
                figures[name] = figure
        searches, cost = _searches(report), _cost(report)
        self._searches = self._searches if searches is None else searches
        self._cost = self._cost if cost is None else cost
        iterations = report.get("iterations")
        if isinstance(iterations, list):
            self._billed = _billed(iterations)
        return count(report.get("output_tokens")) is not None

    def usage(self) -> Usage | None:
        """What these figures mean. Reads and writes of the cache stand beside `input_tokens`, not inside."""
        told = self._figures
        cached, written = told.get("cached"), told.get("written")
        given = told.get("input")
        whole = None if given is None else given + (cached or 0) + (written or 0)
        usage = _usage({}, whole, told.get("output"), cached, written, told.get("reasoning"))
        if usage is None:
            return None
        usage.searches, usage.cost_micros = self._searches, self._cost
        usage.cache_write_1h = _at_most(told.get("written_1h"), usage.cache_write)
        sums = [sum(figures) for figures in zip(*(each[1:] for each in self._billed))]
        if sums != [usage.input, usage.output, cached or 0, written or 0] or any(each.model for each in self._billed):
            usage.billed = self._billed
        return usage


def _billed(iterations: list[object]) -> tuple[Billed, ...]:
    """Each pass is billed, at a model of its own if it names one. The figures beside them leave compaction and advisors
    out (WIRE 0.10)."""
    passes = []
    for each in iterations[:_MOST_BILLED]:
        told = _table(each)
        given, output = count(told.get("input_tokens")), count(told.get("output_tokens"))
        if given is None or output is None:
            return ()  # a bill with a hole is worse than none
        cached = _first(told, "cache_read_input_tokens") or 0
        written = _first(told, "cache_creation_input_tokens") or 0
        passes.append(Billed(as_model(told.get("model")), given + cached + written, output, cached, written))
    return tuple(passes) if len(iterations) <= _MOST_BILLED else ()


# -- Google, Ollama ----------------------------------------------------------------------------------------------------


def generate_content(report: object, before: Usage | None = None) -> Usage | None:
    """Gemini's `usageMetadata`; None if it tells nothing. `before`: what the chunks so far have told. Each report
    replaces the one before it, also downwards (WIRE 0.8), except that an output which is left out keeps what was told
    of it: tokens that were generated stay so. Some streams lose it in their last chunk, and where tools restart the
    counters, a chunk has none."""
    if not isinstance(report, dict):
        return None
    prompt, candidates = count(report.get("promptTokenCount")), count(report.get("candidatesTokenCount"))
    thoughts, total = count(report.get("thoughtsTokenCount")), count(report.get("totalTokenCount"))
    tools = count(report.get("toolUsePromptTokenCount")) or 0
    if candidates is None and total is not None and prompt is not None:
        candidates = max(total - prompt - tools - (thoughts or 0), 0) or None
    output = thoughts if candidates is None else candidates + (thoughts or 0)
    if candidates is None and before is not None and before.output is not None:
        output, thoughts = max(output or 0, before.output), before.reasoning if thoughts is None else thoughts
    cached = count(report.get("cachedContentTokenCount"))
    return _usage({}, None if prompt is None else prompt + tools, output, cached, reasoning=thoughts)


def ollama(prompt_eval_count: object, eval_count: object) -> Usage | None:
    """The figures of Ollama's last line. Older servers leave the input out where the prompt was cached; the output is
    left out where it is 0."""
    prompt, output = count(prompt_eval_count), count(eval_count)
    return _usage({}, prompt, 0 if output is None and prompt is not None else output)


MAX_MODEL: Final = 256  # characters of a model's name: it stays in receipts and in the ledger


def as_model(value: object) -> str | None:
    """The name that `value` is; None if it is none. Azure's first chunk says ""."""
    return value if isinstance(value, str) and 0 < len(value) <= MAX_MODEL else None
