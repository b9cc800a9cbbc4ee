"""What was spent, by the admin API: questions to the ledger, and what kills left reserved.

Lives here: `SpendingPages`: the routes /usage, /exchanges and below /lost. May not live here: SQL (ledger), tables for
people (accounts).
How it works: a thread asks, with a connection of its own that is closed again; no statement takes longer than SECONDS.
Words for moments are those of `llm-proxy usage`.
Doubted: receipts that wait beside the ledger are in no sum; `llm-proxy ledger check` knows them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from proxy.admin import documents
from proxy.admin.keys import changing, opened, page_size
from proxy.admin.members import About, Form, Member, Refused
from proxy.admin.routes import AdminAnswer, AdminRequest, Later, Route, json_answer
from proxy.ledger.period import moment
from proxy.ledger.reader import GROUPINGS, LedgerReader, TooSlow, Wanted
from proxy.ledger.schema import LedgerUnusable
from proxy.outcome import Kind
from proxy.policy.rules import dollars

SECONDS = 5.0  # of one question: a million rows take 2 s, by tag 6
PAGE = 1000  # exchanges in one answer
_USUAL_PAGE = 100
_DAY = "today"  # when nothing is said, as `llm-proxy usage` has it

_CHOICE = (
    Member("since", Form.TEXT, "Begun then or later: today, 24h, 7d, 2026-11-01, RFC 3339, or all."),
    Member("until", Form.TEXT, "Begun before then."),
    Member("key", Form.TEXT, "Only requests with this key."),
    Member("provider", Form.TEXT, "Only of this provider."),
    Member("model", Form.TEXT, "Only this model, as it was asked for, served, or an alias."),
    Member("tag", Form.TEXT, "Only requests with this tag."),
)
_USAGE = ("since", "until", "days", "by", "groups", "total", "has_more")


class SpendingPages:
    """`path`: of the ledger; None: there is none. `changed` has the server look, in the loop."""

    def __init__(
        self,
        path: str | None,
        changed: Callable[[], None],
        note: Callable[..., None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._changed = changed
        self._note = note
        self._now = now

    def routes(self) -> list[Route]:
        by = Member("by", Form.TEXT, f"One or more of {', '.join(GROUPINGS)}, with commas between them (model).")
        limit = Member(
            "limit", Form.NUMBER, f"How many at most; {_USUAL_PAGE} if not said, and never more than {PAGE}."
        )
        every = Member("all", Form.FLAG, "Also those that are settled.")
        spent = (
            Member("micros", Form.NUMBER, "Microdollars that the request really cost; 0 if not said."),
            Member("tokens", Form.NUMBER, "Tokens that it really used; 0 if not said."),
        )
        last = "The last exchanges, in the order in which they were written."

        def route(method: str, path: str, do: Any, about: About) -> Route:
            after = self._changed if method == "POST" else None
            return Route(method, path, lambda request: Later(partial(do, request), after), True, about)

        return [
            route("GET", "/usage", self._usage, About(f"Sums; of {_DAY} if not said.", _USAGE, (by, *_CHOICE))),
            route("GET", "/exchanges", self._exchanges, About(last, ("exchanges",), (limit, *_CHOICE))),
            route("GET", "/lost", self._lost, About("What a kill left reserved.", ("lost",), (every,))),
            route("POST", "/lost/{id}/settle", self._settle, About("What it really was.", ("settled",), (), spent)),
        ]

    def _usage(self, request: AdminRequest) -> AdminAnswer:
        by = list(dict.fromkeys(request.asked.get("by", "model").split(",")))
        if not set(by) <= set(GROUPINGS):
            raise Refused(
                Kind.BAD_REQUEST, f"by must be one or more of {', '.join(GROUPINGS)}, with commas between them."
            )
        wanted = self._wanted(request, _DAY)
        with self._reader() as ledger:
            totals = ledger.totals(by, wanted)
        document = documents.usage(by, wanted, totals, is_local=False)
        for sums in (*document["groups"], document["total"]):
            _put_in_dollars(sums, "cost", "reported_cost")
        return json_answer(200, document)

    def _exchanges(self, request: AdminRequest) -> AdminAnswer:
        most = page_size(request, PAGE) if "limit" in request.asked else _USUAL_PAGE
        with self._reader() as ledger:
            rows = ledger.latest(most, self._wanted(request, "all"))
        for row in rows:
            del row["rowid"]
            row["started_at"] = documents.moment(row["started_at"])
            _put_in_dollars(row, "cost")
        return json_answer(200, {"exchanges": rows})

    def _lost(self, request: AdminRequest) -> AdminAnswer:
        with opened(self._path) as store:
            holds = store.lost(unsettled_only=request.asked.get("all") != "true")
        return json_answer(200, {"lost": list(map(_hold, holds))})

    def _settle(self, request: AdminRequest) -> AdminAnswer:
        number = request.named["id"]
        if not (number.isascii() and number.isdecimal()) or len(number) > 15:
            raise Refused(Kind.NOT_FOUND, "What was lost has a number: GET /lost shows it.")
        micros, tokens = request.said.get("micros", 0), request.said.get("tokens", 0)
        with changing(self._path, missing=Kind.NOT_FOUND) as store:
            holds = store.settle_lost([int(number)], micros, tokens)
        self._note("info", f"the lost request {number} was settled by the admin API", micros=micros, tokens=tokens)
        return json_answer(200, {"settled": list(map(_hold, holds))})

    def _wanted(self, request: AdminRequest, usual: str) -> Wanted:
        asked = request.asked
        times: dict[str, float | None] = {}
        for name, text in (("since", asked.get("since", usual)), ("until", asked.get("until", "all"))):
            try:
                times[name] = moment(text, self._now())
            except ValueError as error:
                raise Refused(Kind.BAD_REQUEST, f"{name}: {error}.") from None
        since, until = times["since"], times["until"]
        if since is not None and until is not None and since >= until:
            raise Refused(Kind.BAD_REQUEST, "since is not before until.")
        return Wanted(since, until, asked.get("key"), asked.get("provider"), asked.get("model"), asked.get("tag"))

    @contextmanager
    def _reader(self) -> Iterator[LedgerReader]:
        if self._path is None:
            raise Refused(Kind.NOT_FOUND, "No ledger is kept here (LLM_PROXY_DB=off), and so there is nothing to see.")
        try:
            with LedgerReader(self._path, SECONDS) as ledger:
                yield ledger
        except TooSlow as error:
            raise Refused(Kind.OVERLOADED, f"{error}: ask for less of it (since, until).") from None
        except LedgerUnusable as error:
            raise Refused(Kind.OVERLOADED, f"{error}.") from None


def _hold(row: Any) -> dict[str, Any]:
    document = documents.hold(row)
    for name in ("micros", "settled_micros"):
        document[name.replace("micros", "usd")] = None if document[name] is None else dollars(document[name])
    return document


def _put_in_dollars(document: dict[str, Any], *names: str) -> None:
    """Beside microdollars the same as people read it."""
    for name in names:
        micros = document[f"{name}_micros"]
        document[f"{name}_usd"] = None if micros is None else dollars(micros)
