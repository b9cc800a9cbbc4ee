"""What a configuration means, for people and for programs.

Lives here: Settings -> a document (`as_document`) and its text (`as_text`), where a model name goes (`routes_of`). May
not live here: printing, reading configuration. No secret stands in what comes out: only fingerprints do, and of further
header fields only the names.
"""

from __future__ import annotations

import math
from typing import Any

from proxy.catalog.alias_text import options_text, target_text, targets_text
from proxy.catalog.aliases import Alias
from proxy.catalog.families import FAMILIES
from proxy.catalog.snapshot import Provider
from proxy.dialects.call import Call
from proxy.outcome import Failure
from proxy.policy.keys import AuthMode, Disconnect
from proxy.policy.plan import plan
from proxy.policy.router import route
from proxy.policy.rules import written
from proxy.server.settings import Settings
from proxy.server.table import NUMBERS, TIMEOUTS, size_text

_AUTH = {
    AuthMode.KEYS: "clients need one of the keys below",
    AuthMode.PASSTHROUGH: "clients bring the provider's own credential; web pages are refused",
    AuthMode.OFF: "anybody on this machine, without a key; web pages are refused",
}
# One path for each format that a client may speak; Gemini's has the model in it.
_FORMATS = {"openai": b"/v1/chat/completions", "anthropic": b"/v1/messages", "ollama": b"/api/chat"}
_DIALECTS = {"openai": "openai-chat", "anthropic": "anthropic-messages", "ollama": "ollama", "gemini": "gemini"}


