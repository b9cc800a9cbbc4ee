"""What does not go together is said with its variable; test_settings has the cases."""

from __future__ import annotations

from dataclasses import replace

from proxy.catalog.secret import Secret
from proxy.server.addresses import Address
from proxy.server.contradictions import contradictions
from proxy.server.settings import read_settings

SETTINGS = read_settings({"LLM_PROXY_DB": "off"})
EVERYWHERE = (Address("0.0.0.0", 9),)


def test_the_defaults_go_together() -> None:
    assert contradictions(SETTINGS) == []


def test_all_that_does_not_go_together_is_said() -> None:
    found = contradictions(replace(SETTINGS, listen=EVERYWHERE, admin_listen=EVERYWHERE, tls_cert="x"))
    assert [sentence.partition(":")[0] for sentence in found] == [
        "LLM_PROXY_LISTEN",
        "LLM_PROXY_ADMIN_LISTEN",
        "two listeners have the address 0.0.0.0",
        "LLM_PROXY_TLS_CERT and LLM_PROXY_TLS_KEY",
    ]


def test_a_token_lets_the_admin_listener_go_elsewhere() -> None:
    assert contradictions(replace(SETTINGS, admin_listen=EVERYWHERE, admin_token=Secret("x" * 16))) == []
