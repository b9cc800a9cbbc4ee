"""nginx and HAProxy: what their configurations say with TLS and without, wherever they are installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.arena import PLAIN, Absent, Start, Tls
from bench.servers import start_haproxy, start_haproxy_tls, start_nginx, start_nginx_tls

StartTls = Callable[[Tls, int, Path, str], Start]


def test_they_may_be_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.arena.shutil.which", lambda name, path=None: None)
    for start in (start_nginx, start_haproxy):
        with pytest.raises(Absent, match="not installed"):
            start(1, tmp_path, "key")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[StartTls, Tls], str]:
    """The configuration that is written for a program, which need not be there."""
    monkeypatch.setattr("bench.arena.shutil.which", lambda name, path=None: f"/usr/sbin/{name}")

    def written(start: StartTls, tls: Tls) -> str:
        begun = start(tls, 4711, tmp_path, "key")
        text = Path(begun.command[-1]).read_text()
        assert str(begun.port) in text
        assert begun.probe is not None and begun.probe.path in text
        return text

    return written


@pytest.mark.parametrize(
    ("start", "client", "upstream"),
    [
        (start_nginx_tls, ["4096 ssl;", "ssl_certificate "], ["https://provider", "proxy_ssl_verify on"]),
        (start_haproxy_tls, ["4096 ssl crt"], ["ssl verify required ca-file"]),
    ],
)
def test_tls_is_on_the_sides_that_are_asked_for(
    config: Callable[[StartTls, Tls], str], start: StartTls, client: list[str], upstream: list[str]
) -> None:
    for tls in (PLAIN, Tls(client=True), Tls(upstream=True), Tls(client=True, upstream=True)):
        text = config(start, tls)
        assert "127.0.0.1:4711" in text
        assert all((word in text) == tls.client for word in client)
        assert all((word in text) == tls.upstream for word in upstream)
