"""Answers of upstreams and what we make of them. `GOOD` is passed on, `BAD` is a failure of the upstream's."""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.wire.head import Framing


class Good(NamedTuple):
    raw: bytes
    body: bytes
    head: dict[str, Any]  # attributes of the ResponseHead
    method: bytes
    by_close: bool  # its end is that of the connection


class Bad(NamedTuple):
    raw: bytes
    method: bytes


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""]) + body


def good(raw: bytes, body: bytes = b"", *, method: bytes = b"GET", by_close: bool = False, **head: Any) -> Good:
    return Good(raw, body, head, method, by_close)


def bad(raw: bytes, method: bytes = b"GET") -> Bad:
    return Bad(raw, method)


CHUNKED, LENGTH, NONE, UNTIL_CLOSE = Framing.CHUNKED, Framing.LENGTH, Framing.NONE, Framing.UNTIL_CLOSE
TE = b"Transfer-Encoding: chunked"
CL = b"Content-Length: 3"
ABC = b"3\r\nabc\r\n0\r\n\r\n"
OK = answer(CL, body=b"abc")
OLD = b"HTTP/1.0 200 OK"

GOOD: dict[str, Good] = {
    "a length": good(
        OK, b"abc", status=200, reason=b"OK", version=b"1.1", framing=LENGTH, length=3, keep_alive=True, fields=[]
    ),
    "a length of zero": good(answer(b"Content-Length: 0"), framing=LENGTH, length=0, keep_alive=True),
    "a length between blanks (9110 5.5)": good(answer(b"Content-Length:  3 ", body=b"abc"), b"abc", length=3),
    "chunked": good(answer(TE, body=ABC), b"abc", framing=CHUNKED, keep_alive=True),
    "chunked in capitals": good(answer(b"TRANSFER-ENCODING: CHUNKED", body=ABC), b"abc", framing=CHUNKED),
    "chunked and a blank": good(answer(TE + b" ", body=ABC), b"abc", framing=CHUNKED),
    "chunked, empty": good(answer(TE, body=b"0\r\n\r\n"), framing=CHUNKED),
    "chunked, many": good(answer(TE, body=b"1\r\na\r\n2\r\nbc\r\n03\r\ndef\r\n0000\r\n\r\n"), b"abcdef"),
    "chunked, body of line ends": good(answer(TE, body=b"4\r\n\r\n\r\n\r\n0\r\n\r\n"), b"\r\n\r\n"),
    "chunked, a body like the end": good(answer(TE, body=b"5\r\n0\r\n\r\n\r\n0\r\n\r\n"), b"0\r\n\r\n"),
    "chunked, extensions (9112 7.1.1)": good(answer(TE, body=b'3;a=b;c="d"\r\nabc\r\n0;e\r\n\r\n'), b"abc"),
    "chunked, trailers, which end here": good(
        answer(TE, b"A: 1", body=b"3\r\nabc\r\n0\r\nAuthorization: t\r\nB: 2\r\n\r\n"),
        b"abc", fields=[(b"a", b"A", b"1")], values={b"transfer-encoding": b"chunked", b"a": b"1"},
    ),
    "chunked, close": good(answer(TE, b"Connection: close", body=ABC), b"abc", keep_alive=False),
    "until the end": good(answer(body=b"abc"), b"abc", by_close=True, framing=UNTIL_CLOSE, keep_alive=False),
    "until the end, empty": good(answer(), by_close=True, framing=UNTIL_CLOSE),
    "until the end, in spite of keep-alive": good(
        answer(b"Connection: keep-alive", body=b"abc"), b"abc", by_close=True, keep_alive=False
    ),
    "until the end, a body like an answer": good(answer(body=OK), OK, by_close=True),
    "1.0 until the end": good(answer(first=OLD, body=b"abc"), b"abc", by_close=True, version=b"1.0", keep_alive=False),
    "1.0 with a length": good(answer(CL, first=OLD, body=b"abc"), b"abc", framing=LENGTH, keep_alive=False),
    "1.0 that keeps": good(answer(CL, b"Connection: Keep-Alive", first=OLD, body=b"abc"), b"abc", keep_alive=True),
    "1.0 that keeps and closes (9112 9.3)": good(
        answer(CL, b"Connection: keep-alive, close", first=OLD, body=b"abc"), b"abc", keep_alive=False
    ),
    "close": good(answer(CL, b"Connection: Close", body=b"abc"), b"abc", keep_alive=False),
    "HEAD with a length (9112 6.3)": good(answer(CL), method=b"HEAD", framing=NONE, length=3, keep_alive=True),
    "HEAD with chunks": good(answer(TE), method=b"HEAD", framing=NONE, length=0),
    "HEAD without either": good(answer(), method=b"HEAD", framing=NONE),
    "204": good(answer(first=b"HTTP/1.1 204 No Content"), status=204, framing=NONE, keep_alive=True),
    "204 with a length": good(answer(CL, first=b"HTTP/1.1 204 No Content"), framing=NONE),
    "304 with a length (9110 15.4.5)": good(answer(CL, first=b"HTTP/1.1 304 Not Modified"), framing=NONE, length=3),
    "304 with chunks": good(answer(TE, first=b"HTTP/1.1 304 Not Modified"), framing=NONE),
    "no reason": good(answer(CL, first=b"HTTP/1.1 200 ", body=b"abc"), b"abc", reason=b""),
    "no reason and no blank": good(answer(CL, first=b"HTTP/1.1 200", body=b"abc"), b"abc", reason=b""),
    "a reason in other letters": good(answer(CL, first=b"HTTP/1.1 200 \xe9\t x", body=b"abc"), b"abc",
    reason=b"\xe9\t x"),
    "a status nobody knows": good(answer(CL, first=b"HTTP/1.1 599 x", body=b"abc"), b"abc", status=599),
    "100 before it (9110 15.2)": good(answer(first=b"HTTP/1.1 100 Continue") + OK, b"abc", status=200),
    "102, 103 with fields, and 199 before it": good(
        answer(first=b"HTTP/1.1 102 Processing") + answer(b"Link: x", CL, first=b"HTTP/1.1 103 Early Hints")
        + answer(first=b"HTTP/1.1 199 x") + OK, b"abc", fields=[], values={b"content-length": b"3"},
    ),
    "100 before chunks": good(answer(first=b"HTTP/1.1 100 Continue") + answer(TE, body=ABC), b"abc", framing=CHUNKED),
    "100 before 204": good(answer(first=b"HTTP/1.1 100 Continue") + answer(first=b"HTTP/1.1 204 x"), framing=NONE),
    "an offer of h2 is no change of protocols": good(
        answer(CL, b"Upgrade: h2", b"Connection: Upgrade", body=b"abc"), b"abc", fields=[], keep_alive=True
    ),
    "fields as they came, hop-by-hop ones gone (9110 7.6.1)": good(
        answer(b"X-A: 1", b"Connection: x-b", b"X-B: 2", b"Keep-Alive: 3", b"x-a:  4 ", b"Trailer: 5", CL, body=b"abc"),
        b"abc", fields=[(b"x-a", b"X-A", b"1"), (b"x-a", b"x-a", b"4")],
    ),
    "a length cannot be named away": good(answer(b"Connection: content-length", CL, body=b"abc"), b"abc",
    framing=LENGTH),
}  # fmt: skip

