"""What each part of a configuration allows and the whole does not.

Lives here: `contradictions`. May not live here: reading the environment, warnings (settings).
How it works: one look at Settings that are complete; a sentence for each thing that does not go together, which names
its variable.
Doubted: passthrough counts as "without keys": the proxy can reach servers that ask for no credential, and so it is not
offered to other machines either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.policy.keys import AuthMode
from proxy.server.values import MAKE_KEY

if TYPE_CHECKING:
    from proxy.server.settings import Settings


def contradictions(settings: Settings) -> list[str]:
    """What each part allows and the whole does not."""
    errors: list[str] = []
    if settings.mode is not AuthMode.KEYS and not all(address.is_local for address in settings.listen):
        errors.append(
            "LLM_PROXY_LISTEN: other machines could use this proxy without a key: set LLM_PROXY_KEYS=name=key "
            f"(make one with: {MAKE_KEY}), or listen on 127.0.0.1"
        )
    if settings.admin_token is None and not all(address.is_local for address in settings.admin_listen):
        errors.append(
            "LLM_PROXY_ADMIN_LISTEN: other machines could change keys: set LLM_PROXY_ADMIN_TOKEN (make one with: "
            f"{MAKE_KEY}), or listen on 127.0.0.1; probes from elsewhere: LLM_PROXY_HEALTH_LISTEN"
        )
    listeners = [*settings.listen, *settings.admin_listen, *settings.health_listen]
    fixed = [address for address in listeners if address.port or address.path is not None]
    errors += [f"two listeners have the address {a}" for i, a in enumerate(fixed) if a in fixed[:i]]
    for provider in settings.snapshot.providers.values():
        host, port = provider.origin.host, provider.origin.port
        if any(address.is_reached_by(host, port) for address in listeners):
            errors.append(
                f"provider {provider.name}: its base URL is this proxy itself (port {port}): base URLs of the "
                "environment are for the way to providers; give the proxy's address to the clients only"
            )
    if (settings.tls_cert is None) != (settings.tls_key is None):
        errors.append("LLM_PROXY_TLS_CERT and LLM_PROXY_TLS_KEY: both or none")
    tls, head, sizes = settings.relay.tls, settings.relay.head, settings.relay.bytes
    if tls.key_file is not None and tls.cert_file is None:
        errors.append("LLM_PROXY_UPSTREAM_KEY: needs LLM_PROXY_UPSTREAM_CERT")
    if head.line > head.head:
        errors.append("LLM_PROXY_MAX_REQUEST_LINE: is larger than LLM_PROXY_MAX_HEAD, of which it is a part")
    if sizes.body > sizes.bodies:
        errors.append("LLM_PROXY_MAX_BODY: is larger than LLM_PROXY_MAX_BODIES, so such a body could never be held")
    return errors
