"""Makes proxy/catalog/prices.json out of the package genai-prices.

Lives here: what is taken from the package, and how it is said in our form (proxy/catalog/price_file.py). May not live
here: prices that we think we know better.
How it works: pip fetches the wheel by version and hash into a folder that goes away again. Its data are one Python
expression, which is read and not run, so nothing of the package is needed. What the package says in a way that is not
foreseen here ends the run with a sentence. At the end every name that the package knows is looked up in the new table,
and must lead to the row made from the model that the package finds first.
Doubted: an expression for names with a date becomes the name without it, since names are looked up that way, too.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from proxy.catalog.prices import Prices

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "proxy" / "catalog" / "prices.json"

PACKAGE, VERSION = "genai-prices", "0.2.3"
SHA256 = "56976ce2b04ec206117f7d0e53f4849211a6724ab3a12119afec304eba63ee25"

# Our names of providers where the package has others: as the settings call them, or as people do.
NAMES = {"google": "gemini", "x-ai": "xai", "aws": "bedrock"}

# At which hosts a provider's prices hold: the package has expressions for whole URLs, of which we know only the host.
HOSTS = {
    "anthropic": ["api.anthropic.com"],
    "arcee": ["api.arcee.ai"],
    "avian": ["api.avian.io"],
    "aws": ["bedrock-runtime.*.amazonaws.com"],
    "azure": [
        "*.openai.azure.com",
        "*.services.ai.azure.com",
        "*.cognitiveservices.azure.com",
        "*.azure-api.net",
    ],
    "baseten": ["inference.baseten.co"],
    "cerebras": ["api.cerebras.ai"],
    "cloudflare": ["api.cloudflare.com"],
    "cohere": ["api.cohere.com", "api.cohere.ai"],
    "databricks": ["*.cloud.databricks.com", "*.azuredatabricks.net", "*.gcp.databricks.com"],
    "deepseek": ["api.deepseek.com"],
    "doubleword": ["api.doubleword.ai"],
    "fireworks": ["api.fireworks.ai"],
    "github-copilot": ["api.githubcopilot.com"],
    "google": ["generativelanguage.googleapis.com", "aiplatform.googleapis.com", "*-aiplatform.googleapis.com"],
    "groq": ["api.groq.com"],
    "huggingface": ["router.huggingface.co"],
    "meta": ["api.meta.ai"],
    "minimax": ["api.minimax.io", "api.minimax.com", "api.minimaxi.com"],
    "mistral": ["api.mistral.ai"],
    "moonshotai": ["api.moonshot.ai", "api.moonshot.cn"],
    "novita": ["api.novita.ai"],
    "openai": ["api.openai.com"],
    "openrouter": ["openrouter.ai", "api.openrouter.ai"],
    "ovhcloud": ["oai.endpoints.kepler.ai.cloud.ovh.net"],
    "perplexity": ["api.perplexity.ai"],
    "quicksilverpro": ["api.quicksilverpro.io"],
    "together": ["api.together.xyz", "api.together.ai"],
    "typesafe": ["api.typesafe.ai"],
    "voyageai": ["api.voyageai.com"],
    "x-ai": ["api.x.ai"],
    "zai": ["api.z.ai"],
    "zhipuai": ["open.bigmodel.cn"],
}
# Hosts that the package does not know: Together's newer name.
FURTHER_HOSTS = {"api.together.ai"}
# Paths that the package's expressions may go on with.
PATHS = ("/", "/client/v4/accounts/x/ai/", "/serving-endpoints/")
# What is no API of a model's tokens, is at another's host, or at hosts that are anybody's (modal.run).
LEFT_OUT = {"cursor", "elevenlabs", "modal", "openai-decisions"}
# Hugging Face's router has one list for each provider behind it; requests name it at the end of the model: `x:groq`.
ROUTED = "huggingface_"

COLUMNS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "web_searches_kcount": "search",
}
# Fees are for one here, and for a thousand there; the places that a row may have after the dollars of one.
PLACES = {"search": 15}
# Our figures do not tell these apart: audio and images that are put in count as text. Whatever else costs apart (audio
# and images that come out, citations, hours, pages) makes the model's price one that is not known. So do Perplexity's
# fees for a request: they depend on how much was searched, and the package takes the dearest (12 dollars for a thousand
# where each bill among the recorded traffic says 5).
PASSED_OVER = re.compile(r"(input|cache)_(audio|image|video)_(read_|write_)?mtok|storage_searches_kcount")

# Of some models that answer in audio or images the package has the prices of text alone. Their names tell.
TEXT_IS_NOT_ALL = re.compile(r"(?<![a-z])(audio|image|realtime|gemini-omni)(?![a-z])")

# Expressions of names, each with what becomes of it.
EXPRESSIONS = (
    (re.compile(r"\^((?:[\w/.-]|\\.)+)(?:-|\[-@\])(?:\\d\{8\}|\\d\{4\}-\\d\{2\}-\\d\{2\})\$"), [r"\1"]),
    (re.compile(r"\^((?:[\w/.-]|\\.)+)-\\d"), [r"\1-0*"]),  # numbered versions: -001
    (re.compile(r"\^\((typesafe/)\)\?((?:[\w/.-]|\\.)+)\(-\\d\{8\}\)\?\$"), [r"\1\2", r"\2"]),
)
NOT_SPEECH = r"^(?!.*-[tT][tT][sS](?:$|-))"
# Seconds since the epoch: an evening when all prices that are announced have begun, and nobody's dear hours are.
LATE = 4_000_050_000
NAMED_DAY = re.compile(r"(?:checked|verified|observed|seen|as of)(?: on)? (20\d\d-\d\d-\d\d)")

Node = dict[str, Any]
Row = dict[str, Any]


class Unforeseen(Exception):
    """The package says something that this script does not know how to say. The message is for its maintainer."""


def main() -> int:
    try:
        with tempfile.TemporaryDirectory() as folder:
            text, licence = fetch(Path(folder))
        document = build(text, licence)
        check(text, document)
    except Unforeseen as what:
        print(f"scripts/prices: {what}", file=sys.stderr)
        return 1
    TARGET.write_text(document, encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {len(document) // 1024} KiB")
    return 0


def fetch(folder: Path) -> tuple[str, str]:
    """The package's data and its licence, as they stand in its wheel."""
    wanted = folder / "wanted"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "--requirement", str(wanted)]
    if subprocess.run(command, check=False).returncode != 0:
        raise Unforeseen(f"pip cannot fetch {PACKAGE} {VERSION}")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [licence] = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        return archive.read("genai_prices/data.py").decode(), archive.read(licence).decode()


