"""Stages with several targets under one name, for the tests of what happens when they fail."""

from __future__ import annotations

from typing import Any

from proxy.catalog.snapshot import Origin
from tests.relay import stage as s
from tests.relay.stage import Peer, Stage

A, B, C = (Origin("http", f"{name}.test", 80) for name in "abc")
TWO = "m = a/one | b/two"
BUSY = b"503 Service Unavailable"
ERROR = b'{"error":{"message":"no","type":"server_error"}}'


def provider(name: str, **changes: Any) -> Any:
    origin = Origin("http", f"{name}.test", 80)
    return s.openai_provider(name=name, origin=origin, host_header=f"{name}.test".encode(), **changes)


def stage_of(models: str = TWO, *, retries: int = 2, names: str = "abc", **options: Any) -> Stage:
    return Stage(models=models, retries=retries, providers=tuple(map(provider, names)), **options)


def asks(stage: Stage, model: bytes = b"m", *, stream: bool = False) -> Peer:
    client = stage.client()
    more = b',"stream":true' if stream else b""
    client.says(s.ask(body=b'{"model":"%b"%b,"messages":[]}' % (model, more)))
    return client


def tried(stage: Stage) -> list[tuple[str, str | None, int, str | None, str]]:
    """(provider, model, status, kind of failure, why) of each attempt of the receipt that was written last."""
    return [(a.provider, a.model, a.status, s.kind_of(a.failure), a.why) for a in stage.receipt().attempts]
