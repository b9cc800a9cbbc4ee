"""One line for one receipt or one note, as JSON or as text for people.

Lives here: the two forms of a line. May not live here: queues, threads, files; which lines are written at all.
How it works: a receipt's JSON line has its fields under their own names, written out one by one, which takes half of
the time of looking them up. That way is taken when the result is plain ASCII without escapes; any other line is built
again from cleaned values. Whatever is not printable (line ends, escape sequences, C1 and bidirectional controls, lone
surrogates) is shown as an escape in plain sight, also where JSON would allow it, because a line that `jq -r` or a
terminal prints must stay one line.
Doubted: a rebuilt line costs 24 us against 6 for a plain one; a client may cause that by a path in another script.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum

import orjson

from proxy.outcome import Attempt, Receipt, Source, Usage

# A pipe takes up to PIPE_BUF bytes in one piece (4096 on Linux), so lines up to here never mix with another process's.
LINE_BYTES = 4096

# What a string is cut to when its line would be longer than LINE_BYTES. A request line may be 8 KiB (HeadLimits.line).
CUT_CHARS = 200

# Tries of one exchange that are shown in a line that would be too long, and in any line of text.
CUT_ITEMS = 8

# How many items of a list are left where strings are cut to so many characters, each tried if the one before it left
# the line too long: eight tries with all their names at full length are 9 KB.
_NARROW = 60
_CUTS = {0: None, CUT_CHARS: CUT_ITEMS, _NARROW: 2}

_RECEIPT_FIELDS = tuple(f.name for f in fields(Receipt))
_UNKNOWN = (None, Source.NONE.value, ())
_MORE_FIELDS = tuple(Attempt._field_defaults)
_SAYS_NOTHING = tuple(Attempt._field_defaults.values())


def clean(text: str, cut: int = 0) -> str:
    """`text` with everything unprintable turned into a visible escape, at most `cut` characters of it (0 = all)."""
    if cut and len(text) > cut:
        text = text[:cut] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def receipt_json(receipt: Receipt) -> bytes:
    """The JSON line of `receipt`: its fields under their own names, enums as their values, and `ended` in letters."""
    try:
        # As dicts: what orjson does with a dataclass that is compiled ends the process (scripts/compile.py).
        raw = orjson.dumps(_shown_receipt(receipt), default=_as_dict, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except TypeError:  # orjson refuses lone surrogates with it
        return _rebuilt(receipt)
    line = b'%b,"ended":"%b"}\n' % (raw[:-1], receipt.letters.encode())
    if len(line) <= LINE_BYTES and line.isascii() and not (b"\\" in line or b"\x7f" in line or b"?" in line):
        return line
    return _rebuilt(receipt)


def _shown_receipt(receipt: Receipt) -> dict[str, object]:
    # `_value_`: until Python 3.12 `value` is a call, and orjson calls it, too, 0.3 us for each enum.
    return {
        "id": receipt.id,
        "started_at": receipt.started_at,
        "client": receipt.client,
        "method": receipt.method,
        "path": receipt.path,
        "key": receipt.key,
        "provider": receipt.provider,
        "alias": receipt.alias,
        "model_requested": receipt.model_requested,
        "model_served": receipt.model_served,
        "dialect": receipt.dialect,
        "stream": receipt.stream,
        "status": receipt.status,
        "ended_by": receipt.ended_by._value_,
        "ended_phase": receipt.ended_phase._value_,
        "ended_kind": receipt.ended_kind,
        "detail": receipt.detail,
        "complete": receipt.complete,
        "attempts": [_attempt_fields(attempt) for attempt in receipt.attempts],
        "events": receipt.events,
        "bytes_in": receipt.bytes_in,
        "bytes_out": receipt.bytes_out,
        "body_ms": receipt.body_ms,
        "queue_ms": receipt.queue_ms,
        "connect_ms": receipt.connect_ms,
        "sent_ms": receipt.sent_ms,
        "first_byte_ms": receipt.first_byte_ms,
        "first_event_ms": receipt.first_event_ms,
        "total_ms": receipt.total_ms,
        "provider_request_id": receipt.provider_request_id,
        "tags": receipt.tags,
        "usage": None if receipt.usage is None else _shown_usage(receipt.usage),
        "cost_micros": receipt.cost_micros,
        "price_version": receipt.price_version,
        "stands_for": receipt.stands_for,
    }


def _shown_usage(usage: Usage) -> dict[str, object]:
    return {
        "input": usage.input,
        "output": usage.output,
        "cached": usage.cached,
        "cache_write": usage.cache_write,
        "cache_write_1h": usage.cache_write_1h,
        "reasoning": usage.reasoning,
        "searches": usage.searches,
        "cost_micros": usage.cost_micros,
        "input_source": usage.input_source._value_,
        "output_source": usage.output_source._value_,
        "complete": usage.complete,
        "counted_input": usage.counted_input,
        "counted_output": usage.counted_output,
        "billed": usage.billed,
    }


def _rebuilt(receipt: Receipt) -> bytes:
    line = b""
    for cut in _CUTS:
        line = orjson.dumps(_receipt_fields(receipt, cut), option=orjson.OPT_APPEND_NEWLINE)
        if len(line) <= LINE_BYTES:
            break
    return line


def _receipt_fields(receipt: Receipt, cut: int) -> dict[str, object]:
    plain = {name: _plain(getattr(receipt, name), cut) for name in _RECEIPT_FIELDS}
    # A receipt holds no query string; should one slip in, a key may be in it (Gemini's `?key=`), and a log is kept.
    plain["path"] = clean(receipt.path.partition("?")[0], cut)
    plain["ended"] = receipt.letters
    return plain


def _as_dict(value: object) -> object:
    """orjson's question about what it does not know: our NamedTuples."""
    as_dict = getattr(value, "_asdict", None)
    return as_dict() if as_dict is not None else str(value)