# -- reading what the package says --------------------------------------------------------------------------------


def providers(text: str) -> list[Node]:
    """The package's providers: each call in its data as a dict of its arguments, with its name under "is"."""
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "providers":
            found: list[Node] = value(statement.value)
            return found
    raise Unforeseen("the package's data hold no providers")


def value(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [value(each) for each in node.elts]
        case ast.Dict():
            return {value(key): value(each) for key, each in zip(node.keys, node.values, strict=True)}
        case ast.Attribute():
            return ast.unparse(node)
        case ast.Call():
            name, arguments = ast.unparse(node.func), [value(each) for each in node.args]
            if name == "Decimal":
                return Decimal(str(arguments[0]))
            if name == "datetime.date":
                return "{:04}-{:02}-{:02}".format(*arguments)
            if name == "datetime.time":
                return "{:02}:{:02}".format(*arguments)
            return {"is": name, "arguments": arguments} | {str(each.arg): value(each.value) for each in node.keywords}
    raise Unforeseen(f"cannot read {ast.dump(node)[:80] if node else node}")


def patterns(clause: Node, suffix: str) -> Iterator[str]:
    """The names that a clause is about, with `*` for anything."""
    match clause["is"]:
        case "ClauseOr":
            for each in clause["or_"]:
                yield from patterns(each, suffix)
        case "ClauseEquals":
            yield clause["equals"].lower() + suffix
        case "ClauseStartsWith":
            yield clause["starts_with"].lower() + "*" + suffix
        case "ClauseEndsWith":
            yield "*" + clause["ends_with"].lower() + suffix
        case "ClauseContains":
            yield "*" + clause["contains"].lower() + "*" + suffix
        case "ClauseAnd" if [each.get("regex", NOT_SPEECH) for each in clause["and_"]] == [NOT_SPEECH] * 2:
            yield from patterns(clause["and_"][0], suffix)
        case "ClauseRegex":
            yield from (name + suffix for name in expression(clause["regex"]))
        case _:
            raise Unforeseen(f"a clause of names that is not known: {clause}")


def expression(text: str) -> list[str]:
    for known, names in EXPRESSIONS:
        match = known.fullmatch(text)
        if match:
            return [re.sub(r"\\(.)", r"\1", match.expand(name)).lower() for name in names]
    raise Unforeseen(f"an expression of names that is not known: {text}")


def speech(clause: Node) -> Iterator[str]:
    """The names that a clause leaves out because they are models that speak, which cost otherwise."""
    if clause["is"] == "ClauseAnd":
        for pattern in patterns(clause["and_"][0], ""):
            yield from (f"{pattern}-tts", f"{pattern}-tts-*")
    for each in clause.get("or_", ()):
        yield from speech(each)


# -- saying it in our form ----------------------------------------------------------------------------------------


def build(text: str, licence: str) -> str:
    """The document: the same one for the same input."""
    prices: dict[str, list[Row]] = {}
    hosts: dict[str, list[str]] = {}
    also: dict[str, list[str]] = {}
    for provider in providers(text):
        if provider["id"] in LEFT_OUT:
            continue
        listed, suffix = listing(provider)
        if listed not in HOSTS:
            raise Unforeseen(f"provider {listed} is new: say where it is in HOSTS, or put it into LEFT_OUT")
        check_hosts(listed, suffix, provider["api_pattern"])
        name = NAMES.get(listed, listed)
        hosts[name] = HOSTS[listed]
        prices.setdefault(name, []).extend(rows(provider, suffix))
        if provider.get("fallback_model_providers"):
            also[name] = [NAMES.get(each, each) for each in provider["fallback_model_providers"]]
    seen = max(NAMED_DAY.findall(text))
    source = f"Made by scripts/prices from {PACKAGE} {VERSION}, by Samuel Colvin and others at Pydantic"
    head = {
        "version": f"{PACKAGE}-{VERSION}-{seen}",
        "source": f"{source}; its newest look at a price that it tells of was on {seen}.",
        "licence": licence,
        "hosts": dict(sorted(hosts.items())),
        "also": dict(sorted(also.items())),
    }
    lists = []
    for name, each in sorted(prices.items()):
        each.sort(
            key=lambda row: (as_list(row["model"]), row.get("from", ""), row.get("hours", ""), row.get("over", 0))
        )
        lists.append(f"{written(name)}:[\n" + ",\n".join(map(written, each)) + "\n]")
    lines = [f"{written(key)}:{written(each)}," for key, each in head.items()]
    return "{\n" + "\n".join(lines) + '\n"prices":{\n' + ",\n".join(lists) + "\n}\n}\n"


def as_list(model: str | list[str]) -> list[str]:
    return [model] if isinstance(model, str) else model


def listing(provider: Node) -> tuple[str, str]:
    """The list that a provider's models are in, and what their names end in there."""
    name = provider["id"]
    return (ROUTED.rstrip("_"), ":" + name.removeprefix(ROUTED)) if name.startswith(ROUTED) else (name, "")


def check_hosts(provider: str, suffix: str, expression: str) -> None:
    """Whether our hosts are still those of the package, whose expression may go on with a path."""
    for host in HOSTS[provider]:
        urls = [f"https://{host.replace('*', 'x')}{path}" for path in (*PATHS, f"/{suffix[1:]}")]
        if host not in FURTHER_HOSTS and not any(re.match(expression, url) for url in urls):
            raise Unforeseen(f"{provider} is not at {host} any more, but at {expression}")


def written(something: Any) -> str:
    """JSON without blanks, in which decimals are numbers of the same digits."""
    if isinstance(something, Decimal):
        return f"{something.normalize():f}"
    if isinstance(something, dict):
        return "{" + ",".join(f"{written(key)}:{written(each)}" for key, each in something.items()) + "}"
    return json.dumps(something, separators=(",", ":"))


def rows(provider: Node, suffix: str) -> Iterator[Row]:
    """All rows of a provider. A name that two models claim is the first one's, as in the package."""
    claimed: set[str] = set()
    for model in provider["models"]:
        names = sorted(set(patterns(model["match"], suffix)) - claimed)
        claimed |= set(names)
        if is_free(model):
            continue
        without = [name for name in names if TEXT_IS_NOT_ALL.search(name)]
        without += sorted(set(speech(model["match"])) - claimed)
        named = [name for name in names if name not in without]
        for row in model_rows(model) if named else ():
            yield {"model": named[0] if len(named) == 1 else named} | row
        if without:
            yield {"model": without[0] if len(without) == 1 else without}
    if provider["id"] == "openrouter":
        yield {"model": "*:free", "input": Decimal(0), "output": Decimal(0)}


def is_free(model: Node) -> bool:
    """What the package lists without a price since it has none: OpenRouter's, as their names say. (Others' models of
    such names are left-overs, and nobody's.)"""
    return str(model["id"]).endswith(":free") and figures(conditions(model)[0]["prices"]) == {}


def conditions(model: Node) -> list[Node]:
    prices = model["prices"]
    return [{"prices": prices}] if isinstance(prices, dict) else prices


def model_rows(model: Node) -> Iterator[Row]:
    """The rows of one model, without its names."""
    since = ""
    last: list[Row] = []
    for condition in conditions(model):
        moment: Row = {}
        match (condition.get("constraint") or {}).get("is"):
            case "StartDateConstraint":
                since = condition["constraint"].get("start_date") or condition["constraint"]["arguments"][0]
            case "TimeOfDateConstraint":
                moment["hours"] = f"{condition['constraint']['start_time']}-{condition['constraint']['end_time']}"
            case None:
                pass
            case other:
                raise Unforeseen(f"a condition that is not known: {other}")
        # The package's hours have no day; those of a newer price are at its end, and hold since then.
        found = list(stepped(condition["prices"]))
        if found == last and not moment:
            continue  # only what we pass over has changed
        if not moment:
            last = found
        yield from (({"from": since} if since else {}) | moment | row for row in found)


def stepped(prices: Node) -> Iterator[Row]:
    """One row, and one for each number of input tokens beyond which something costs otherwise."""
    found = figures(prices)
    starts = {tier["start"] for price in found.values() if isinstance(price, dict) for tier in price["tiers"]}
    below: Row = {}
    for start in (0, *sorted(starts)):
        row = {column: rounded(column, price, start) for column, price in found.items()}
        changed = {column: price for column, price in row.items() if below.get(column) != price}
        yield ({"over": start} if start else {}) | changed
        below = row


def figures(prices: Node) -> Row:
    """A price by our columns; empty if our figures cannot tell what a request costs."""
    named = {key: price for key, price in prices.items() if key not in ("is", "arguments") and price is not None}
    ours = {column: named[key] for key, column in COLUMNS.items() if key in named}
    others = [key for key in named if key not in COLUMNS and not PASSED_OVER.fullmatch(key)]
    return ours if {"input", "output"} & set(ours) and not others else {}


def rounded(column: str, price: Any, tokens: int) -> Decimal:
    """A figure for requests above `tokens` input tokens. To nine places: a few are thirds, written as a float."""
    if isinstance(price, dict):
        above = [tier["price"] for tier in price["tiers"] if tier["start"] <= tokens and tokens]
        price = above[-1] if above else price["base"]
    found: Decimal = round(price / 1000, PLACES[column]) if column in PLACES else round(price, 9)
    return found


# -- looking at what came out -------------------------------------------------------------------------------------


def check(text: str, document: str) -> None:
    """Each name that stands in the package, alone or with a date or something else behind it, must have in the new
    table the price of the model that the package finds for it."""
    prices = Prices.built_in(document.encode())
    for provider in providers(text):
        if provider["id"] in LEFT_OUT:
            continue
        listed, suffix = listing(provider)
        host = HOSTS[listed][0].replace("*", "x")
        for name in samples(provider):
            model = next((each for each in provider["models"] if is_meant(each["match"], name)), None)
            price = prices.find("", host, name + suffix, LATE)
            found = (
                {} if price is None else {key: each for key, each in price.rates._asdict().items() if each is not None}
            )
            if model is not None and found != newest(model, is_free(model) and listed == "openrouter"):
                raise Unforeseen(f"{name} of {listed} would have another price than in the package: {found}")


def samples(provider: Node) -> list[str]:
    names = {pattern.strip("*") for model in provider["models"] for pattern in patterns(model["match"], "")}
    plain = [name for name in names if "*" not in name and not TEXT_IS_NOT_ALL.search(name)]
    return sorted(name + more for name in plain for more in ("", "-2026-10-30", "-20261030", "-x"))


def is_meant(clause: Node, name: str) -> bool:
    """Whether a clause holds for a name in lower case, as the package reads clauses."""
    match clause["is"]:
        case "ClauseOr":
            return any(is_meant(each, name) for each in clause["or_"])
        case "ClauseAnd":
            return all(is_meant(each, name) for each in clause["and_"])
        case "ClauseEquals":
            return bool(name == clause["equals"].lower())
        case "ClauseStartsWith":
            return name.startswith(clause["starts_with"].lower())
        case "ClauseEndsWith":
            return name.endswith(clause["ends_with"].lower())
        case "ClauseContains":
            return clause["contains"].lower() in name
    return re.search(clause["regex"], name) is not None


def newest(model: Node, is_without_price: bool) -> dict[str, int]:
    """Its last price in our integers, by the package's own order of conditions, but for those of some hours only."""
    if is_without_price:
        return {"input": 0, "output": 0}
    standard = [
        each for each in conditions(model) if (each.get("constraint") or {}).get("is") != "TimeOfDateConstraint"
    ]
    found = figures(standard[-1]["prices"])
    return {name: int(rounded(name, price, 0).scaleb(PLACES.get(name, 9))) for name, price in found.items()}


if __name__ == "__main__":
    sys.exit(main())