def as_document(settings: Settings, models: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that `settings` decides, as plain values, and where each of `models` would go."""
    scheme = "https" if settings.tls_cert else "http"
    default = settings.snapshot.default
    document: dict[str, Any] = {
        "listen": [_address(scheme, address) for address in settings.listen],
        "admin_listen": [_address("http", address) for address in settings.admin_listen],
        "admin_token": f"#{settings.admin_token.fingerprint}" if settings.admin_token else None,
        "health_listen": [_address("http", address) for address in settings.health_listen],
        "auth": settings.mode.value,
        "keys": {name: f"#{secret.fingerprint}" for name, secret in settings.keys.items()},
        "keys_in_ledger": settings.ledger is not None and settings.mode is AuthMode.KEYS,
        "rules": {scope: written(rules) for scope, rules in settings.rules.items()},
        "budget_zone": settings.calendar.zone,
        "hosts": sorted(settings.hosts),
        "log": settings.log,
        "ledger": settings.ledger.path if settings.ledger else None,
        "ledger_keeps": _keeps(settings),
        "clears_env": settings.clears_env,
        "response_headers": settings.relay.shows_timing,
        "prices": settings.snapshot.prices.version if settings.snapshot.prices else None,
        "metering": _metering(settings),
        "disconnect": {
            "default": _policy(settings.relay.disconnect),
            **{name: _policy(policy) for name, policy in settings.relay.disconnect_by_key.items()},
        },
        "providers": [_provider(provider, settings) for provider in settings.snapshot.providers.values()],
        "default_provider": default.name if default else None,
        "aliases": [_alias(alias, settings) for alias in settings.snapshot.aliases.values()],
        "retries": settings.relay.retries,
        "retry_share": settings.relay.retry_share,
        "timeouts": {name: settings.relay.seconds[limit] for name, limit in TIMEOUTS.items()},
        "limits": {name: getattr(getattr(settings.relay, row.part), row.field) for name, row in NUMBERS.items()},
        "warnings": list(settings.warnings),
    }
    if models:
        document["routes"] = {model: routes_of(model, settings) for model in models}
    return document


def routes_of(model: str, settings: Settings) -> dict[str, str]:
    """For each format of a client, the URL a call for `model` goes to, or the targets that it has as an alias, or why
    it goes nowhere."""
    alias = settings.snapshot.aliases.get(model)
    if alias is not None:
        return _routes_of_alias(alias, settings)
    found = {}
    paths = dict(_FORMATS)
    try:
        paths["gemini"] = b"/v1beta/models/" + model.encode("ascii") + b":generateContent"
    except UnicodeEncodeError:
        pass  # such a name has no place in a path
    for name, path in paths.items():
        way = route(b"POST", path, b"", settings.snapshot, lambda _: None)
        planned = way if isinstance(way, Failure) else plan(way, Call(model), b"", settings.snapshot)
        if isinstance(planned, Failure):
            found[name] = planned.detail
        else:
            (target,) = planned.targets
            renamed = f" as {target.model}" if target.model is not None else ""
            found[name] = (
                f"{target.provider.name}{renamed}: {_origin(target.provider)}{target.target.decode('latin-1')}"
            )
    return found


def _routes_of_alias(alias: Alias, settings: Settings) -> dict[str, str]:
    spoken = _spoken(alias, settings)
    none = f"no target of {alias.name} speaks this, they speak {_formats(spoken)}"
    return {name: " | ".join(", ".join(group) for group in groups) or none for name, groups in spoken.items()}


def _formats(spoken: dict[str, Any]) -> str:
    """The formats that have targets."""
    return ", ".join(name for name, targets in spoken.items() if targets)


def _spoken(alias: Alias, settings: Settings) -> dict[str, list[list[str]]]:
    """For each format of a client the targets that speak it, by groups as they are tried."""
    families = {name: FAMILIES[provider.family] for name, provider in settings.snapshot.providers.items()}
    found = {}
    for name, dialect in _DIALECTS.items():
        groups = [
            [target_text(choice) for choice in group if dialect in families[choice.provider].dialects]
            for group in alias.groups
        ]
        found[name] = [group for group in groups if group]
    return found


def as_text(document: dict[str, Any]) -> str:
    """The document of `as_document` for a terminal."""
    lines = [f"listen     {', '.join(document['listen'])}"]
    token = f", with the token {document['admin_token']}" if document["admin_token"] else ", without a token"
    admin = ", ".join(document["admin_listen"])
    lines.append(f"admin      {admin + token if admin else 'off'}")
    lines.append(f"health     {', '.join(document['health_listen']) or 'off'}")
    lines.append(f"auth       {document['auth']}: {_AUTH[AuthMode(document['auth'])]}")
    lines += [f"  key      {name} {fingerprint}" for name, fingerprint in document["keys"].items()]
    if document["keys_in_ledger"]:
        lines.append("           and those in the ledger, with limits of their own: `llm-proxy keys list`")
    if document["rules"]:
        lines.append(f"budgets    have the days of {document['budget_zone']}")
        lines += [f"  {scope}: {line}" for scope, line in document["rules"].items()]
    if document["hosts"]:
        lines.append(f"hosts      {', '.join(document['hosts'])}")
    if document["clears_env"]:
        lines.append("secrets    are cleared from the environment by a second start")
    lines.append(f"log        {document['log']}")
    keeps = f", keeps {document['ledger_keeps']}" if document["ledger"] else ""
    lines.append(f"ledger     {document['ledger'] or 'off'}{keeps}")
    lines.append(f"usage      {document['metering']}; prices {document['prices']}")
    policies = [f"{name}={policy}" for name, policy in document["disconnect"].items() if name != "default"]
    lines.append(f"leaving    {', '.join([document['disconnect']['default'], *policies])}")
    lines.append("providers" if document["providers"] else "providers  none: every request is answered with 404")
    for provider in document["providers"]:
        lines.append(f"  {provider['name']:<11}{provider['url']}  ({provider['family']}, {provider['credential']})")
        more = [f"fields {', '.join(provider['headers'])}"] if provider["headers"] else []
        more += [f"prices {provider['prices'] or 'none at this address, but for those of LLM_PROXY_PRICES'}"]
        more += ["usage asked for where clients do not"] if provider["include_usage"] else []
        more += [f"through proxy {provider['proxy']}"] if provider["proxy"] else []
        more += [f"models {' '.join(provider['models'])}"] if provider["models"] else []
        lines += [f"             {line}" for line in more]
    lines.append(
        f"default    {document['default_provider'] or 'none: where several speak a format, write provider/model'}"
    )
    lines += ["aliases"] if document["aliases"] else []
    for alias in document["aliases"]:
        lines.append(f"  {alias['name']:<11} {alias['targets']}")
        more = [alias["options"]] if alias["options"] else []
        more.append(f"for clients of {_formats(alias['formats'])}")
        silent = ", ".join(name for name, targets in alias["formats"].items() if not targets)
        more += [f"no target speaks {silent}"] if silent else []
        lines += [f"              {line}" for line in more]
    share = f"{document['retry_share'] * 100:g} % of requests"
    lines.append(f"retries    {document['retries']} after the first attempt, for at most {share}")
    lines.append("timeouts   in seconds, 0 = none")
    lines += [f"  {name:<36}{seconds:g}" for name, seconds in document["timeouts"].items()]
    lines.append("limits")
    for name, value in document["limits"].items():
        shown = size_text(value) if NUMBERS[name].unit == "bytes" else f"{value:g}"
        lines.append(f"  {name:<36}{shown}")
    for model, ways in document.get("routes", {}).items():
        lines.append(f"model      {model}")
        lines += [f"  {f'{name} client':<18}{way}" for name, way in ways.items()]
    return "\n".join(lines)


def _alias(alias: Alias, settings: Settings) -> dict[str, Any]:
    spoken = _spoken(alias, settings)
    return {
        "name": alias.name,
        "targets": targets_text(alias),
        "options": options_text(alias),
        "groups": [[choice._asdict() for choice in group] for group in alias.groups],
        "retries": alias.retries,
        "seconds": {limit.value: seconds for limit, seconds in alias.seconds.items()},
        "hedge": alias.hedges,
        "resume": alias.resumes,
        "cost_micros": alias.cost,
        "formats": {name: [target for group in groups for target in group] for name, groups in spoken.items()},
    }


def _keeps(settings: Settings) -> str:
    ledger = settings.ledger
    if ledger is None:
        return "nothing"
    bounds = [f"{ledger.days:g} days"] if ledger.days else []
    bounds += [size_text(ledger.max_bytes)] if ledger.max_bytes else []
    return " and ".join(bounds) or "everything"


def _metering(settings: Settings) -> str:
    if not settings.relay.meters:
        return "off"
    return "reported, counted where it is not" if settings.counts else "reported, estimated where it is not"


def _prices(provider: Provider, settings: Settings) -> str | None:
    """Whose built-in prices hold for it; None: at this address nobody's, which leaves those of a user's file."""
    prices = settings.snapshot.prices
    return None if prices is None else prices.vendor_of(provider.name, provider.origin.host)


def _policy(policy: Disconnect) -> str:
    if not policy.drains:
        return "cancel"
    return "drain" if policy.seconds == math.inf else f"drain:{policy.seconds:g}"


def _provider(provider: Provider, settings: Settings) -> dict[str, Any]:
    credential = "no credential"
    if settings.mode is AuthMode.PASSTHROUGH:
        credential = "the client's credential"
    elif provider.credential is not None and provider.auth != "none":
        credential = f"{provider.auth} {', '.join(f'#{each.fingerprint}' for each in provider.credentials)}"
    elif provider.has_credential:
        credential = "in its headers"
    proxy = provider.origin.proxy
    return {
        "name": provider.name,
        "family": provider.family,
        "url": _origin(provider) + provider.base.decode("latin-1"),
        "credential": credential,
        "headers": [name.decode() for name, _ in provider.headers],
        "proxy": f"{proxy[0]}:{proxy[1]}" if proxy else None,
        "models": [f"{start}*" for start, owner in settings.snapshot.owners if owner == provider.name],
        "dialects": sorted(FAMILIES[provider.family].dialects),
        "include_usage": provider.takes_include_usage,
        "prices": _prices(provider, settings),
    }


def _origin(provider: Provider) -> str:
    return f"{provider.origin.scheme}://{provider.host_header.decode('latin-1')}"


def _address(scheme: str, address: Any) -> str:
    return str(address) if address.path is not None else f"{scheme}://{address}"