def _attempt_fields(attempt: Attempt) -> dict[str, object]:
    """Its first fields always, the others where they say something."""
    provider, model, started_ms, ended_ms, reused, status, failure = attempt[:7]
    shown: dict[str, object] = {
        "provider": provider,
        "model": model,
        "started_ms": started_ms,
        "ended_ms": ended_ms,
        "reused": reused,
        "status": status,
        "failure": failure,
    }
    if attempt[7:] != _SAYS_NOTHING:  # the usual one says nothing beyond its first fields
        rest = zip(_MORE_FIELDS, attempt[7:], _SAYS_NOTHING)
        shown.update((name, value) for name, value, usual in rest if value != usual)
        if attempt.usage is not None:
            known = _shown_usage(attempt.usage).items()
            shown["usage"] = {name: value for name, value in known if value not in _UNKNOWN}
    return shown


def _plain(value: object, cut: int) -> object:
    """`value` as JSON types with clean strings. Anything unknown is shown by its `str`, which a Secret survives."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, Enum):
        return _plain(value.value, cut)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        named = _attempt_fields(value) if isinstance(value, Attempt) else value._asdict()
        return {name: _plain(item, cut) for name, item in named.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), cut) for f in fields(value)}
    if isinstance(value, Mapping):
        return {clean(str(name), cut): _plain(item, cut) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, cut) for item in value[: _CUTS[cut]]]
    return clean(str(value), cut)


def receipt_text(receipt: Receipt) -> bytes:
    """The text line of `receipt`: when, status, letters, how long, what was asked, and by the end what went wrong."""
    r = receipt
    target = "/".join(part for part in (r.provider, _model(r)) if part) or "-"
    parts = [
        f"{stamp(r.started_at)} {r.status or '-':>5} {r.letters} {_duration(r.total_ms):>8}",
        f"{clean(r.method, CUT_CHARS):<4} {clean(r.path.partition('?')[0], CUT_CHARS)}",
        clean(target, CUT_CHARS),
    ]
    if r.alias is not None:
        parts.append(f"alias={_quoted(r.alias)}")
    if r.stream:
        first = "-" if r.first_event_ms is None else _duration(r.first_event_ms)
        parts.append(f"stream events={r.events} first={first}")
    if r.key is not None:
        parts.append(f"key={_quoted(r.key)}")
    parts.append(f"in={r.bytes_in} out={r.bytes_out}")
    if r.usage is not None:
        parts.append(_usage(r.usage, r.cost_micros))
    if r.stands_for > 1:
        parts.append(f"stands_for={r.stands_for}")
    if len(r.attempts) > 1:
        parts.append(f"attempts={len(r.attempts)} {_attempts(r.attempts)}")
    parts.append(f"id={_quoted(r.id)}")
    if not r.complete:
        why = f"{r.ended_kind}: {r.detail}" if r.detail else r.ended_kind
        parts.append(clean(why, CUT_CHARS))
    elif r.detail:
        parts.append(clean(r.detail, CUT_CHARS))
    return _line("  ".join(parts))


def note_json(at: float, level: str, message: str, more: Mapping[str, object]) -> bytes:
    """The JSON line of a note: `at` (seconds since the epoch), `level`, `message`, then what else the caller says."""
    line: dict[str, object] = {"at": at, "level": clean(level), "message": clean(message)}
    line.update((name, _plain(value, CUT_CHARS)) for name, value in more.items() if name not in line)
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def note_text(at: float, level: str, message: str, more: Mapping[str, object]) -> bytes:
    parts = [f"{stamp(at)} {clean(level):>5} {clean(message)}"]
    parts += (f"{clean(name)}={_quoted(_shown(value))}" for name, value in more.items())
    return _line("  ".join(parts))


def stamp(at: float) -> str:
    """Seconds since the epoch as UTC to the millisecond, in the form that sorts: 2026-11-23T01:14:20.123Z."""
    whole, ms = divmod(round(at * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{ms:03d}Z"


def _line(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace") + b"\n"


_MARKS = {Source.COUNTED: "~", Source.ESTIMATED: "≈"}


def _usage(usage: Usage, cost_micros: int | None) -> str:
    """Tokens in and out, with `~` where they were counted here and `≈` where they were estimated, and the cost where a
    price is known."""
    figures = ((usage.input, usage.input_source), (usage.output, usage.output_source))
    tokens = "/".join("?" if figure is None else f"{_MARKS.get(source, '')}{figure}" for figure, source in figures)
    cost = "" if cost_micros is None else f" cost=${cost_micros / 1e6:.6f}"
    return f"tokens={tokens}{cost}"


def _model(receipt: Receipt) -> str | None:
    """What the provider was asked for; for an alias the client's word is none of its models."""
    if receipt.alias is None:
        return receipt.model_requested
    models = (each.model for each in reversed(receipt.attempts) if each.provider == receipt.provider)
    return next(models, None)


