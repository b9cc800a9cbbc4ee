"""Certificate files, good and bad."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme

from proxy.server.certificates import check_certificates, client_tls, show_from_now_on
from proxy.server.settings import read_settings


def test_certificates_are_tried_before_anything_starts(tmp_path: Path) -> None:
    authority = trustme.CA()
    mine = authority.issue_cert("localhost")
    chain, key, ca, wrong = (str(tmp_path / name) for name in ("chain", "key", "ca", "wrong"))
    mine.cert_chain_pems[0].write_to_path(chain)
    mine.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(ca)
    Path(wrong).write_text("no certificate")

    def problems(**environ: str) -> list[str]:
        return check_certificates(read_settings(environ))

    good = {"LLM_PROXY_TLS_CERT": chain, "LLM_PROXY_TLS_KEY": key, "LLM_PROXY_UPSTREAM_CA": ca}
    good |= {"LLM_PROXY_UPSTREAM_CERT": chain, "LLM_PROXY_UPSTREAM_KEY": key}
    assert problems(**good) == []
    for name in good:
        assert len(problems(**good | {name: wrong})) == 1, name


def test_clients_are_met_in_the_clear_without_a_certificate() -> None:
    assert client_tls(read_settings({})) is None


def met_with(context: ssl.SSLContext, name: str | None) -> bytes:
    """The certificate that a client sees, without sockets."""
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    mine.check_hostname, mine.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = mine.wrap_bio(to_client, to_server, server_hostname=name)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
    return client.getpeercert(binary_form=True) or b""


def test_a_renewed_certificate_is_shown_also_with_a_key_of_another_kind(tmp_path: Path) -> None:
    authority = trustme.CA()
    contexts = []
    for kind in (trustme.KeyType.RSA, trustme.KeyType.ECDSA):
        mine = authority.issue_cert("localhost", key_type=kind)
        chain, key = str(tmp_path / "chain"), str(tmp_path / "key")
        mine.cert_chain_pems[0].write_to_path(chain)
        mine.private_key_pem.write_to_path(key)
        context = client_tls(read_settings({"LLM_PROXY_TLS_CERT": chain, "LLM_PROXY_TLS_KEY": key}))
        assert context is not None
        contexts.append(context)
    old, new = (met_with(context, "localhost") for context in contexts)
    assert old and new and old != new
    show_from_now_on(contexts[0], contexts[1])
    assert met_with(contexts[0], "localhost") == met_with(contexts[0], None) == new
