"""The way of a request head: who may come in, where it goes, which of its fields travel.

Lives here: `Passage`, and the lines that a head becomes upstream. May not live here: the decisions themselves (policy).
How it works: Host, target and framing are written anew and are unambiguous; carriers of keys, cookies and our own
fields stay here; everything else travels as it came, in its order and its letter case.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from proxy.catalog.mask import Mask
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Provider, Snapshot
from proxy.dialects.call import Call
from proxy.outcome import Failure, Kind, Phase, Receipt, Side
from proxy.policy.admission import Admission, Grant
from proxy.policy.demand import affordable
from proxy.policy.keys import KEY_CARRIERS
from proxy.policy.limits import Chain
from proxy.policy.plan import Plan, Target, plan
from proxy.policy.router import Route, route
from proxy.relay.body import RequestBody
from proxy.relay.local import OPTIONS, Ours, list_models
from proxy.relay.masking import scrub
from proxy.wire import encode
from proxy.wire.head import Framing, RequestHead

if TYPE_CHECKING:
    from proxy.relay.relay import Relay

# Looked up once: on Python 3.11 a member of an enum costs 0.12 us each time, and a request has thirty of them.
_NO_BODY: Final = Framing.NONE
_CHUNKED: Final = Framing.CHUNKED


MAX_TAGS: Final = 256  # bytes of x-llm-proxy-tags that are kept; what is cut off was not promised
_PARTS: Final = re.compile(rb"(?:^|&)\$?fields=")
_API_VERSION: Final = re.compile(rb"(?:^|&)api-version=(20[0-9]{2}-[0-9]{2})")


class Passage:
    """What policy has decided about a head, and the lines that it became upstream. On a kept connection the next head
    is usually the same but for its length; then all of this stands again, as long as the snapshot is the very same
    object, no key or limit has changed, and the key is valid (saves 9 us of a unary request)."""

    __slots__ = (
        "chain",
        "grant",
        "method",
        "names_parts",
        "path",
        "route",
        "snapshot",
        "sticky",
        "tags",
        "_carried",
        "_admission",
        "_lined",
        "_lines",
        "_model",
        "_plan",
        "_query",
        "_version",
    )

    def __init__(self, admission: Admission, snapshot: Snapshot, grant: Grant, route: Route, head: RequestHead) -> None:
        self.method = head.method.decode("ascii")
        self.path = head.path.decode("ascii")
        tags = head.get(b"x-llm-proxy-tags")
        self.tags = None if not tags else tags[:MAX_TAGS].decode("utf-8", "replace")
        self._carried = Mask([Secret(field[2].decode("latin-1")) for field in grant.carried]) if grant.carried else None
        self._admission = admission
        self._version = admission.version
        self.snapshot = snapshot
        self.grant = grant
        self.route = route
        self._query = head.query
        self.sticky = head.get(b"x-llm-proxy-sticky")
        self._model: str | None = None
        self._plan: Plan | None = None  # for `_model`
        # Google's system parameters: they name the parts of an answer that are wanted, and may leave out what it used.
        self.names_parts = route.dialect.name == "gemini" and (
            head.get(b"x-goog-fieldmask") is not None or _PARTS.search(unquote_to_bytes(head.query)) is not None
        )
        self.chain: Chain | None = None  # the limits that `_plan` falls under
        self._lines = b""
        self._lined: tuple[Target, Secret | None, bool] | None = None  # what they are for

    def is_valid(self, admission: Admission, snapshot: Snapshot, now: int) -> bool:
        """`now`: nanoseconds since the epoch."""
        is_same = self._admission is admission and self.snapshot is snapshot and self._version == admission.version
        return is_same and now < self.grant.until

    def mask_of(self, provider: Provider) -> Mask | None:
        """Hides what `provider` was told and the client may not see. A credential of its own it may."""
        return provider.field_mask if self.grant.passthrough else provider.mask

    def scrub(self, receipt: Receipt) -> None:
        """Hide what the provider was told and no log may show, a credential of the client's own included."""
        attempts = receipt.attempts
        if not attempts:
            return
        names = (attempts[0].provider,) if len(attempts) == 1 else {each.provider for each in attempts}
        for name in names:
            provider = self.snapshot.providers.get(name)
            mask = None if provider is None else self.mask_of(provider)
            if mask is not None:
                scrub(receipt, mask)
        if self._carried is not None:
            scrub(receipt, self._carried)

    def may_ask_for_usage(self, provider: Provider) -> bool:
        """Whether a stream of `provider` may be asked to report usage. Azure's older APIs refuse to be."""
        if not provider.takes_include_usage:
            return False
        version = _API_VERSION.search(self._query) if self._query else None
        return version is None or version[1] >= b"2024-09"

    def plan(self, call: Call | None, body: RequestBody, now: int) -> Plan | Failure:
        """Where `call` may go, as far as the key may ask for it; of all that it says only the model matters (plan).
        Keys and limits may have changed while the body came."""
        admission = self._admission
        if self._version != admission.version:
            refused = admission.refuses_now(self.grant, now)
            if refused is not None:
                return refused
            self._version, self._plan = admission.version, None
        model = None if call is None else call.model
        names_more = call is not None and call.names_more
        found: Plan | Failure | None = self._plan
        if found is None or self._model != model or names_more:
            found = self._plan_for(call, model, names_more)
        if isinstance(found, Failure) or found.alias is None or found.alias.cost is None:
            return found
        return affordable(found, call, body.whole(), self.snapshot, now / 1e9)

    def _plan_for(self, call: Call | None, model: str | None, names_more: bool) -> Plan | Failure:
        found = plan(self.route, call, self._query, self.snapshot)
        if not isinstance(found, Failure):
            found = self._permitted(found, model, names_more)
        if not isinstance(found, Failure):
            self.chain = self._admission.chain(self.grant, model, found)
            self._plan, self._model = found, model
        return found

    def _permitted(self, found: Plan, model: str | None, names_more: bool) -> Plan | Failure:
        """Those targets that the key may be used for. What a client brings as its own credential goes to one provider
        only: to the others it would be given away."""
        groups, refused = [], None
        first = found.groups[0][0].provider
        for group in found.groups:
            may = []
            for target in group:
                if self.grant.passthrough and target.provider is not first:
                    continue
                failure = self._admission.permitted(
                    self.grant, self.method, self.route.reads_body, model, target, self.snapshot.providers, names_more
                )
                if failure is None:
                    may.append(target)
                else:
                    refused = refused or failure
            groups.append(tuple(may))
        if refused is None and not self.grant.passthrough:
            return found
        left = tuple(filter(None, groups))
        return found._replace(groups=left) if left or refused is None else refused

    def upstream_head(
        self,
        head: RequestHead,
        target: Target,
        name: bytes,
        size: int | None,
        identity: bool,
        credential: Secret | None,
    ) -> bytes:
        """`size` is that of a body held in full, None for one that streams through under the client's own framing.
        `identity` asks for an answer without content coding, so that its events can be read."""
        lined = self._lined
        if lined is None or not (lined[0] is target and lined[1] is credential and lined[2] is identity):
            self._lines = upstream_lines(head, target, self.grant, name, identity, credential)
            self._lined = target, credential, identity
        return self._lines + framing_lines(head, size)


