"""Reading the top level of a body: exact spans, and nothing that two readers could read in two ways."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.dialects.body import MemberReader, as_count, asks_for_usage, raw_text, splice, with_usage_asked
from proxy.dialects.call import UnreadableBody

NAMES = ("model", "stream", "max_tokens")
READER = MemberReader(*NAMES)


def span_of(body: bytes, name: str = "model") -> bytes | None:
    span = READER.read(body).span(name)
    return body[slice(*span)] if span else None


@pytest.mark.parametrize(
    ("body", "raw"),
    [
        (b'{"model":"m"}', b'"m"'),
        (b' \r\n\t{ \n"model" \t:\r "m" \n} \n', b'"m"'),
        (b'{"a":{"model":"no"},"b":["model","no"],"c":"\\"model\\":\\"no\\"","model":"m"}', b'"m"'),
        (b'{"a":"\\\\","\\"}":[{}],"model":"m","z":{"model":1,"model":2}}', b'"m"'),
        (b'{"mod\\u0065l":"\\u006d\\/"}', b'"\\u006d\\/"'),
        (b'{"a":-1.50e+10,"b":null,"c":true,"model":null}', b"null"),
        ('{"\u00e9":"\U0001f600\\u00e9","model":"\u00e9"}'.encode(), '"\u00e9"'.encode()),
        (b'{"a":"\\ud83d","model":"m"}', b'"m"'),
        (b'{"a":"\\uDE00 \\\\ud83d \\ud83d\\ude00","model":"m"}', b'"m"'),
        (b'{"stream":true}', None),
        (b"{}", None),
        (b'{"":"","model":"m"}', b'"m"'),
    ],
)
def test_a_span_is_exact(body: bytes, raw: bytes | None) -> None:
    assert span_of(body) == raw


json_text = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=8)
json_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), json_text),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["model", "a"]), inner)),
    max_leaves=6,
)
members = st.dictionaries(st.one_of(st.sampled_from([*NAMES, "Model"]), json_text), json_value, max_size=6)


@given(members, st.booleans(), st.sampled_from([None, 1, "\t"]), st.sampled_from([(",", ":"), (" , ", " : ")]))
@settings(max_examples=500, deadline=None)
def test_spans_of_random_bodies(
    values: dict[str, object], is_ascii: bool, indent: str | None, separators: tuple[str, str]
) -> None:
    body = json.dumps(values, ensure_ascii=is_ascii, indent=indent, separators=separators).encode()
    if any(name.casefold() in NAMES and name not in NAMES for name in values):
        with pytest.raises(UnreadableBody, match="letter case"):
            READER.read(body)
        return
    read = READER.read(body)
    for name in NAMES:
        span = read.span(name)
        assert (span is not None) == (name in values)
        if span:
            assert json.loads(body[slice(*span)]) == values[name]
            changed = json.loads(splice(body, span, raw_text("other")))
            assert changed == values | {name: "other"}
            assert list(changed) == list(values)


@given(st.binary(max_size=60), st.integers(0, 60))
@settings(max_examples=500, deadline=None)
def test_hostile_bytes_are_refused_and_never_raise_anything_else(junk: bytes, at: int) -> None:
    good = b'{"model":"m","messages":[{"content":"\\u00e9 x"}],"stream":true}'
    for body in (junk, good[:at] + junk + good[at:], good[:at] + junk):
        try:
            read = READER.read(body)
            read.span("model")
            read.text("model")
            read.flag("stream")
            read.count("max_tokens")
        except UnreadableBody:
            continue


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[]", "must be a JSON object"),
        (b'"model"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b'{"model":"m",}', "not valid JSON"),
        (b"{'model':'m'}", "not valid JSON"),
        (b'{"model":"m"} x', "not valid JSON"),
        (b'{"model":"m"}{"model":"n"}', "not valid JSON"),
        (b'{"model":"m"}\x00', "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":"\n"}', "not valid JSON"),
        (b'{"a":"\\x"}', "not valid JSON"),
        (b'{"a":"\\ud83d"', "not valid JSON"),
        (b'\xef\xbb\xbf{"model":"m"}', "byte order mark"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
        (b'{"a":"\xc3', "UTF-8"),
        (b'{"a":"' + b"x" * 70_000 + b'\xe2\x82"}', "UTF-8"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"a":"\\ud83d","b":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"model":"a","model":"b"}', '"model" occurs twice'),
        (b'{"model":"a","mod\\u0065l":"a"}', '"model" occurs twice'),
        (b'{"stream":true,"x":1,"stream":true}', '"stream" occurs twice'),
        (b'{"model":"a","Model":"b"}', "letter case"),
        (b'{"MODEL":"b"}', "letter case"),
        ('{"\u017ftream":true}'.encode(), "letter case"),
        ('{"max_to\u212aens":1}'.encode(), "letter case"),
        (b'{"\\u017ftream":true}', "letter case"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(UnreadableBody, match=words) as caught:
        READER.read(body)
    assert len(str(caught.value)) < 100


def test_characters_cut_by_the_slices_of_the_check_are_whole() -> None:
    assert span_of(b'{"a":"' + "\u20ac".encode() * 100_000 + b'","model":"m"}') == b'"m"'


def many(members: int) -> bytes:
    return b'{"model":"m","":"' + b"x" * 20_000 + b'"' + b',"":1' * (members - 2) + b"}"


def test_a_body_of_a_thousand_members_is_read() -> None:
    body = many(1000)
    assert span_of(body) == b'"m"'
    assert span_of(body) == b'"m"'  # each body is counted for itself
    assert span_of(b'{"a":{"":{' + many(3000)[1:-1] + b'}},"model":"m"}') == b'"m"'  # only those of one level count


@pytest.mark.parametrize("half", [b"", b"\\ud83d"])
def test_a_body_of_more_members_is_refused_before_they_are_all_read(half: bytes) -> None:
    with pytest.raises(UnreadableBody, match="more than 1,000 members"):
        READER.read(many(1001))
    body = b'{"model":"' + half + b'"' + b',"":1' * (2**20 // 5) + b"}"
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableBody, match="more than 1,000 members"):
            READER.read(body)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 3 * 2**20 + 2**19  # copies of the body; all of its members would take 50 MiB


def test_a_long_key_is_not_folded() -> None:
    key = "\u1e9e" * 100_000
    tracemalloc.start()
    try:
        READER.read(f'{{"{key}":1}}'.encode())
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 15 * len(key)


@pytest.mark.parametrize("escape", ["\\ud06d", "\\uD06D", "\\u006d\\ud83d"])
def test_another_escape_in_place_of_a_half_pair_makes_no_name(escape: str) -> None:
    body = f'{{"{escape}odel":"x","a":"\\ud83d","model":"m"}}'.encode()
    assert span_of(body) == b'"m"'


@pytest.mark.parametrize("raw", [b"3", b"true", b"[]", b"{}", b'"\\ud83d"'])
def test_a_text_of_another_type_is_refused(raw: bytes) -> None:
    with pytest.raises(UnreadableBody, match='"model" must be a string'):
        READER.read(b'{"model":' + raw + b"}").text("model")


@pytest.mark.parametrize("long", ["x" * 1023, "\u20ac" * 400, "\\u0041" * 200])
def test_a_text_that_is_long_is_refused_since_it_is_kept(long: str) -> None:
    with pytest.raises(UnreadableBody, match='"model" must be a string of at most 1,024 bytes'):
        READER.read(f'{{"model":"{long}"}}'.encode()).text("model")


def test_a_text_up_to_a_kibibyte_is_read() -> None:
    assert READER.read(b'{"model":"' + b"x" * 1022 + b'"}').text("model") == "x" * 1022


@pytest.mark.parametrize("raw", [b"0", b'"yes"', b'"true"', b"[]"])
def test_a_flag_of_another_type_is_refused(raw: bytes) -> None:
    with pytest.raises(UnreadableBody, match='"stream" must be true or false'):
        READER.read(b'{"stream":' + raw + b"}").flag("stream")


@pytest.mark.parametrize(
    ("raw", "count"),
    [(None, None), (b"null", None), (b"0", 0), (b"4096", 4096), (b"4096.0", 4096), (b"1e3", 1000), (b"-1", None)],
)
def test_a_count_is_a_whole_number(raw: bytes | None, count: int | None) -> None:
    assert as_count("max_tokens", raw) == count


@pytest.mark.parametrize("raw", [b"1.5", b'"100"', b"true", b"[1]", b"9" * 40, b"1e300", b"1e999"])
def test_another_count_is_refused(raw: bytes) -> None:
    with pytest.raises(UnreadableBody, match='"max_tokens" must be a whole number'):
        as_count("max_tokens", raw)


def test_a_splice_changes_nothing_else() -> None:
    body = b'{ "n": 1.0e0, "model" : "a\\/b" ,"z":"\\u00e9"}'
    span = READER.read(body).span("model")
    assert span
    assert splice(body, span, raw_text('b"\u00e9')) == '{ "n": 1.0e0, "model" : "b\\"\u00e9" ,"z":"\\u00e9"}'.encode()


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"model":"m"}', b'{"stream_options":{"include_usage":true},"model":"m"}'),
        (b' {\n "a" : 1.0}\n', b' {"stream_options":{"include_usage":true},\n "a" : 1.0}\n'),
        (b"{ }", b'{"stream_options":{"include_usage":true} }'),
        (b'{"stream_options": null ,"x":1e2}', b'{"stream_options": {"include_usage":true} ,"x":1e2}'),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{ "x" : [1] }}', b'{"stream_options":{"include_usage":true, "x" : [1] }}'),
        (b'{"stream_options":{"include_usage": false}}', b'{"stream_options":{"include_usage": true}}'),
        (b'{"stream_options":{"a":1,"include_usage":null}}', b'{"stream_options":{"a":1,"include_usage":true}}'),
        (
            b'{"messages":[{"content":"\\"stream_options\\":{}"}],"stream_options":{}}',
            b'{"messages":[{"content":"\\"stream_options\\":{}"}],"stream_options":{"include_usage":true}}',
        ),
    ],
)
def test_usage_is_asked_for_without_touching_any_other_byte(body: bytes, asked: bytes) -> None:
    assert with_usage_asked(body) == asked
    assert json.loads(asked)["stream_options"]["include_usage"] is True


@given(st.dictionaries(json_text, json_value, max_size=4), st.dictionaries(json_text, json_value, max_size=3))
def test_usage_is_asked_for_in_any_body(members: dict[str, object], options: dict[str, object]) -> None:
    members.pop("stream_options", None)
    options.pop("include_usage", None)
    for body, others in ((members, {}), (members | {"stream_options": options}, options)):
        found = json.loads(with_usage_asked(json.dumps(body).encode()))
        assert found == members | {"stream_options": others | {"include_usage": True}}


@pytest.mark.parametrize(
    ("raw", "asks"),
    [
        (None, False),
        (b"null", False),
        (b"{}", False),
        (b'{"include_usage":true}', True),
        (b'{ "include_usage" : false }', False),
        (b'{"include_usage":null,"include_obfuscation":false}', False),
        (b'{"include_usage":1}', True),  # for the provider to take or to refuse
        (b"[]", True),
        (b'"yes"', True),
    ],
)
def test_who_asks_for_usage(raw: bytes | None, asks: bool) -> None:
    assert asks_for_usage(raw) is asks


@pytest.mark.parametrize("raw", [b'{"include_usage":true,"include_usage":false}', b'{"Include_Usage":true}'])
def test_who_could_be_understood_in_two_ways_is_told(raw: bytes) -> None:
    with pytest.raises(UnreadableBody, match="stream_options"):
        asks_for_usage(raw)
