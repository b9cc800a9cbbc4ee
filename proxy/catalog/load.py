"""Environment -> Snapshot.

Lives here: which variables make which providers, and what may stand in them. May not live here: files, the process's
own environment (settings passes a mapping with the values of `_FILE` variables put in), listeners, keys of clients, the
grammar of aliases (alias_text).
How it works: a credential or a base URL makes a vendor's provider exist; `LLM_PROXY_PROVIDER_<NAME>` makes any other.
Everything is read before anything is refused, so that all errors come out at once. An empty variable is an unset one.
Sources: the clients openai, anthropic, google-genai and ollama for the names and default URLs of their vendors; WIRE 1.
Doubted: the default provider, where nobody names it, is OpenAI or the only one. Any other choice would send prompts to
a vendor that nobody chose.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from proxy.catalog.alias_text import parse_aliases
from proxy.catalog.families import AUTHS, FAMILIES, KEY_FIELDS
from proxy.catalog.secret import Secret
from proxy.catalog.snapshot import Origin, Provider, Snapshot
from proxy.catalog.urls import Base, ProxyRules, parse_base, parse_ollama_host
from proxy.wire.head import HOP_BY_HOP


class Loaded(NamedTuple):
    """What came of it. The snapshot is whole only if `errors` is empty."""

    snapshot: Snapshot
    errors: list[str]
    warnings: list[str]


class Vendor(NamedTuple):
    """A provider that everybody has the variables for. `keys` are tried in order, each with how it is carried."""

    family: str
    url: str
    keys: tuple[tuple[str, str], ...]
    url_variable: str | None
    owns: tuple[str, ...]  # beginnings of its model names


VENDORS: dict[str, Vendor] = {
    "openai": Vendor(
        "openai",
        "https://api.openai.com/v1",
        (("OPENAI_API_KEY", "bearer"),),
        "OPENAI_BASE_URL",
        (
            *("gpt-", "chatgpt-", "codex-", "computer-use-", "o1", "o3", "o4", "ft:gpt-", "text-embedding-"),
            *("text-moderation-", "omni-moderation-", "dall-e-", "davinci-", "babbage-", "sora-"),
        ),
    ),
    "anthropic": Vendor(
        "anthropic",
        "https://api.anthropic.com",
        (("ANTHROPIC_API_KEY", "x-api-key"), ("ANTHROPIC_AUTH_TOKEN", "bearer")),
        "ANTHROPIC_BASE_URL",
        ("claude-",),
    ),
    "gemini": Vendor(
        "gemini",
        "https://generativelanguage.googleapis.com",
        (("GOOGLE_API_KEY", "x-goog-api-key"), ("GEMINI_API_KEY", "x-goog-api-key")),
        "GOOGLE_GEMINI_BASE_URL",
        ("gemini-", "gemma-", "learnlm-", "imagen-", "veo-"),
    ),
    "xai": Vendor("openai", "https://api.x.ai/v1", (("XAI_API_KEY", "bearer"),), None, ("grok-",)),
    # No /v1: DeepSeek's own documents give this base URL for OpenAI's clients.
    "deepseek": Vendor("openai", "https://api.deepseek.com", (("DEEPSEEK_API_KEY", "bearer"),), None, ("deepseek-",)),
    "mistral": Vendor(
        "openai",
        "https://api.mistral.ai/v1",
        (("MISTRAL_API_KEY", "bearer"),),
        None,
        (
            *("mistral-", "ministral-", "magistral-", "codestral-", "devstral-", "pixtral-", "voxtral-"),
            *("open-mistral-", "open-mixtral-"),
        ),
    ),
    # Groq's names of Llama models are written llama-3..., Ollama's llama3...: both may exist side by side.
    "groq": Vendor("openai", "https://api.groq.com/openai/v1", (("GROQ_API_KEY", "bearer"),), None, ("llama-",)),
    "openrouter": Vendor("openai", "https://openrouter.ai/api/v1", (("OPENROUTER_API_KEY", "bearer"),), None, ()),
    "azure": Vendor(
        "azure",
        "",  # each customer has an address of its own
        (("AZURE_OPENAI_API_KEY", "api-key"), ("AZURE_OPENAI_AD_TOKEN", "bearer")),
        "AZURE_OPENAI_ENDPOINT",
        (),
    ),
    "ollama": Vendor(
        "ollama",
        "http://127.0.0.1:11434",
        (("OLLAMA_API_KEY", "bearer"),),
        "OLLAMA_HOST",
        ("llama2", "llama3", "llama4", "gpt-oss:", "qwen2", "qwen3", "phi3", "phi4", "gemma2", "gemma3"),
    ),
}

# Vendors' variables, for help and for hints about typing errors.
VARIABLES = tuple(
    variable
    for vendor in VENDORS.values()
    for variable in (*(name for name, _ in vendor.keys), vendor.url_variable)
    if variable is not None
)

PREFIX = "LLM_PROXY_PROVIDER_"
DEFAULT = "LLM_PROXY_DEFAULT_PROVIDER"
MODELS = "LLM_PROXY_MODELS"
_SECRET_OPTIONS = ("_API_KEY", "_API_KEYS", "_HEADERS")
_OPTIONS = (*_SECRET_OPTIONS, "_AUTH", "_INCLUDE_USAGE")
INCLUDE_USAGE = "LLM_PROXY_INCLUDE_USAGE"
# Servers that refuse members they do not know, and report usage anyway (WIRE 0.1, 1).
_STRICT_HOSTS = ("api.mistral.ai",)
# First segments of paths that are not names of providers (policy/router).
_RESERVED = frozenset({"v1", "v1beta", "v1alpha", "api", "upload"})
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")
_OURS = HOP_BY_HOP | {b"host", b"content-length", b"connection", b"expect"}


def load(environ: Mapping[str, str], *, passthrough: bool = False) -> Loaded:
    """Build the snapshot that `environ` describes, and say everything that is wrong with it.

    `passthrough`: clients bring credentials of their own, so every vendor with a public address exists without one.
    """
    return _Loading(environ, passthrough).result()


def secret_names(environ: Mapping[str, str]) -> set[str]:
    """The variables of this module whose values are secrets, and may therefore come from files."""
    names = {variable for vendor in VENDORS.values() for variable, _ in vendor.keys}
    names |= {PREFIX + name.upper() + option for name in VENDORS for option in _SECRET_OPTIONS}
    for name in environ:
        if name.startswith(PREFIX):
            stem = name.removesuffix("_FILE")
            names |= {stem} if stem.endswith(_SECRET_OPTIONS) else {stem + option for option in _SECRET_OPTIONS}
    return names


class _Loading:
    """One pass over one environment."""

    def __init__(self, environ: Mapping[str, str], passthrough: bool) -> None:
        self._environ = {name: value.strip() for name, value in environ.items() if value.strip()}
        self._passthrough = passthrough
        self._errors: list[str] = []
        self._warnings: list[str] = []
        self._rules, errors = ProxyRules.read(self._environ)
        self._errors += errors

    def result(self) -> Loaded:
        urls, options = self._named()
        providers: dict[str, Provider] = {}
        for name, vendor in VENDORS.items():
            if name not in urls:
                provider = self._vendor(name, vendor, options.pop(name, {}))
                if provider is not None:
                    providers[name] = provider
        for name, (variable, text) in urls.items():
            provider = self._further(name, variable, text, options.pop(name, {}))
            if provider is not None:
                providers[name] = provider
        for name, left in options.items():
            for variable in left.values():
                self._errors.append(f"{variable}: there is no {PREFIX}{name.upper()}=<family>+<url> that it belongs to")
        owners = [(start, name) for name in providers if name in VENDORS for start in VENDORS[name].owns]
        owners.sort(key=lambda owner: (-len(owner[0]), owner[0]))
        aliases, problems = parse_aliases(self._environ.get(MODELS, ""), providers)
        self._errors += [f"{MODELS}: {problem}" for problem in problems]
        snapshot = Snapshot(providers, self._default(providers), tuple(owners), aliases=aliases)
        return Loaded(snapshot, self._errors, self._warnings)

    def _named(self) -> tuple[dict[str, tuple[str, str]], dict[str, dict[str, str]]]:
        """The LLM_PROXY_PROVIDER_ variables: name -> (variable, text), and name -> option -> variable."""
        urls: dict[str, tuple[str, str]] = {}
        options: dict[str, dict[str, str]] = {}
        for variable, text in self._environ.items():
            if not variable.startswith(PREFIX):
                continue
            name = variable[len(PREFIX) :].lower()
            option = next((suffix for suffix in _OPTIONS if name.endswith(suffix.lower())), None)
            if option is not None:
                name = name[: -len(option)]
            if _NAME.fullmatch(name) is None or name in _RESERVED:
                self._errors.append(f"{variable}: a provider cannot be called {name!r}")
            elif option is not None:
                options.setdefault(name, {})[option] = variable
            elif name in urls:
                self._errors.append(f"{variable}: {urls[name][0]} names the same provider")
            else:
                urls[name] = (variable, text)
        return urls, options

    def _vendor(self, name: str, vendor: Vendor, options: dict[str, str]) -> Provider | None:
        found = [(variable, auth) for variable, auth in vendor.keys if variable in self._environ]
        url = self._environ.get(vendor.url_variable) if vendor.url_variable else None
        public = self._passthrough and vendor.url.startswith("https:")
        if not (found or url or {"_API_KEY", "_API_KEYS"} & set(options) or public):
            if options:
                variable = next(iter(options.values()))
                self._errors.append(f"{variable}: provider {name} does not exist: set {vendor.keys[0][0]}")
            return None
        if len(found) > 1:
            self._warnings.append(f"{found[1][0]} is not used, since {found[0][0]} is set")
        if not url and not vendor.url:
            self._warnings.append(f"{vendor.url_variable} is not set, so there is no provider {name}")
            return None
        variable = vendor.url_variable if url and vendor.url_variable else name
        base = self._base(variable, url or vendor.url, vendor.family)
        credential, auth = None, FAMILIES[vendor.family].auth
        if found:
            credential, auth = self._secret(found[0][0]), found[0][1]
            if (
                "_API_KEYS" in options
                and not {"_API_KEY", "_AUTH"} & set(options)
                and auth != FAMILIES[vendor.family].auth
            ):
                how = f"{found[0][0]} is set, which is carried in another way than these: unset one of the two"
                self._errors.append(f"{options['_API_KEYS']}: {how}")
        return None if base is None else self._provider(name, vendor.family, base, credential, auth, options)

    def _further(self, name: str, variable: str, text: str, options: dict[str, str]) -> Provider | None:
        family, plus, url = text.partition("+")
        if not plus or family not in FAMILIES:
            known = ", ".join(FAMILIES)
            how = "write it as <family>+<url>, e.g. openai+http://10.0.0.5:8000/v1"
            self._errors.append(f"{variable}: {how} (families: {known})")
            return None
        base = self._base(variable, url, family)
        if base is None:
            return None
        if family == "openai" and not base.path:
            self._warnings.append(f"{variable}: the URL has no path, and most servers of this family want /v1 there")
        return self._provider(name, family, base, None, FAMILIES[family].auth, options)

    def _provider(
        self, name: str, family: str, base: Base, credential: Secret | None, auth: str, options: dict[str, str]
    ) -> Provider:
        if "_API_KEY" in options:
            credential = self._secret(options["_API_KEY"])
            auth = FAMILIES[family].auth
        if "_AUTH" in options:
            auth = self._environ[options["_AUTH"]].lower()
            if auth not in AUTHS:
                self._errors.append(f"{options['_AUTH']}: must be one of {', '.join(AUTHS)}")
        further = self._further_secrets(options["_API_KEYS"], credential) if "_API_KEYS" in options else ()
        if further and auth == "none":
            self._warnings.append(f"{options['_API_KEYS']}: is not used, since {options['_AUTH']} is none")
        if credential is None and further:
            credential, further = further[0], further[1:]
        headers: tuple[tuple[bytes, Secret], ...] = ()
        if "_HEADERS" in options:
            headers = self._headers(options["_HEADERS"], credential is not None and auth != "none")
        proxy, authorization = self._rules.for_origin(base.scheme, base.host, base.port)
        origin = Origin(base.scheme, base.host, base.port, proxy, authorization)
        takes = self._takes_include_usage(family, base.host, options.get("_INCLUDE_USAGE"))
        return Provider(name, family, origin, base.path, base.host_header, credential, auth, headers, takes, further)

    def _takes_include_usage(self, family: str, host: str, own: str | None) -> bool:
        """Whether streams of a provider may be asked for usage where the client did not ask."""
        variable = own or INCLUDE_USAGE
        text = self._environ.get(variable, "on").lower()
        wrong = f"{variable}: must be one of on, off"
        if text not in ("on", "off") and wrong not in self._errors:
            self._errors.append(wrong)
        if own is None and host in _STRICT_HOSTS:
            return False
        return text == "on" and "openai-chat" in FAMILIES[family].dialects

    def _base(self, variable: str, text: str, family: str) -> Base | None:
        found = parse_ollama_host(text) if variable == "OLLAMA_HOST" else parse_base(text)
        if isinstance(found, str):
            self._errors.append(f"{variable}: {found}")
            return None
        path = found.path
        if family == "azure" and path in (b"", b"/openai"):
            return found._replace(path=b"/openai/v1")  # the endpoint as Azure's portal shows it
        if FAMILIES[family].whole_path and path.endswith(b"/v1"):
            self._warnings.append(f"{variable}: the URL ends in /v1, which requests of this family bring themselves")
        return found

    def _secret(self, variable: str) -> Secret | None:
        value = self._environ[variable]
        if _VISIBLE.fullmatch(value) is None:
            self._errors.append(f"{variable}: holds blanks or characters that cannot stand in a header")
            return None
        return Secret(value)

    def _further_secrets(self, variable: str, first: Secret | None) -> tuple[Secret, ...]:
        """The values in `variable` that may be carried beside `first`. What is wrong names their numbers."""
        found: dict[Secret, int] = {}
        pieces = [piece.strip() for piece in re.split(r"[,\n]", self._environ[variable]) if piece.strip()]
        for number, piece in enumerate(pieces, 1):
            secret = Secret(piece)
            if _VISIBLE.fullmatch(piece) is None:
                self._errors.append(
                    f"{variable}: key {number} holds blanks or characters that cannot stand in a header"
                )
            elif secret == first:
                self._errors.append(f"{variable}: key {number} is the one that another variable sets already")
            elif secret in found:
                self._errors.append(f"{variable}: keys {found[secret]} and {number} are the same")
            else:
                found[secret] = number
        if not pieces:
            self._errors.append(f"{variable}: write keys, separated by commas")
        return tuple(found)

    def _headers(self, variable: str, has_key: bool) -> tuple[tuple[bytes, Secret], ...]:
        fields = _read_headers(self._environ[variable])
        if isinstance(fields, str):
            self._errors.append(f"{variable}: {fields}")
            return ()
        carriers = ", ".join(name.decode() for name, _ in fields if name in KEY_FIELDS)
        if carriers and self._passthrough:
            # It would go out beside the client's own, and the provider's answer to it to anybody.
            self._errors.append(f"{variable}: {carriers}: with LLM_PROXY_AUTH=passthrough clients bring their own")
        elif carriers and has_key:
            how = "this provider has an API key already: remove one of the two, or set its _AUTH to none"
            self._errors.append(f"{variable}: {carriers}: {how}")
        return fields

    def _default(self, providers: dict[str, Provider]) -> Provider | None:
        name = self._environ.get(DEFAULT)
        if name is None:
            return providers.get("openai") or (next(iter(providers.values())) if len(providers) == 1 else None)
        if name.lower() not in providers:
            known = ", ".join(providers) or "there are none"
            self._errors.append(f"{DEFAULT}: is not the name of a provider ({known})")
            return None
        return providers[name.lower()]


def _read_headers(text: str) -> tuple[tuple[bytes, Secret], ...] | str:
    """`Name: value, Name: value`, or a JSON object where values hold commas. A string says what is wrong with it."""
    how = "write it as 'Name: value, Name: value' or as a JSON object of strings"
    pairs: list[tuple[str, str]] = []
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return how
        pairs = [(name, value if isinstance(value, str) else "") for name, value in found.items()]
    else:
        for piece in text.split(","):
            name, _, value = piece.partition(":")
            pairs.append((name.strip(), value.strip()))
    for name, value in pairs:
        if _TOKEN.fullmatch(name) is None or _FIELD_VALUE.fullmatch(value) is None:
            return how
        if name.lower().encode() in _OURS:
            return f"the field {name} is written by the proxy itself"
    return tuple((name.lower().encode(), Secret(value)) for name, value in pairs)
