"""Orders: the name and the bytes are the same thing at both ends."""

from __future__ import annotations

import json

import pytest

from bench import orders


@pytest.mark.parametrize("order", [orders.unary(1024), orders.paced(50, 10), orders.burst(8), orders.IDLE])
def test_an_order_survives_its_name(order: orders.Order) -> None:
    assert orders.read_order(order.name) == order


@pytest.mark.parametrize("name", ["", "gpt-4o", "unary", "unary-x", "unary-1-2", "paced-0-5", "burst--1"])
def test_other_names_are_no_orders(name: str) -> None:
    assert orders.read_order(name) is None


def test_events_are_valid_and_of_the_promised_size() -> None:
    stamped = orders.EVENT_BEFORE + b"7" * orders.STAMP_DIGITS + orders.EVENT_AFTER
    for event in (orders.EVENT, stamped):
        assert len(event) == orders.EVENT_BYTES
        assert event.startswith(b"data: ") and event.endswith(b"\n\n")
        assert json.loads(event[6:])["choices"][0]["delta"]["content"]
    for event in (orders.ROLE, orders.FINISH, orders.USAGE):
        json.loads(event[6:])


@pytest.mark.parametrize("size", [1024, 65536])
def test_unary_bodies_have_their_size(size: int) -> None:
    body = orders.unary_body(size)
    assert len(body) == size == orders.unary(size).body_bytes
    assert json.loads(body)["choices"]


def test_a_request_carries_its_order() -> None:
    head, _, body = orders.request(orders.burst(8), "host:1", "key").partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head
    assert json.loads(body)["model"] == "burst-8"
    assert json.loads(body)["stream"] is True
