"""Requests and what we say to them: every row of httptools' own gaps, and what RFC 9110 and 9112 ask for besides.

`GOOD` is served: the bytes, the body, and what must stand in the head. `BAD` is refused: the bytes, and as what.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from proxy.outcome import Kind
from proxy.wire.head import Framing

BAD_REQUEST, CODING, VERSION = Kind.BAD_REQUEST, Kind.CODING_UNSUPPORTED, Kind.VERSION_UNSUPPORTED
METHOD, LINE, HEAD, EXPECT = Kind.METHOD_UNKNOWN, Kind.LINE_TOO_LONG, Kind.HEAD_TOO_LARGE, Kind.EXPECTATION_FAILED


class Good(NamedTuple):
    raw: bytes
    body: bytes
    head: dict[str, Any]  # attributes of the RequestHead


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with Host, the field lines and the body as they are."""
    return b"\r\n".join([b"POST /p HTTP/" + version, b"Host: x", *lines, b"", b""]) + body


def get(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: x\r\n") -> bytes:
    return first + b"\r\n" + host + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def good(raw: bytes, body: bytes = b"", **head: Any) -> Good:
    return Good(raw, body, head)


CHUNKED, LENGTH, NONE = Framing.CHUNKED, Framing.LENGTH, Framing.NONE
TE = b"Transfer-Encoding: chunked"
ABC = b"3\r\nabc\r\n0\r\n\r\n"
# A request in the body: whoever loses the body would serve it.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
JDK = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    b"Upgrade: h2c",
)

