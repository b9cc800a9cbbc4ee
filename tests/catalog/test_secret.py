"""A secret comes out by `reveal` and in no other way."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import json
import logging
import pickle
import pprint
import string
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest

from proxy.catalog import secret as module
from proxy.catalog.secret import Secret

VALUE = "sk-very-secret-value"


@dataclasses.dataclass
class Holder:
    secret: Secret


def logged(secret: Secret) -> str:
    written = io.StringIO()
    logger = logging.Logger("apart")
    logger.addHandler(logging.StreamHandler(written))
    logger.error("%s %r %s", secret, secret, {"a": [secret]})
    return written.getvalue()


def trace_with_locals(secret: Secret) -> str:
    try:
        _ = secret + 1  # type: ignore[operator]
    except TypeError as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    raise AssertionError


def of_a_failed_assert(secret: Secret) -> str:
    other = Secret(secret.reveal()[1:])
    try:
        assert secret == other
    except AssertionError as error:
        return f"{error} Secret(#{secret.fingerprint})"
    raise AssertionError


SHOWS: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "f-string": lambda s: f"{s} {s!r} {s!s} {s:>40}",
    "percent": lambda s: "%s %r" % (s, s),  # noqa: UP031
    "format": lambda s: "{} {!r}".format(s, s),  # noqa: UP032
    "template": lambda s: string.Template("$s").substitute(s=s),
    "in a list": lambda s: repr([s]),
    "in a dict": lambda s: repr({s: s}),
    "in a dataclass": lambda s: repr(Holder(s)),
    "pprint": lambda s: pprint.pformat({"a": Holder(s)}),
    "json with default": lambda s: json.dumps({"a": s}, default=str),
    "orjson with default": lambda s: orjson.dumps({"a": s}, default=str).decode(),
    "msgspec with a hook": lambda s: msgspec.json.encode({"a": s}, enc_hook=str).decode(),
    "logging": logged,
    "a traceback with locals": trace_with_locals,
    "a failed assert": of_a_failed_assert,
    "a walk over the attributes": lambda s: repr(inspect.getmembers(s)),
}


@pytest.mark.parametrize("way", SHOWS.values(), ids=SHOWS)
def test_every_way_of_looking_shows_the_fingerprint(way: Callable[[Secret], str]) -> None:
    secret = Secret(VALUE)
    shown = way(secret)
    assert VALUE not in shown
    assert secret.fingerprint in shown


REFUSED: dict[str, Callable[[Any], object]] = {
    "pickle": pickle.dumps,
    "pickle 0": lambda s: pickle.dumps(s, 0),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "of a holder": lambda s: copy.deepcopy(Holder(s)),
    "asdict": lambda s: dataclasses.asdict(Holder(s)),
    "astuple": lambda s: dataclasses.astuple(Holder(s)),
    "json": json.dumps,
    "orjson": orjson.dumps,
    "orjson of a holder": lambda s: orjson.dumps(Holder(s)),
    "msgspec": msgspec.json.encode,
    "msgspec of a holder": lambda s: msgspec.to_builtins(Holder(s)),
    "state": lambda s: s.__getstate__(),
    "reduce": lambda s: s.__reduce_ex__(4),
    "vars": vars,
    "bytes": bytes,
    "iteration": list,
    "join": lambda s: "".join([s]),
    "order": lambda s: sorted([s, s]),
    "addition": lambda s: "a" + s,
    "subclass": lambda s: type("Sub", (Secret,), {}),
}


@pytest.mark.parametrize("way", REFUSED.values(), ids=REFUSED)
def test_what_would_write_it_down_is_refused(way: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError) as refused:
        way(Secret(VALUE))
    assert VALUE not in str(refused.value)


def test_it_is_revealed_only_when_asked() -> None:
    assert Secret(VALUE).reveal() == VALUE
    assert not hasattr(Secret(VALUE), "__dict__")


def test_equality_is_that_of_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert Secret(VALUE) != Secret(VALUE + "x")
    assert Secret(VALUE) != VALUE
    assert len({Secret(VALUE), Secret(VALUE)}) == 1
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    assert Secret(VALUE) != Secret("another-secret-value")
    assert compared == [(VALUE.encode(), b"another-secret-value")], "every comparison takes the constant-time way"


def test_a_short_one_has_no_fingerprint_to_guess_at() -> None:
    assert repr(Secret("hunter2")) == repr(Secret("another")) == "Secret(#short)"
    assert Secret("0123456789abcdef").fingerprint != "short"


def test_bytes_that_are_no_utf8_are_no_crash() -> None:
    odd = b"sk-\xff\xfe-and-some-more".decode("utf-8", "surrogateescape")
    assert Secret(odd) == Secret(odd)
    assert Secret(odd).reveal() == odd
