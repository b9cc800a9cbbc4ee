"""What is kept of requests is bounded, the newest stay."""

from __future__ import annotations

import pytest

from proxy.simulator.seen import MOST_SEEN, SeenRequest, forget_bodies, remember


def request(number: int, body: bytes = b"") -> SeenRequest:
    return SeenRequest(number, 1, "POST", "/", [(b"X-One", b"1"), (b"x-one", b"2")], body)


def test_the_oldest_requests_are_forgotten() -> None:
    requests: list[SeenRequest] = []
    for number in range(MOST_SEEN + 5):
        remember(requests, request(number))
    assert [requests[0].number, requests[-1].number, len(requests)] == [5, MOST_SEEN + 4, MOST_SEEN]


def test_the_oldest_bodies_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.simulator.seen.MOST_SEEN_BYTES", 10)
    requests = [request(number, b"1234") for number in range(4)]
    forget_bodies(requests, requests[3])
    assert [seen.body for seen in requests] == [b"", b"", b"1234", b"1234"]
    requests[0].body = b"12345678901234"
    forget_bodies(requests, requests[0])
    assert [len(seen.body) for seen in requests] == [14, 0, 0, 0]


def test_headers_are_found_in_any_letter_case() -> None:
    assert request(1).get("X-ONE") == "1"
    assert request(1).get("x-two") is None
