"""Several simulated providers behind one alias, and what was seen of a request that went through them.

Lives here: `Targets`: the providers a, b, ... with their sidecar, asking it, and its attempts as the receipt, the
ledger and the providers themselves tell them. May not live here: what should have happened (the tests).
How it works: each provider has a simulator of its own, whose faults are its default or `order`ed for single requests.
An alias names models that mean nothing to the simulator, so that only the provider's own faults count.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from proxy.simulator.faults import read
from proxy.simulator.replay import Replay
from tests.fakes.raw import RawAnswer, RawClient
from tests.whole.processes import Provider, Sidecar

TWO = "m = a/one | b/two"
JSON = ("content-type", "application/json")
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}

Begin = Callable[..., "Targets"]


class Row(NamedTuple):
    """An exchange in the ledger, and its attempts in order, by the names of their columns."""

    exchange: dict[str, Any]
    attempts: list[dict[str, Any]]


class Targets:
    """Providers a, b, ..., as many as there are `specs` for their defaults, and a sidecar before them that knows
    `models`. Names of further variables are given without LLM_PROXY_."""

    def __init__(
        self,
        start: Callable[..., Sidecar],
        provide: Callable[..., Provider],
        ledger: Path,
        *specs: str,
        models: str = TWO,
        family: str = "openai",
        replay: Replay | None = None,
        **more: str,
    ) -> None:
        self.providers = [provide(spec, replay=replay) for spec in specs]
        self.path = PATHS[family]
        self._ledger = ledger
        self._asked = 0
        base = "/v1" if family == "openai" else ""
        places = zip("ABCD", self.providers, strict=False)
        urls = {f"PROVIDER_{name}": f"{family}+http://127.0.0.1:{each.port}{base}" for name, each in places}
        ours = {"MODELS": models, "RETRIES": "2", "DB": str(ledger), **urls, **more}
        self.sidecar = start({f"LLM_PROXY_{name}": value for name, value in ours.items()})

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(self, *fields: tuple[str, str], model: str = "m", path: str = "", **members: Any) -> RawAnswer:
        """What a client gets for `model`, on a connection of its own. `members`: more of the body, such as stream."""
        with RawClient("127.0.0.1", self.sidecar.port) as client:
            return self.ask_on(client, *fields, model=model, path=path, **members)

    def ask_on(
        self, client: RawClient, *fields: tuple[str, str], model: str = "m", path: str = "", **members: Any
    ) -> RawAnswer:
        body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 50, **members}
        self._asked += 1
        client.request("POST", path or self.path, json.dumps(body).encode(), JSON, *fields, host="localhost")
        return client.recv_response("POST")

    def becomes(self, number: int, spec: str) -> None:
        """From here provider `number` has these faults."""
        self.providers[number].simulator.default = read(spec)

    # -- what was seen ------------------------------------------------------------------------------------------------

    @property
    def counts(self) -> list[int]:
        """Requests that each provider got."""
        return [len(each.seen()) for each in self.providers]

    def arrivals(self, number: int = 0) -> list[float]:
        """When each request came to provider `number`, in seconds since its first."""
        seen = [request.at for request in self.providers[number].seen()]
        return [at - seen[0] for at in seen]

    def receipts(self) -> list[dict[str, Any]]:
        """One for each request asked so far."""
        return self.sidecar.wait_for_receipts(self._asked)

    def receipt(self) -> dict[str, Any]:
        """The last one."""
        return self.receipts()[-1]

    def rows(self) -> list[Row]:
        """What the ledger holds in the end. Stops the sidecar."""
        self.sidecar.stop()
        with sqlite3.connect(f"{self._ledger.as_uri()}?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            exchanges = [dict(row) for row in connection.execute("select * from exchanges order by rowid")]
            attempts = [dict(row) for row in connection.execute("select * from attempts order by number")]
        connection.close()
        return [Row(each, [row for row in attempts if row["exchange_id"] == each["id"]]) for each in exchanges]


def tried(receipt: dict[str, Any]) -> list[str]:
    """Each attempt of a receipt in four words: provider/model, why it was made, the status (0: none), and how it ended:
    the kind of its failure, or "well"."""
    return [
        f"{each['provider']}/{each['model']} {each.get('why', 'first')} {each['status']} "
        f"{each['failure']['kind'] if each['failure'] else 'well'}"
        for each in receipt["attempts"]
    ]


def tried_in(row: Row) -> list[str]:
    """The same of the ledger."""
    return [
        f"{each['provider']}/{each['model']} {each['why']} {each['status']} {each['ended_kind'] or 'well'}"
        for each in row.attempts
    ]