def pass_in(relay: Relay, head: RequestHead, grant: Grant) -> Passage | Failure | Ours:
    """Where a head that was admitted goes, or what it is answered here."""
    if any(relay.name in value for name, _, value in head.fields if name == b"via"):
        return Failure(Side.CLIENT, Phase.ADMIT, Kind.LOOP, "this request came through here before")
    if head.method == b"OPTIONS" and (head.path == b"*" or head.get(b"max-forwards") == b"0"):
        return OPTIONS
    ours = list_models(relay, head, grant)
    if ours is not None:
        return ours
    chosen = route(head.method, head.path, head.query, relay.snapshot, head.get)
    if isinstance(chosen, Failure):
        return chosen
    return Passage(relay.admission, relay.snapshot, grant, chosen, head)


# Expect has been answered here; Max-Forwards counts hops of OPTIONS and TRACE, which are not relayed as such.
_STAYS_HERE: Final = KEY_CARRIERS | {b"cookie", b"cookie2", b"expect", b"max-forwards"}


def upstream_lines(
    head: RequestHead, target: Target, grant: Grant, name: bytes, identity: bool, credential: Secret | None
) -> bytes:
    """All lines but those of the framing. `name` is ours, for Via; `credential` one of the provider's."""
    provider = target.provider
    set_by_us = {field for field, _ in provider.headers}
    parts = [
        b"%b %b HTTP/1.1\r\n" % (head.method, _request_target(target)),
        provider_lines(provider, None if grant.passthrough else credential),
        encode.field_lines(grant.carried),
    ]
    if identity:
        parts.append(b"accept-encoding: identity\r\n")
        set_by_us.add(b"accept-encoding")
    for lower, field, value in head.fields:
        if lower in _STAYS_HERE or lower in set_by_us or lower.startswith(b"x-llm-proxy-"):
            continue
        parts.append(b"%b: %b\r\n" % (field, value))
    parts.append(b"via: %b %b\r\n" % (head.version, name))
    if provider.origin.proxy is not None and provider.origin.scheme == "http":
        secret = provider.origin.proxy_authorization
        if secret is not None:
            parts.append(b"proxy-authorization: %b\r\n" % secret.reveal().encode("latin-1"))
    return b"".join(parts)


def provider_lines(provider: Provider, credential: Secret | None) -> bytes:
    """What each request to `provider` has: Host, configured fields, one of its credentials."""
    lines = [(b"host", provider.host_header)]
    lines += [(name, value.reveal().encode("latin-1")) for name, value in provider.headers]
    lines += credential_fields(provider, credential)
    return b"".join([b"%b: %b\r\n" % line for line in lines])


def credential_fields(provider: Provider, credential: Secret | None) -> list[tuple[bytes, bytes]]:
    """How a credential of the provider's is carried; the only place where it is revealed for the wire."""
    if credential is None or provider.auth == "none":
        return []
    value = credential.reveal().encode("latin-1")
    if provider.auth == "bearer":
        return [(b"authorization", b"Bearer " + value)]
    return [(provider.auth.encode("ascii"), value)]


def _request_target(target: Target) -> bytes:
    """Origin form, or absolute form towards an HTTP proxy (RFC 9112 section 3.2.2)."""
    provider = target.provider
    if provider.origin.proxy is not None and provider.origin.scheme == "http":
        return b"http://" + provider.host_header + target.target
    return target.target


def framing_lines(head: RequestHead, size: int | None) -> bytes:
    """The length or the coding, and the empty line that ends the head."""
    if size is None:
        if head.framing is _CHUNKED:
            return encode.CHUNKED + b"\r\n"
        size = head.length
    if size or head.framing is not _NO_BODY or head.method in (b"POST", b"PUT", b"PATCH"):
        return encode.content_length(size) + b"\r\n"
    return b"\r\n"
