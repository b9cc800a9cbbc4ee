"""The grammar: what is understood, what is refused, and that a refusal names everything."""

from __future__ import annotations

import dataclasses
import re

import pytest

from proxy.simulator.faults import WORDS, FaultError, Faults, combine, name_of_model, parse, read, spec_of_model


def test_words_are_the_fields_of_faults() -> None:
    fields = {field.name for field in dataclasses.fields(Faults)}
    assert {name.replace("-", "_") for name in WORDS} - {"plain"} == fields


@pytest.mark.parametrize("spec", ["pace=50 events=20 cut=5", "pace=50,events=20,cut=5", "pace=50; events=20 ;cut=5 "])
def test_separators(spec: str) -> None:
    assert parse(spec) == Faults(pace=50.0, events=20, cut=5)


def test_quoted_text_keeps_blanks_commas_and_signs() -> None:
    assert parse('text="a, b=c; d" gzip') == Faults(text="a, b=c; d", gzip=True)


@pytest.mark.parametrize("name", sorted(WORDS))
def test_a_bare_word_has_its_default_or_is_refused(name: str) -> None:
    if WORDS[name].bare is None:
        with pytest.raises(FaultError, match=f"{name} needs a value"):
            parse(name)
    elif name != "plain":
        assert parse(name) == Faults(**{name.replace("-", "_"): WORDS[name].bare})


def test_nothing_said_is_nothing_wrong() -> None:
    assert parse("") == parse("  ,; ") == Faults()


def test_later_words_and_layers_win() -> None:
    assert parse("cut=1 cut=2").cut == 2
    assert combine(read("cut=1 pace=3"), read("cut=2")) == Faults(cut=2, pace=3.0)


def test_plain_forgets_what_was_said_before() -> None:
    assert parse("cut=1 plain gzip") == Faults(gzip=True)
    assert combine(read("cut=1"), read("plain"), read("gzip")) == Faults(gzip=True)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("ctu=3", "unknown word 'ctu', did you mean cut?"),
        ("zzzz", "unknown word 'zzzz'"),
        ("cut=x", "cut needs a whole number"),
        ("cut=", "cut needs a whole number"),
        ("cut=-1", "cut needs a whole number"),
        ("cut=١", "cut needs a whole number"),
        ("pace=nan", "pace needs a number"),
        ("pace=1e9", "pace needs a number"),
        ("length=5", "length needs a number with sign"),
        ("status=100", "status must be from 200 to 999"),
        ("status=1000", "status may be at most 999"),
        ("huge=999999999", "huge may be at most"),
        ("gzip=yes", "gzip takes no value"),
        ("deflate=raw", "deflate is one of zlib, bare"),
        ("usage=sometimes", "usage is one of always, never"),
        ("cached=many", "cached needs a whole number"),
        ("framing=wide", "framing is one of chunked, length, close"),
        ("cuts=inwards", "cuts is one of whole, bytes, edges, inside, random:<seed>"),
        ("retry-after=2\x01", "retry-after may hold printable ASCII only"),
        ('"cut', "unknown word"),
        ("=", "unknown word ''"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(spec: str, sentence: str) -> None:
    with pytest.raises(FaultError, match="^" + re.escape(sentence)):
        parse(spec)


def test_all_problems_at_once() -> None:
    with pytest.raises(FaultError) as caught:
        parse("ctu=3 pace gzip=1 events=4")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("model", "spec"),
    [
        ("gpt-5", ""),
        ("sim", ""),
        ("sim-1", ""),
        ("simple:cut", ""),
        ("sim:cut=3,pace=10", "cut=3,pace=10"),
        ("sim-cut:3", "cut=3"),
        ("sim-ctu:3", "ctu=3"),
        ("sim-gzip", "gzip"),
        ("sim:", ""),
    ],
)
def test_model_names_that_carry_a_spec(model: str, spec: str) -> None:
    assert spec_of_model(model) == spec


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-5", "gpt-5"),
        ("sim", "sim"),
        ("sim:", "sim"),
        ("sim:cut=3,pace=10", "sim"),
        ("sim-cut:3", "sim"),
        ("sim-tool", "sim"),
        ("sim-1", "sim-1"),
        ("", ""),
    ],
)
def test_model_names_without_their_spec(model: str, name: str) -> None:
    assert name_of_model(model) == name