GOOD: dict[str, Good] = {
    "the least": good(get(), method=b"GET", path=b"/", query=b"", version=b"1.1", host=b"x", fields=[], framing=NONE),
    "a query": good(get(first=b"GET /a/b?c=d&e=?/ HTTP/1.1"), path=b"/a/b", query=b"c=d&e=?/"),
    "escapes stay": good(get(first=b"GET /%2e%2F%00?%20 HTTP/1.1"), path=b"/%2e%2F%00", query=b"%20"),
    "every byte a target may have": good(get(first=b"GET /!$%&'()*+,-.:;=@[]^_`{|}~ HTTP/1.1")),
    "a length": good(post(b"Content-Length: 3", body=b"abc"), b"abc", framing=LENGTH, length=3, expects_continue=False),
    "a length of zero": good(post(b"Content-Length: 0"), framing=LENGTH, length=0),
    "a length with zeros before it": good(post(b"Content-Length: 0003", body=b"abc"), b"abc", length=3),
    "a length in capitals": good(post(b"CONTENT-LENGTH: 3", body=b"abc"), b"abc", length=3),
    "a length without a blank": good(post(b"Content-Length:3", body=b"abc"), b"abc", length=3),
    "a length between blanks (9110 5.5)": good(post(b"Content-Length:  \t3  ", body=b"abc"), b"abc", length=3),
    "a body with GET": good(get(b"Content-Length: 3") + b"abc", b"abc", framing=LENGTH, length=3),
    "a POST without a body": good(post(), framing=NONE, length=0),
    "chunked": good(post(TE, body=ABC), b"abc", framing=CHUNKED, length=0),
    "chunked in capitals (9112 7)": good(post(b"transfer-encoding: CHUNKED", body=ABC), b"abc", framing=CHUNKED),
    "chunked and a blank (9110 5.5)": good(post(TE + b" ", body=ABC), b"abc", framing=CHUNKED),
    "chunked, empty": good(post(TE, body=b"0\r\n\r\n"), framing=CHUNKED),
    "chunked, zeros": good(post(TE, body=b"0003\r\nabc\r\n000\r\n\r\n"), b"abc"),
    "chunked, hex in both cases": good(post(TE, body=b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    b"0123456789" * 2),
    "chunked with extensions (9112 7.1.1)": good(post(TE, body=b'3;a=b;c="d"\r\nabc\r\n0 ;e\r\n\r\n'), b"abc"),
    "chunked with trailers, which end here": good(
        post(TE, body=b"3\r\nabc\r\n0\r\nAuthorization: Bearer t\r\nHost: t\r\nContent-Length: 9\r\n\r\n"),
        b"abc", host=b"x", fields=[], values={b"host": b"x", b"transfer-encoding": b"chunked"},
    ),
    "a request in the body": good(post(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN), HIDDEN),
    "an offer of h2c (JDK)": good(get(*JDK), fields=[], keep_alive=True),
    "an offer of h2c on a POST, a request in its body": good(
        post(*JDK, b"Content-Length: %d" % len(HIDDEN), body=HIDDEN), HIDDEN, fields=[], keep_alive=True
    ),
    "an offer of h2c on a POST in chunks": good(
        post(*JDK, TE, body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)), HIDDEN, framing=CHUNKED
    ),
    "an offer of a web socket": good(get(b"Connection: keep-alive, Upgrade", b"Upgrade: websocket"), fields=[]),
    "two offers": good(get(b"Upgrade: a", b"Connection: upgrade", b"upgrade: b", b"Connection: UPGRADE"), fields=[]),
    "an offer that Connection does not name": good(get(b"Upgrade: h2c"), fields=[]),
    "a Connection that offers nothing": good(get(b"Connection: upgrade"), fields=[]),
    "fields as they came": good(
        get(b"X-A: 1", b"x-a:2", b"X-b: \xe9 ~"),
        fields=[(b"x-a", b"X-A", b"1"), (b"x-a", b"x-a", b"2"), (b"x-b", b"X-b", b"\xe9 ~")],
        values={b"host": b"x", b"x-a": b"1", b"x-b": b"\xe9 ~"},
    ),
    "blanks around a value are no part of it (9110 5.5)": good(
        get(b"A: \t b c\t ", b"D: ", b"E:", b"F: \t"),
        fields=[(b"a", b"A", b"b c"), (b"d", b"D", b""), (b"e", b"E", b""), (b"f", b"F", b"")],
    ),
    "a Host with a blank behind it": good(get(host=b"Host: x:80 \r\n"), host=b"x:80"),
    "every byte a name may have": good(get(b"!#$%&'*+-.^_`|~09azAZ: v")),
    "hop-by-hop fields end here (9110 7.6.1)": good(
        get(b"Keep-Alive: a", b"Proxy-Connection: b", b"Proxy-Authorization: c", b"TE: d", b"Trailer: e", b"A: f"),
        fields=[(b"a", b"A", b"f")],
    ),
    "named fields end here (9110 7.6.1)": good(
        get(b"Connection: x-secret,, X-Other ,", b"X-Secret: 1", b"x-other: 2", b"X-Secret-Not: 3"),
        fields=[(b"x-secret-not", b"X-Secret-Not", b"3")], keep_alive=True,
    ),
    "fields named by two Connections, one behind them": good(
        get(b"Connection: a", b"A: 1", b"B: 2", b"C: 3", b"Connection: close, b"),
        fields=[(b"c", b"C", b"3")], keep_alive=False,
    ),
    "a named field beside an offer to upgrade": good(
        get(b"Upgrade: h2c", b"Connection: upgrade-insecure-requests, upgrade", b"Upgrade-Insecure-Requests: 1"),
        fields=[]
    ),
    "framing and Host cannot be named away": good(
        post(b"Connection: content-length, host, transfer-encoding", b"Content-Length: 3", body=b"abc"),
        b"abc", framing=LENGTH, length=3, host=b"x",
    ),
    "chunked cannot be named away": good(post(b"Connection: transfer-encoding", TE, body=ABC), b"abc", framing=CHUNKED),
    "a key that is named is ours alone": good(
        get(b"Connection: authorization", b"Authorization: Bearer k"),
        fields=[], values={b"host": b"x", b"connection": b"authorization", b"authorization": b"Bearer k"},
    ),
    "close": good(get(b"Connection: close"), keep_alive=False),
    "close in any case": good(get(b"Connection: x , CLOSE"), keep_alive=False),
    "close wins (9112 9.3)": good(get(b"Connection: close, keep-alive"), keep_alive=False),
    "close wins in 1.0, too": good(get(b"Connection: keep-alive, close", first=b"GET / HTTP/1.0"), keep_alive=False),
    "1.0": good(get(first=b"GET / HTTP/1.0"), version=b"1.0", keep_alive=False),
    "1.0 without a Host": good(get(first=b"GET / HTTP/1.0", host=b""), version=b"1.0", host=b""),
    "1.0 keeps where it says so": good(get(b"Connection: Keep-Alive", first=b"GET / HTTP/1.0"), keep_alive=True),
    "1.0 with a length": good(post(b"Content-Length: 3", body=b"abc", version=b"1.0"), b"abc", framing=LENGTH),
    "Expect with a length": good(
        post(b"Expect: 100-Continue", b"Content-Length: 3", body=b"abc"), b"abc", expects_continue=True
    ),
    "Expect with chunks": good(post(b"Expect: 100-continue", TE, body=ABC), b"abc", expects_continue=True),
    "Expect with a blank behind it": good(
        post(b"Expect: 100-continue ", b"Content-Length: 3", body=b"abc"), b"abc", expects_continue=True
    ),
    "Expect without a body": good(post(b"Expect: 100-continue"), expects_continue=False),
    "Expect with a body of no bytes": good(post(b"Expect: 100-continue", b"Content-Length: 0"), expects_continue=False),
    "Expect in 1.0 (9110 10.1.1)": good(
        post(b"Expect: 100-continue", b"Content-Length: 3", body=b"abc", version=b"1.0"), b"abc", expects_continue=False
    ),
    "absolute form replaces Host (9112 3.2.2)": good(
        get(first=b"GET http://other:81/a?b HTTP/1.1"), host=b"other:81", path=b"/a", query=b"b"
    ),
    "absolute form in capitals": good(get(first=b"GET HTTP://o/ HTTP/1.1"), host=b"o", path=b"/"),
    "absolute form without a path": good(get(first=b"GET https://o HTTP/1.1"), host=b"o", path=b"/", query=b""),
    "absolute form with a query only": good(get(first=b"GET http://o?q HTTP/1.1"), host=b"o", path=b"/", query=b"q"),
    "absolute form, an address": good(get(first=b"GET http://[::1]:80/ HTTP/1.1"), host=b"[::1]:80"),
    "OPTIONS *": good(get(first=b"OPTIONS * HTTP/1.1"), method=b"OPTIONS", path=b"*", query=b""),
    "OPTIONS of a whole server in absolute form (9112 3.2.4)": good(get(first=b"OPTIONS http://o HTTP/1.1"), path=b"*"),
    "OPTIONS of the root in absolute form": good(get(first=b"OPTIONS http://o/ HTTP/1.1"), path=b"/"),
    "OPTIONS of a path": good(get(first=b"OPTIONS /a HTTP/1.1"), path=b"/a"),
    "an empty line before it (9112 2.2)": good(b"\r\n" + get(), method=b"GET"),
    "a few of them": good(b"\r\n" * 32 + get(), method=b"GET"),
    "lists may repeat": good(get(b"Accept: a", b"Accept: b", b"Via: 1.1 a", b"Via: 1.1 b")),
}  # fmt: skip