BAD: dict[str, Bad] = {
    "a length and chunks (9112 6.3)": bad(answer(CL, TE, body=ABC)),
    "chunks and a length": bad(answer(TE, CL, body=ABC)),
    "two lengths (9112 6.3)": bad(answer(CL, b"Content-Length: 4", body=b"abcd")),
    "two equal lengths": bad(answer(CL, CL, body=b"abc")),
    "a list of lengths": bad(answer(b"Content-Length: 3, 3", body=b"abc")),
    "+3": bad(answer(b"Content-Length: +3", body=b"abc")),
    "0x3": bad(answer(b"Content-Length: 0x3", body=b"abc")),
    "-3": bad(answer(b"Content-Length: -3", body=b"abc")),
    "an empty length": bad(answer(b"Content-Length:", body=b"abc")),
    "a length of 19 digits": bad(answer(b"Content-Length: 1000000000000000000", body=b"abc")),
    "a length of 2**64": bad(answer(b"Content-Length: 18446744073709551616", body=b"abc")),
    "foo as a coding, which httptools reads to the end": bad(answer(b"Transfer-Encoding: foo", body=ABC)),
    "chunked, foo": bad(answer(b"Transfer-Encoding: chunked, foo", body=ABC)),
    "gzip, chunked": bad(answer(b"Transfer-Encoding: gzip, chunked", body=ABC)),
    "identity": bad(answer(b"Transfer-Encoding: identity", body=b"abc")),
    "chunked twice": bad(answer(TE, TE, body=ABC)),
    "chunked and a comma": bad(answer(TE + b",", body=ABC)),
    "chunked and a tab, which httptools does not see": bad(answer(TE + b"\t", body=ABC)),
    "chunked, a tab and a blank": bad(answer(TE + b"\t ", body=ABC)),
    "no coding": bad(answer(b"Transfer-Encoding:", body=ABC)),
    "chunks in 1.0": bad(answer(TE, first=OLD, body=ABC)),
    "status 000": bad(answer(CL, first=b"HTTP/1.1 000 x", body=b"abc")),
    "status 600": bad(answer(CL, first=b"HTTP/1.1 600 x", body=b"abc")),
    "status 99": bad(answer(CL, first=b"HTTP/1.1 99 x", body=b"abc")),
    "status 2000": bad(answer(CL, first=b"HTTP/1.1 2000 x", body=b"abc")),
    "a status of another script": bad(answer(CL, first=b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 x", body=b"abc")),
    "a NUL in the reason": bad(answer(CL, first=b"HTTP/1.1 200 O\0K", body=b"abc")),
    "a CR in the reason": bad(answer(CL, first=b"HTTP/1.1 200 O\rK", body=b"abc")),
    "HTTP/2.0": bad(answer(CL, first=b"HTTP/2.0 200 OK", body=b"abc")),
    "HTTP/0.9": bad(answer(CL, first=b"HTTP/0.9 200 OK", body=b"abc")),
    "HTTP/1.2": bad(answer(CL, first=b"HTTP/1.2 200 OK", body=b"abc")),
    "RTSP/1.0": bad(answer(CL, first=b"RTSP/1.0 200 OK", body=b"abc")),
    "ICY": bad(answer(CL, first=b"ICY 200 OK", body=b"abc")),
    "two blanks": bad(answer(CL, first=b"HTTP/1.1  200 OK", body=b"abc")),
    "an empty line before it": bad(b"\r\n" + OK),
    "101": bad(answer(b"Upgrade: h2c", b"Connection: upgrade", first=b"HTTP/1.1 101 Switching Protocols")),
    "1xx without end": bad(answer(first=b"HTTP/1.1 100 Continue") * 33),
    "1xx that is no head": bad(answer(b"A b", first=b"HTTP/1.1 100 Continue") + OK),
    "1xx with lines that end in LF": bad(b"HTTP/1.1 100 Continue\nA: b\r\n\r\n" + OK),
    "lines that end in LF": bad(b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc"),
    "an LF in a value": bad(answer(b"A: b\nC: d", CL, body=b"abc")),
    "a CR in a value": bad(answer(b"A: b\rc", CL, body=b"abc")),
    "a NUL in a value": bad(answer(b"A: b\0c", CL, body=b"abc")),
    "a folded value": bad(answer(b"A: b", b" c", CL, body=b"abc")),
    "a blank before the colon": bad(answer(b"A : b", CL, body=b"abc")),
    "no colon": bad(answer(b"Abc", CL, body=b"abc")),
    "an empty name": bad(answer(b": b", CL, body=b"abc")),
    "two hundred and one fields": bad(answer(*[b"A: b"] * 201, b"Content-Length: 0")),
    "a head without end": bad(answer(b"A: " + b"a" * 70_000)),
    "no HTTP": bad(b"SSH-2.0-OpenSSH\r\n"),
    "TLS": bad(b"\x15\x03\x01\x00\x02\x02\x16"),
    "a chunk size that is none": bad(answer(TE, body=b"xyz\r\nabc\r\n0\r\n\r\n")),
    "an empty chunk size": bad(answer(TE, body=b"\r\nabc\r\n0\r\n\r\n")),
    "a chunk size with a sign": bad(answer(TE, body=b"+3\r\nabc\r\n0\r\n\r\n")),
    "a chunk size with 0x": bad(answer(TE, body=b"0x3\r\nabc\r\n0\r\n\r\n")),
    "a chunk size of 17 digits": bad(answer(TE, body=b"11111111111111111\r\nabc")),
    "a chunk size in LF": bad(answer(TE, body=b"3\nabc\r\n0\r\n\r\n")),
    "a chunk that ends in LF": bad(answer(TE, body=b"3\r\nabc\n0\r\n\r\n")),
    "a chunk longer than it says": bad(answer(TE, body=b"3\r\nabcd\r\n0\r\n\r\n")),
    "a last chunk in LF": bad(answer(TE, body=b"3\r\nabc\r\n0\n\n")),
    "a trailer that is none": bad(answer(TE, body=b"3\r\nabc\r\n0\r\nA b\r\n\r\n")),
    "a trailer that is a length (9110 6.5.1)": bad(answer(TE, body=b"3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n")),
}
