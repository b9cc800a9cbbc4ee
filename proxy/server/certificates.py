"""Certificates: what a TLS listener shows, and whether the files that settings name can be used.

Lives here: `client_tls`, `show_from_now_on`, `check_certificates`. May not live here: TLS towards providers
(relay/connect).
"""

from __future__ import annotations

import ssl

from proxy.server.settings import Settings


def client_tls(settings: Settings) -> ssl.SSLContext | None:
    """What clients are met with; None where they come in the clear."""
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    return context


def show_from_now_on(listening: ssl.SSLContext, context: ssl.SSLContext) -> None:
    """Handshakes that begin on the context `listening` use this one. Loading the new files into the old context would
    leave it with half of them if the other half were wrong, and with both keys where these are of two kinds."""
    # Called for each hello, with or without a name in it; what runs keeps what it was met with.
    listening.sni_callback = lambda connection, name, was: setattr(connection, "context", context)


def check_certificates(settings: Settings) -> list[str]:
    """What is wrong with the certificate files, by loading them as a worker would."""
    # The empty passphrase makes an encrypted key an error: otherwise OpenSSL would ask the terminal for one.
    errors: list[str] = []
    if settings.tls_cert is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, "")
        except (OSError, ValueError):
            errors.append("LLM_PROXY_TLS_CERT and LLM_PROXY_TLS_KEY: not a certificate chain and its key in PEM")
    tls, context = settings.relay.tls, ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca_file is not None:
        try:
            context.load_verify_locations(tls.ca_file)
        except (OSError, ValueError):
            errors.append("LLM_PROXY_UPSTREAM_CA: holds no CA certificates in PEM")
    if tls.cert_file is not None:
        try:
            context.load_cert_chain(tls.cert_file, tls.key_file, "")
        except (OSError, ValueError):
            errors.append("LLM_PROXY_UPSTREAM_CERT: not a certificate and its key in PEM")
    return errors