HOSTS_GOOD = [
    b"x", b"X.Example", b"localhost:8080", b"a.b.c.", b"1.2.3.4", b"1.2.3.4:80", b"[::1]", b"[::1]:80",
    b"[::ffff:1.2.3.4]",
    b"[2001:db8::1]:65535", b"x:", b"x:0", b"x:00080", b"a_b", b"a-b", b"xn--bcher-kva.example", b"%41.b",
    b"a~b!$&'()*+;=",
]  # fmt: skip
HOSTS_BAD = [
    b"", b" ", b":", b":80", b"a b", b"a\tb", b"a/b", b"/a", b"a?b", b"a#b", b"u@a", b"u:p@a", b"a@", b"http://a",
    b"a:b",
    b"a:80:80", b"a:-1", b"a:+1", b"a: 80", b"a :80", b"a:80a", b"a:0x50", b"a:65536", b"a:123456", b"a:\xd9\xa1", b"[",
    b"[]", b"[::1", b"::1", b"::1]", b"[::1]a", b"[::1]:a", b"[::1]]", b"[[::1]]", b"[::1%25eth0]", b"[::1%eth0]",
    b"[1.2.3.4]", b"[::g]", b"[:::]", b"[1:2:3:4:5:6:7:8:9]", b"[::1.2.3.256]", b"[v1.a]", b"[a]", b"a[::1]", b"%",
    b"%4",
    b"%zz", b"a\\b", b'"a"', b"<a>", b"a,\x20b", b"\xc3\xa9", b"\xff", b"a|b", b"a^b", b"a`b", b"{a}", b"a\x7fb",
]  # fmt: skip

