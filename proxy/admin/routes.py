"""What the admin listener answers.

Lives here: the request and the answer as values, the one table of routes, the error shape, the two probes.
May not live here: sockets, HTTP framing (session); how the process finds out whether it is ready (server).
How it works: `RouteTable.answer` decides in one synchronous step; handlers are plain functions of a request. Unknown
paths get 404, known ones with another method 405 and `allow`. HEAD is answered wherever GET is. What must not stop the
loop (SQLite) is a `Later`: a function that a thread calls (threads), while the connection waits for it (session).
The token is asked for before anything that was sent is looked at.
Doubted: handlers cannot stream. Live events will need a third kind of answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

from proxy.admin.members import About, Refused, is_json, read_body, read_query
from proxy.outcome import Failure, Kind, Phase, Side, status_of

Fields = tuple[tuple[bytes, bytes], ...]


class AdminRequest(NamedTuple):
    """A request, whole. `fields` have lower-case names; `host` is b"" for HTTP/1.0 without one."""

    method: str
    path: str  # as sent, without the query
    query: str
    fields: Fields
    body: bytes = b""
    # What the table has read, by the route's own words: parts of the path, parameters, members of the body.
    named: Mapping[str, str] = {}
    asked: Mapping[str, str] = {}
    said: Mapping[str, Any] = {}

    @property
    def host(self) -> bytes:
        return self.get(b"host") or b""

    def get(self, name: bytes) -> bytes | None:
        """The value of the first field called `name` (lower case)."""
        return next((value for field, value in self.fields if field == name), None)


class AdminAnswer(NamedTuple):
    """An answer, whole. Content-Length, Date and Connection are the session's business."""

    status: int
    body: bytes
    media_type: bytes = b"application/json"
    fields: Fields = ()


class Later(NamedTuple):
    """An answer that takes a thread. `after` is called in the loop when `make` has returned, before the answer goes
    out, and also if its client has left."""

    make: Callable[[], AdminAnswer]
    after: Callable[[], None] | None = None


Handler = Callable[[AdminRequest], AdminAnswer | Later]


class Route(NamedTuple):
    method: str  # "GET" answers HEAD too
    path: str  # exact, but for segments such as {name}, which stand for one that is not empty
    handler: Handler
    needs_token: bool
    about: About = About("")

    @property
    def takes_body(self) -> bool:
        return self.method not in ("GET", "DELETE")


def json_answer(status: int, document: object, fields: Fields = ()) -> AdminAnswer:
    return AdminAnswer(status, orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE), fields=fields)


def error_answer(kind: Kind, message: str, fields: Fields = ()) -> AdminAnswer:
    """The error shape of this listener, with the status that `kind` has everywhere."""
    status = status_of(Failure(Side.CLIENT, Phase.HEAD, kind))
    return json_answer(status, {"error": {"code": kind.value, "message": message}}, fields)


class RouteTable:
    """All that one listener answers.

    `is_token` says whether the bearer token of a request is the one; it must compare in constant time. Without it no
    token is right, so that a route which needs one can never be open by omission.
    """

    __slots__ = ("_by_path", "_is_token", "_patterns", "routes")

    def __init__(self, routes: list[Route], is_token: Callable[[bytes], bool] = lambda token: False) -> None:
        self.routes = tuple(routes)
        self._is_token = is_token
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            methods = self._by_path.setdefault(route.path, {})
            if route.method in methods:
                raise ValueError(f"two routes for {route.method} {route.path}")
            methods[route.method] = route
        self._patterns = [(path.split("/"), methods) for path, methods in self._by_path.items() if "{" in path]

    def answer(self, request: AdminRequest) -> AdminAnswer | Later:
        """What `request` gets. Raises what a handler raises; the session makes 500 of that."""
        named, methods = self._found(request.path)
        if methods is None:
            return error_answer(Kind.NOT_FOUND, "There is nothing at this path.")
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = _allowed(methods)
            return error_answer(Kind.METHOD_NOT_ALLOWED, f"This path takes {allowed}.", ((b"allow", allowed.encode()),))
        if route.needs_token and not self._is_token(_bearer(request)):
            fields = ((b"www-authenticate", b"Bearer"),)
            return error_answer(Kind.UNAUTHORIZED, "This path needs the admin token as a bearer token.", fields)
        return _handled(route, request._replace(named=named))

    def _found(self, path: str) -> tuple[dict[str, str], dict[str, Route] | None]:
        """The routes at `path`, and the names in it."""
        if "{" not in path and path in self._by_path:
            return {}, self._by_path[path]
        segments = path.split("/")
        for pattern, methods in self._patterns:
            if len(pattern) == len(segments) and all(
                segment and (word == segment or word[:1] == "{")
                for word, segment in zip(pattern[1:], segments[1:], strict=True)
            ):
                return {word[1:-1]: unquote(each) for word, each in zip(pattern, segments) if word[:1] == "{"}, methods
        return {}, None


def _handled(route: Route, request: AdminRequest) -> AdminAnswer | Later:
    try:
        if route.needs_token:
            if route.takes_body and not is_json(request.get(b"content-type")):
                raise Refused(Kind.MEDIA_TYPE_UNSUPPORTED, "Send content-type: application/json, also without a body.")
            asked = read_query(request.query, route.about.query)
            said = read_body(request.body, route.about.body) if route.takes_body else {}
            request = request._replace(asked=asked, said=said)
        answer = route.handler(request)
    except Refused as refused:
        return error_answer(refused.kind, str(refused))
    return answer if isinstance(answer, AdminAnswer) else answer._replace(make=partial(_made, answer.make))


def _made(make: Callable[[], AdminAnswer]) -> AdminAnswer:
    try:
        return make()
    except Refused as refused:
        return error_answer(refused.kind, str(refused))


def _allowed(methods: dict[str, Route]) -> str:
    names = set(methods)
    if "GET" in names:
        names.add("HEAD")
    return ", ".join(sorted(names))


def _bearer(request: AdminRequest) -> bytes:
    scheme, _, token = (request.get(b"authorization") or b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def probes(readiness: Callable[[], list[str]]) -> list[Route]:
    """The two probes: all that the health listener serves, and part of every admin table. They need no token.

    /healthz is answered by the loop that carries the traffic, so it fails when that loop hangs. `readiness` returns the
    reasons, as sentences, why no traffic should be sent here now; empty = ready.
    """

    def healthz(request: AdminRequest) -> AdminAnswer:
        return json_answer(200, {"status": "ok"})

    def readyz(request: AdminRequest) -> AdminAnswer:
        reasons = readiness()
        if reasons:
            return json_answer(503, {"status": "not_ready", "reasons": reasons})
        return json_answer(200, {"status": "ready"})

    alive = About("Whether the process is alive.", ("status",))
    ready = About("Whether it should get requests; else 503, with the reasons.", ("status",))
    return [Route("GET", "/healthz", healthz, False, alive), Route("GET", "/readyz", readyz, False, ready)]


def health_table(readiness: Callable[[], list[str]]) -> RouteTable:
    """The table for LLM_PROXY_HEALTH_LISTEN: the probes and nothing else, whatever the admin listener learns later."""
    return RouteTable(probes(readiness))
