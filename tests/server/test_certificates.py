"""Certificate files, good and bad."""

from __future__ import annotations

from pathlib import Path

import trustme

from proxy.server.certificates import check_certificates, client_tls
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