BAD: dict[str, tuple[bytes, Kind]] = {
    "no Host (9112 3.2)": (get(host=b""), BAD_REQUEST),
    "no Host beside an absolute target": (get(first=b"GET http://x/ HTTP/1.1", host=b""), BAD_REQUEST),
    "two Hosts (9112 3.2)": (get(b"Host: x"), BAD_REQUEST),
    "two Hosts in 1.0": (get(b"host: y", first=b"GET / HTTP/1.0"), BAD_REQUEST),
    "a wrong Host in 1.0": (get(first=b"GET / HTTP/1.0", host=b"Host: a b\r\n"), BAD_REQUEST),
    "a wrong Host beside an absolute target": (
        get(first=b"GET http://x/ HTTP/1.1", host=b"Host: a b\r\n"),
        BAD_REQUEST,
    ),
    "no version": (b"POST /path\r\nHost: x\r\n\r\n", BAD_REQUEST),
    "0.9": (get(first=b"GET / HTTP/0.9"), VERSION),
    "1.2": (get(first=b"GET / HTTP/1.2"), VERSION),
    "2.0": (get(first=b"GET / HTTP/2.0"), VERSION),
    "1.10": (get(first=b"GET / HTTP/1.10"), BAD_REQUEST),
    "1": (get(first=b"GET / HTTP/1"), BAD_REQUEST),
    "1,1": (get(first=b"GET / HTTP/1,1"), BAD_REQUEST),
    "http in lower case (9112 2.3)": (get(first=b"GET / http/1.1"), BAD_REQUEST),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VERSION),
    "RTSP": (get(first=b"OPTIONS * RTSP/1.0"), BAD_REQUEST),
    "ICE": (get(first=b"SOURCE / ICE/1.0"), BAD_REQUEST),
    "SOURCE": (get(first=b"SOURCE / HTTP/1.1"), METHOD),
    "M-SEARCH": (get(first=b"M-SEARCH * HTTP/1.1"), METHOD),
    "CONNECT": (get(first=b"CONNECT x:443 HTTP/1.1"), METHOD),
    "TRACE": (get(first=b"TRACE / HTTP/1.1"), METHOD),
    "a method in lower case (9110 9.1)": (get(first=b"get / HTTP/1.1"), METHOD),
    "a method nobody knows": (get(first=b"BREW /pot HTTP/1.1"), METHOD),
    "a method that is no token": (get(first=b"G(T / HTTP/1.1"), BAD_REQUEST),
    "a method of 33 letters": (get(first=b"A" * 33 + b" / HTTP/1.1"), BAD_REQUEST),
    "two blanks before the target": (get(first=b"GET  / HTTP/1.1"), BAD_REQUEST),
    "two blanks behind the target": (get(first=b"GET /  HTTP/1.1"), BAD_REQUEST),
    "a blank behind the line": (get(first=b"GET / HTTP/1.1 "), BAD_REQUEST),
    "a blank before the line": (get(first=b" GET / HTTP/1.1"), BAD_REQUEST),
    "a tab in the line": (get(first=b"GET\t/ HTTP/1.1"), BAD_REQUEST),
    "a form feed in the line": (get(first=b"GET\x0c/ HTTP/1.1"), BAD_REQUEST),
    "no target": (get(first=b"GET  HTTP/1.1"), BAD_REQUEST),
    "a blank within the target": (get(first=b"GET /a b HTTP/1.1"), BAD_REQUEST),
    "a fragment": (get(first=b"GET /a#b HTTP/1.1"), BAD_REQUEST),
    "a quote in the target": (get(first=b'GET /" HTTP/1.1'), BAD_REQUEST),
    "angles in the target": (get(first=b"GET /<a> HTTP/1.1"), BAD_REQUEST),
    "a backslash in the target": (get(first=b"GET /a\\b HTTP/1.1"), BAD_REQUEST),
    "a NUL in the target": (get(first=b"GET /\0 HTTP/1.1"), BAD_REQUEST),
    "a DEL in the target": (get(first=b"GET /\x7f HTTP/1.1"), BAD_REQUEST),
    "raw UTF-8 in the target": (get(first=b"GET /\xc3\xa9 HTTP/1.1"), BAD_REQUEST),
    "* with GET": (get(first=b"GET * HTTP/1.1"), BAD_REQUEST),
    "** with OPTIONS": (get(first=b"OPTIONS ** HTTP/1.1"), BAD_REQUEST),
    "authority form": (get(first=b"GET x:80 HTTP/1.1"), BAD_REQUEST),
    "a relative target": (get(first=b"GET a/b HTTP/1.1"), BAD_REQUEST),
    "a query alone": (get(first=b"GET ?a HTTP/1.1"), BAD_REQUEST),
    "another scheme": (get(first=b"GET ftp://x/ HTTP/1.1"), BAD_REQUEST),
    "absolute form with userinfo": (get(first=b"GET http://u:p@x/ HTTP/1.1"), BAD_REQUEST),
    "absolute form without a host": (get(first=b"GET http:///a HTTP/1.1"), BAD_REQUEST),
    "absolute form with a port only": (get(first=b"GET http://:80/ HTTP/1.1"), BAD_REQUEST),
    "absolute form with a wrong host": (get(first=b"GET http://a|b/ HTTP/1.1"), BAD_REQUEST),
    "absolute form with one slash": (get(first=b"GET http:/x/ HTTP/1.1"), BAD_REQUEST),
    "a length and chunks (9112 6.1)": (post(b"Content-Length: 3", TE, body=ABC), BAD_REQUEST),
    "chunks and a length": (post(TE, b"Content-Length: 3", body=ABC), BAD_REQUEST),
    "a length of zero and chunks": (post(b"Content-Length: 0", TE, body=ABC), BAD_REQUEST),
    "two lengths (9112 6.3)": (post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), BAD_REQUEST),
    "two equal lengths": (post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), BAD_REQUEST),
    "a list of lengths": (post(b"Content-Length: 3, 3", body=b"abc"), BAD_REQUEST),
    "a list of lengths without blanks": (post(b"Content-Length: 1,1", body=b"a"), BAD_REQUEST),
    "+1": (post(b"Content-Length: +1", body=b"a"), BAD_REQUEST),
    "-1": (post(b"Content-Length: -1", body=b"a"), BAD_REQUEST),
    "1_0": (post(b"Content-Length: 1_0", body=b"a"), BAD_REQUEST),
    "1 0": (post(b"Content-Length: 1 0", body=b"a"), BAD_REQUEST),
    "0x1": (post(b"Content-Length: 0x1", body=b"a"), BAD_REQUEST),
    "1.0 as a length": (post(b"Content-Length: 1.0", body=b"a"), BAD_REQUEST),
    "1e1": (post(b"Content-Length: 1e1", body=b"a"), BAD_REQUEST),
    "digits of another script": (post(b"Content-Length: \xd9\xa1", body=b"a"), BAD_REQUEST),
    "a superscript": (post(b"Content-Length: \xb2", body=b"ab"), BAD_REQUEST),
    "a length with a no-break space": (post(b"Content-Length: 1\xa0", body=b"a"), BAD_REQUEST),
    "a length with a vertical tab": (post(b"Content-Length: \x0b1", body=b"a"), BAD_REQUEST),
    "a quoted length": (post(b'Content-Length: "1"', body=b"a"), BAD_REQUEST),
    "an empty length": (post(b"Content-Length:"), BAD_REQUEST),
    "a length of 2**64": (post(b"Content-Length: 18446744073709551616"), BAD_REQUEST),
    "a length of 19 digits": (post(b"Content-Length: 1000000000000000000"), BAD_REQUEST),
    "gzip, chunked (9112 6.1)": (post(b"Transfer-Encoding: gzip, chunked", body=ABC), CODING),
    "foo, chunked": (post(b"Transfer-Encoding: foo, chunked", body=ABC), CODING),
    "identity, chunked": (post(b"Transfer-Encoding: identity, chunked", body=ABC), CODING),
    ", chunked": (post(b"Transfer-Encoding: , chunked", body=ABC), CODING),
    "chunked twice (9112 6.1)": (post(b"Transfer-Encoding: chunked, chunked", body=ABC), BAD_REQUEST),
    "chunked twice in two fields": (post(TE, TE, body=ABC), BAD_REQUEST),
    "gzip and chunked in two fields": (post(b"Transfer-Encoding: gzip", TE, body=ABC), CODING),
    "chunked;a=b": (post(b"Transfer-Encoding: chunked;a=b", body=ABC), BAD_REQUEST),
    "chunked and a comma": (post(b"Transfer-Encoding: chunked,", body=ABC), BAD_REQUEST),
    "chunked and a tab": (post(TE + b"\t", body=ABC), BAD_REQUEST),
    "chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip", body=ABC), BAD_REQUEST),
    "gzip": (post(b"Transfer-Encoding: gzip", body=b"abc"), BAD_REQUEST),
    "identity": (post(b"Transfer-Encoding: identity", body=b"abc"), BAD_REQUEST),
    "xchunked": (post(b"Transfer-Encoding: xchunked", body=ABC), BAD_REQUEST),
    "'chunked'": (post(b"Transfer-Encoding: 'chunked'", body=ABC), BAD_REQUEST),
    "chunked after a vertical tab": (post(b"Transfer-Encoding: \x0bchunked", body=ABC), BAD_REQUEST),
    "no coding": (post(b"Transfer-Encoding:", body=ABC), BAD_REQUEST),
    "chunks in 1.0 (9112 6.1)": (post(TE, body=ABC, version=b"1.0"), BAD_REQUEST),
    "a blank before the colon (9112 5.1)": (get(b"A : b"), BAD_REQUEST),
    "a tab before the colon": (get(b"A\t: b"), BAD_REQUEST),
    "a blank before the colon of a length": (post(b"Content-Length : 3", body=b"abc"), BAD_REQUEST),
    "a blank before the colon of an offer": (get(b"Connection: upgrade", b"Upgrade : h2c"), BAD_REQUEST),
    "a colon first": (get(b": b"), BAD_REQUEST),
    "no colon": (get(b"Abc"), BAD_REQUEST),
    "a colon alone": (get(b":"), BAD_REQUEST),
    "a name of two words": (get(b"A b: c"), BAD_REQUEST),
    "a name with a bracket": (get(b"A[: c"), BAD_REQUEST),
    "a name with a slash": (get(b"A/b: c"), BAD_REQUEST),
    "a name in UTF-8": (get(b"\xc3\xa9: c"), BAD_REQUEST),
    "a name with a NUL": (get(b"A\0: c"), BAD_REQUEST),
    "a folded value (9112 5.2)": (get(b"A: b", b" c"), BAD_REQUEST),
    "a value folded by a tab": (get(b"A: b", b"\tc"), BAD_REQUEST),
    "a fold before the first field": (get(host=b" Host: x\r\n"), BAD_REQUEST),
    "a folded offer": (get(b"Connection: upgrade", b"Upgrade: h2c", b" Host: y"), BAD_REQUEST),
    "an offer first, and folded": (get(b" a", host=b"Upgrade: h2c\r\n"), BAD_REQUEST),
    "a NUL in a value (9110 5.5)": (get(b"A: b\0c"), BAD_REQUEST),
    "a NUL in an offer": (get(b"Connection: upgrade", b"Upgrade: \0"), BAD_REQUEST),
    "a CR in a value (9112 2.2)": (get(b"A: b\rc"), BAD_REQUEST),
    "a CR behind a value": (get(b"A: b\r"), BAD_REQUEST),
    "an LF in a value (9112 2.2)": (get(b"A: b\nC: d"), BAD_REQUEST),
    "a bell in a value": (get(b"A: \x07"), BAD_REQUEST),
    "a DEL in a value": (get(b"A: \x7f"), BAD_REQUEST),
    "lines that end in LF": (b"GET / HTTP/1.1\nHost: x\n\n", BAD_REQUEST),
    "a line that ends in CR": (b"GET / HTTP/1.1\rHost: x\r\n\r\n", BAD_REQUEST),
    "an empty line of LF alone": (b"GET / HTTP/1.1\r\nHost: x\r\n\n", BAD_REQUEST),
    "an LF before the request line": (b"\n" + get(), BAD_REQUEST),
    "a CR before the request line": (b"\r" + get(), BAD_REQUEST),
    "a blank line before the request line": (b" \r\n" + get(), BAD_REQUEST),
    "empty lines without end (9112 2.2)": (b"\r\n" * 33 + get(), BAD_REQUEST),
    "no fields at all": (b"GET / HTTP/1.1\r\n\r\n", BAD_REQUEST),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD_REQUEST),
    "JSON": (b'{"model": "m"}', BAD_REQUEST),
    "two different expectations": (
        post(b"Expect: 100-continue", b"Expect: x", b"Content-Length: 1", body=b"a"),
        BAD_REQUEST,
    ),
    "an expectation nobody knows (9110 10.1.1)": (post(b"Expect: 200-ok", b"Content-Length: 1", body=b"a"), EXPECT),
    "an expectation more": (post(b"Expect: 100-continue, x", b"Content-Length: 1", body=b"a"), EXPECT),
    "two keys": (get(b"Authorization: Bearer a", b"authorization: Bearer b"), BAD_REQUEST),
    "two x-api-keys": (get(b"x-api-key: a", b"X-Api-Key: a"), BAD_REQUEST),
    "two api-keys": (get(b"api-key: a", b"api-key: a"), BAD_REQUEST),
    "two x-goog-api-keys": (get(b"x-goog-api-key: a", b"x-goog-api-key: a"), BAD_REQUEST),
    "two types": (get(b"Content-Type: a/b", b"Content-Type: a/c"), BAD_REQUEST),
    "two content codings": (get(b"Content-Encoding: gzip", b"Content-Encoding: gzip"), BAD_REQUEST),
    "a chunk size with a sign": (post(TE, body=b"+3\r\nabc\r\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk size with 0x": (post(TE, body=b"0x3\r\nabc\r\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk size with _": (post(TE, body=b"0_3\r\nabc\r\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk size that is none": (post(TE, body=b"\r\nabc\r\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk size in LF": (post(TE, body=b"3\nabc\r\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk that ends in LF": (post(TE, body=b"3\r\nabc\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk longer than it says": (post(TE, body=b"3\r\nabcd\r\n0\r\n\r\n"), BAD_REQUEST),
    "a chunk with other bytes behind it": (post(TE, body=b"3\r\nabcXY0\r\n\r\n"), BAD_REQUEST),
    "a last chunk in LF": (post(TE, body=b"0\n\n"), BAD_REQUEST),
    "a trailer that is none": (post(TE, body=b"0\r\nabc\r\n\r\n"), BAD_REQUEST),
    **{f"Host {host!r}": (get(host=b"Host: " + host + b"\r\n"), BAD_REQUEST) for host in HOSTS_BAD},
}