def _attempts(attempts: Sequence[Attempt]) -> str:
    """Where it went, in order, and behind each that failed why: the status if it had one that says so."""
    shown = []
    for attempt in attempts[-CUT_ITEMS:]:
        place = f"{attempt.provider}/{attempt.model}" if attempt.model is not None else attempt.provider
        failure = attempt.failure
        if failure is not None:
            place += f":{attempt.status if attempt.status >= 400 else failure.kind.value}"
        shown.append(_quoted(place, _NARROW))
    more = len(attempts) - len(shown)
    return " ".join([f"({more} more)", *shown] if more else shown)


def _duration(ms: float) -> str:
    if ms < 10:
        return f"{ms:.1f}ms"
    return f"{ms:.0f}ms" if ms < 10_000 else f"{ms / 1000:.1f}s"


def _shown(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{_shown(each)}" for name, each in value.items())
    return ",".join(map(_shown, value)) if isinstance(value, (list, tuple)) else str(value)


def _quoted(text: str, cut: int = CUT_CHARS) -> str:
    """`text`, in quotes where a blank, a quote or "=" in it would make the line ambiguous."""
    shown = clean(text, cut)
    if shown and not any(c in shown for c in ' "='):
        return shown
    return '"' + shown.replace('"', '\\"') + '"'
