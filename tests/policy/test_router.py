"""Routes: paths and model names to providers, exactly, and never an exception."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.catalog.load import load
from proxy.catalog.snapshot import Snapshot
from proxy.dialects.call import Call
from proxy.outcome import Failure, Kind, status_of
from proxy.policy.plan import Plan, plan
from proxy.policy.router import Route, allow, dialect_of, route

ENVIRON = {
    "OPENAI_API_KEY": "a",
    "ANTHROPIC_API_KEY": "b",
    "GEMINI_API_KEY": "c",
    "GROQ_API_KEY": "d",
    "DEEPSEEK_API_KEY": "e",
    "OPENROUTER_API_KEY": "f",
    "OLLAMA_HOST": "127.0.0.1",
    "AZURE_OPENAI_API_KEY": "g",
    "AZURE_OPENAI_ENDPOINT": "https://mine.openai.azure.com/",
    "LLM_PROXY_PROVIDER_VLLM": "openai+http://10.0.0.5:8000/v1",
    "LLM_PROXY_PROVIDER_DS": "anthropic+https://api.deepseek.com/anthropic",
    "LLM_PROXY_PROVIDER_COHERE": "plain+https://api.cohere.com",
}


def snapshot_of(environ: dict[str, str]) -> Snapshot:
    loaded = load(environ)
    assert loaded.errors == []
    return loaded.snapshot


ALL = snapshot_of(ENVIRON)
NOBODY = snapshot_of({})


def way(
    path: str,
    model: str | None = None,
    *,
    method: str = "POST",
    snapshot: Snapshot = ALL,
    query: bytes = b"",
    **fields: str,
) -> tuple[str, str, str, str | None] | Failure:
    """(provider, target, dialect, new model) of a request, as relay would ask for it."""
    index = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    found = route(method.encode(), path.encode(), query, snapshot, index.get)
    if isinstance(found, Failure):
        return found
    planned = plan(found, Call(model) if found.reads_body else None, query, snapshot)
    if isinstance(planned, Failure):
        return planned
    ((target,),) = planned.groups
    return target.provider.name, target.target.decode(), found.dialect.name, target.model


def kind(answer: object) -> Kind:
    assert isinstance(answer, Failure), answer
    return answer.kind


@pytest.mark.parametrize(
    ("path", "model", "expected"),
    [
        ("/v1/chat/completions", "gpt-4o", ("openai", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "o3-mini", ("openai", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", None, ("openai", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "deepseek-chat", ("deepseek", "/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "llama-3.3-70b", ("groq", "/openai/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "llama3.2:1b", ("ollama", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "vllm/gpt-4o", ("vllm", "/v1/chat/completions", "openai-chat", "gpt-4o")),
        ("/v1/chat/completions", "vllm/a/b", ("vllm", "/v1/chat/completions", "openai-chat", "a/b")),
        ("/v1/chat/completions", "azure/my-gpt", ("azure", "/openai/v1/chat/completions", "openai-chat", "my-gpt")),
        ("/v1/chat/completions", "meta-llama/llama-3", ("openai", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "/gpt-4o", ("openai", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "vllm/", ("openai", "/v1/chat/completions", "openai-chat", None)),
        ("/v1/chat/completions", "openrouter/x/y", ("openrouter", "/api/v1/chat/completions", "openai-chat", "x/y")),
        ("/v1/completions", "vllm/m", ("vllm", "/v1/completions", "openai-completions", "m")),
        ("/v1/embeddings", "text-embedding-3-small", ("openai", "/v1/embeddings", "openai-embeddings", None)),
        ("/v1/responses", "gpt-5", ("openai", "/v1/responses", "openai-responses", None)),
        ("/v1/responses/compact", "gpt-5", ("openai", "/v1/responses/compact", "openai-responses", None)),
        ("/v1/messages", "claude-sonnet-4-5", ("anthropic", "/v1/messages", "anthropic-messages", None)),
        ("/v1/messages", "unheard-of", ("anthropic", "/v1/messages", "anthropic-messages", None)),
        ("/v1/messages", "ds/deepseek-chat", ("ds", "/anthropic/v1/messages", "anthropic-messages", "deepseek-chat")),
        (
            "/v1/messages/count_tokens",
            "claude-3",
            ("anthropic", "/v1/messages/count_tokens", "anthropic-count-tokens", None),
        ),
        ("/v1/messages/batches", None, ("anthropic", "/v1/messages/batches", "plain", None)),
        ("/api/chat", "llama-3", ("ollama", "/api/chat", "ollama", None)),
        ("/api/generate", "ollama/x", ("ollama", "/api/generate", "ollama", "x")),
        ("/api/pull", None, ("ollama", "/api/pull", "plain", None)),
        ("/v1/files", None, ("openai", "/v1/files", "plain", None)),
        ("/v1/images/generations", None, ("openai", "/v1/images/generations", "plain", None)),
    ],
)
def test_unified_paths(path: str, model: str | None, expected: tuple[str, str, str, str | None]) -> None:
    assert way(path, model) == expected


@pytest.mark.parametrize(
    ("path", "target", "dialect"),
    [
        ("/v1beta/models/gemini-2.0-flash:generateContent", None, "gemini"),
        ("/v1beta/models/gemini-2.0-flash:streamGenerateContent", None, "gemini"),
        ("/v1beta/models/gemini-2.0-flash:countTokens", None, "gemini"),
        ("/v1beta/models/gemini-2.0-flash%3AstreamGenerateContent", None, "gemini"),
        ("/v1beta/models/gemini/g-2:generateContent", "/v1beta/models/g-2:generateContent", "gemini"),
        ("/v1beta/models/gemini%2Fg-2:generateContent", "/v1beta/models/g-2:generateContent", "gemini"),
        ("/v1beta/models/gemini%2fg%2D2:generateContent", "/v1beta/models/g%2D2:generateContent", "gemini"),
        ("/v1beta/models/google/gemini-2:generateContent", None, "gemini"),
        ("/v1beta/models/gpt-4o:generateContent", None, "gemini"),
        ("/v1beta/models/imagen-3:predict", None, "plain"),
        ("/v1alpha/models/gemini-2:generateContent", None, "gemini"),
        ("/v1/models/gemini-2:streamGenerateContent", None, "gemini"),
        ("/v1beta/tunedModels/mine:generateContent", None, "gemini"),
        ("/v1beta/openai/chat/completions", None, "openai-chat"),
        ("/v1beta/cachedContents", None, "plain"),
        ("/upload/v1beta/files", None, "plain"),
        ("/gemini/v1beta/models/g:generateContent", "/v1beta/models/g:generateContent", "gemini"),
        ("/gemini/v1beta/openai/chat/completions", "/v1beta/openai/chat/completions", "openai-chat"),
    ],
)
def test_paths_of_gemini(path: str, target: str | None, dialect: str) -> None:
    assert way(path) == ("gemini", target or path, dialect, None)


@pytest.mark.parametrize(
    ("path", "provider", "target", "dialect"),
    [
        ("/openai/v1/chat/completions", "openai", "/v1/chat/completions", "openai-chat"),
        ("/openai/chat/completions", "openai", "/v1/chat/completions", "openai-chat"),
        ("/openai/v1/audio/transcriptions", "openai", "/v1/audio/transcriptions", "plain"),
        ("/openai/v1", "openai", "/v1", "plain"),
        ("/groq/openai/v1/chat/completions", "groq", "/openai/v1/chat/completions", "openai-chat"),
        ("/groq/v1/chat/completions", "groq", "/openai/v1/chat/completions", "openai-chat"),
        ("/openrouter/api/v1/responses", "openrouter", "/api/v1/responses", "openai-responses"),
        ("/deepseek/v1/chat/completions", "deepseek", "/chat/completions", "openai-chat"),
        ("/deepseek/beta/completions", "deepseek", "/beta/completions", "plain"),
        ("/azure/v1/embeddings", "azure", "/openai/v1/embeddings", "openai-embeddings"),
        ("/azure/openai/v1/responses", "azure", "/openai/v1/responses", "openai-responses"),
        (
            "/azure/openai/deployments/d/chat/completions",
            "azure",
            "/openai/deployments/d/chat/completions",
            "openai-chat",
        ),
        ("/azure/openai/deployments/d/images/edits", "azure", "/openai/deployments/d/images/edits", "plain"),
        ("/anthropic/v1/messages", "anthropic", "/v1/messages", "anthropic-messages"),
        ("/ds/v1/messages", "ds", "/anthropic/v1/messages", "anthropic-messages"),
        ("/ollama/v1/chat/completions", "ollama", "/v1/chat/completions", "openai-chat"),
        ("/ollama/api/chat", "ollama", "/api/chat", "ollama"),
        ("/cohere/v2/chat", "cohere", "/v2/chat", "plain"),
        ("/cohere/v1/chat/completions", "cohere", "/v1/chat/completions", "plain"),
    ],
)
def test_a_provider_is_reached_under_its_own_paths(path: str, provider: str, target: str, dialect: str) -> None:
    # The model is not looked at: here a name with a slash is the provider's own.
    assert way(path, "openai/gpt-4o") == (provider, target, dialect, None)


def test_any_method_reaches_a_provider_by_name_and_streams_through() -> None:
    found = route(b"DELETE", b"/openai/v1/chat/completions", b"", ALL, lambda _: None)
    assert isinstance(found, Route)
    assert not found.reads_body
    assert found.dialect.name == "plain"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/gpt-4o", "/v1/files"])
def test_the_version_field_tells_anthropics_client_from_openais(path: str) -> None:
    assert way(path, method="GET") == ("openai", path, "plain", None)
    assert way(path, method="GET", anthropic_version="2023-06-01") == ("anthropic", path, "plain", None)


def test_the_carrier_of_the_key_tells_googles_client_from_openais() -> None:
    carried = {"x_goog_api_key": "k", "method": "GET"}
    for path in ("/v1/models", "/v1/models/gemini-2"):
        assert way(path, **carried) == ("gemini", path, "plain", None)
        assert way(path, method="GET") == ("openai", path, "plain", None)
    assert way("/v1/files", **carried) == ("openai", "/v1/files", "plain", None)


def test_models_with_colons_are_not_mistaken_for_gemini() -> None:
    assert way("/v1/models/ft:gpt-4o:me::id", method="DELETE") == (
        "openai",
        "/v1/models/ft:gpt-4o:me::id",
        "plain",
        None,
    )


def test_stored_chats_are_listed_unread() -> None:
    assert way("/v1/chat/completions", method="GET") == ("openai", "/v1/chat/completions", "plain", None)


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1/chat/completions", "claude-3"),
        ("/v1/chat/completions", "gemini-2"),
        ("/v1/chat/completions", "anthropic/claude-3"),
        ("/v1/chat/completions", "cohere/command"),
        ("/v1/messages", "gpt-4o"),
        ("/v1/messages", "openai/gpt-4o"),
        ("/api/chat", "openai/gpt-4o"),
        ("/v1beta/models/openai/gpt-4o:generateContent", None),
    ],
)
def test_a_provider_that_does_not_speak_the_format_is_said_so(path: str, model: str | None) -> None:
    answer = way(path, model)
    assert kind(answer) is Kind.UNROUTED
    assert isinstance(answer, Failure)
    assert "does not speak" in answer.detail
    assert status_of(answer) == 404


@pytest.mark.parametrize(
    "path",
    "/v1/chat/completions /v1/messages /v1/models /v1/messages/batches /api/chat /api/tags /v1beta/models/g:x".split(),
)
def test_without_providers_everything_says_what_to_do(path: str) -> None:
    answer = way(path, "gpt-4o", snapshot=NOBODY)
    assert kind(answer) is Kind.UNROUTED


def test_without_a_default_unknown_names_go_nowhere() -> None:
    two = snapshot_of({"ANTHROPIC_API_KEY": "a", "GROQ_API_KEY": "b"})
    answer = way("/v1/chat/completions", "unheard-of", snapshot=two)
    assert isinstance(answer, Failure)
    assert "LLM_PROXY_DEFAULT_PROVIDER" in answer.detail
    assert way("/v1/chat/completions", "llama-3", snapshot=two)[0] == "groq"
    assert way("/v1/messages", "unheard-of", snapshot=two)[0] == "anthropic"


def test_a_default_that_speaks_the_format_comes_before_the_vendor() -> None:
    snapshot = snapshot_of(ENVIRON | {"LLM_PROXY_DEFAULT_PROVIDER": "ds"})
    assert way("/v1/messages", "unheard-of", snapshot=snapshot)[0] == "ds"
    assert way("/v1/messages", "claude-3", snapshot=snapshot)[0] == "anthropic"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/v1/messages", "/v1/embeddings", "/v1/responses", "/api/chat", "/v1/chat/completions"]
)
def test_other_methods_on_known_paths_are_405(method: str, path: str) -> None:
    if (method, path) == ("GET", "/v1/chat/completions"):
        return
    answer = way(path, method=method)
    assert kind(answer) is Kind.METHOD_NOT_ALLOWED
    assert b"POST" in allow(path.encode())
    assert method.encode() not in allow(path.encode()).split(b", ")


def test_trace_is_not_relayed() -> None:
    assert kind(way("/openai/v1/x", method="TRACE")) is Kind.METHOD_NOT_ALLOWED
    assert b"TRACE" not in allow(b"/openai/v1/x")


MISSPELT = [
    "/v1/chat/completions/",
    "/v1/chat%2Fcompletions",
    "/v1/chat%2fcompletions",
    "/v1/chat/%63ompletions",
    "/v1/chat%2F%2Fcompletions%2F",
    "/v1/Chat/Completions",
    "/V1/chat/completions",
    "/%76%31/chat/completions",
    "/v1/chat/completions;x=1",
    "/v1/chat;x/completions",
    "/v1/chat/completions%20",
    "/v1/v1/chat/completions",
    "/v1/completions/",
    "/v1/embeddings/",
    "/v1/responses/",
    "/v1/responses%2fcompact",
    "/v1/messages/",
    "/v1/Messages",
    "/v1/messages/count_tokens/",
    "/api/chat/",
    "/api/Chat",
    "/api/gener%61te",
    "/openai/v1/chat/completions/",
    "/openai/chat/%63ompletions",
    "/openai/chat/Completions",
    "/vllm/v1/chat%2Fcompletions",
    "/vllm/v1/v1/responses",
    "/deepseek/v1/v1/chat/completions",
    "/deepseek/chat/completions/",
    "/openrouter/api/v1/chat/completions/",
    "/openrouter/Api/v1/responses",
    "/azure/openai/deployments/D/chat/completions/",
    "/azure/openai/deployments/%FF/chat%2fcompletions",
    "/azure/openai/v1/Responses",
    "/anthropic/v1/messages/",
    "/anthropic/v1/mess%61ges",
    "/ds/V1/messages",
    "/ollama/api/chat/",
    "/ollama/v1/chat/completions/",
    "/ollama/v1/Messages",
    "/gemini/v1beta/openai/chat/completions/",
    "/v1beta/openai/chat%2Fcompletions",
    "/v1beta/models/g:generateContent/",
    "/v1beta/models/g:streamGenerateConten%74",
    "/v1beta/models/g:streamgeneratecontent",
    "/v1beta/models/g:streamGenerateContent;x",
    "/v1beta/models/g:streamGenerateContent%20",
    "/v1beta/models/g:streamGenerateContent%2F",
    "/v1beta/models/gemini/g:StreamGenerateContent",
    "/gemini/v1beta/models/g:Generatecontent",
]


@pytest.mark.parametrize("path", MISSPELT)
def test_another_spelling_of_a_path_that_is_read_does_not_pass_unread(path: str) -> None:
    answer = way(path)
    assert kind(answer) is Kind.BAD_REQUEST
    assert isinstance(answer, Failure)
    assert "write this path as its API has it" in answer.detail
    assert answer.detail.isascii()


def test_the_right_path_is_told_in_its_own_format() -> None:
    answer = way("/v1/chat/%63ompletions/")
    assert isinstance(answer, Failure)
    assert answer.detail.endswith("it ends in /v1/chat/completions")
    assert dialect_of(b"/v1/chat/%63ompletions/").name == "openai-chat"
    action = way("/v1beta/models/g:streamGenerateContent/")
    assert isinstance(action, Failure)
    assert action.detail.endswith("it ends in :streamGenerateContent")


@pytest.mark.parametrize("path", ["/v1/models/g:GenerateContent", "/v1/Models/g:streamGenerateContent/"])
def test_gemini_as_default_provider_lets_no_other_spelling_pass(path: str) -> None:
    snapshot = snapshot_of({"GEMINI_API_KEY": "c", "LLM_PROXY_DEFAULT_PROVIDER": "gemini"})
    assert kind(way(path, snapshot=snapshot)) is Kind.BAD_REQUEST


def test_a_doubled_v1_does_not_reach_a_default_provider_without_one() -> None:
    snapshot = snapshot_of({"DEEPSEEK_API_KEY": "c", "LLM_PROXY_DEFAULT_PROVIDER": "deepseek"})
    assert kind(way("/v1/v1/chat/completions", snapshot=snapshot)) is Kind.BAD_REQUEST


@pytest.mark.parametrize(
    "path", ["/v1/Files", "/v1/files/", "/v1/files/a%2Fb", "/v1/responses/r_1/cancel", "/v1/images/edits;x"]
)
def test_other_paths_may_be_spelt_in_any_way(path: str) -> None:
    assert way(path) == ("openai", path, "plain", None)


def test_vertex_paths_with_an_action_are_read() -> None:
    path = "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent"
    assert way(path) == ("gemini", path, "gemini", None)


@pytest.mark.parametrize(
    "path", ["/", "/openai", "/chat/completions", "/healthz", "/OpenAI/v1/x", "/v1", "/nobody/v1/x"]
)
def test_unknown_paths_are_404(path: str) -> None:
    assert kind(way(path)) is Kind.NOT_FOUND


@pytest.mark.parametrize(
    "path",
    [
        "",
        "*",
        "v1/chat/completions",
        "http://example.com/v1/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions//",
        "/v1/../admin",
        "/v1/./files",
        "/v1/files/..",
        "/v1/files/.",
        "/v1/%2e%2e/admin",
        "/v1/.%2E/admin",
        "/v1/%2e/files",
        "/v1/files%2f..%2fadmin",
        "/v1/files/..%2Fadmin",
        "/v1/files/..;/admin",
        "/openai/../anthropic/v1/x",
        "/v1/files\\..\\x",
        "/v1/files%5c..%5Cx",
        "/v1/files%00",
        "/v1/files%0d%0aHost:x",
        "/v1/files%7F",
        "/v1/fi les",
        "/v1/files\t",
        "/v1/files\x00",
        "/v1/f\u00fcr",
        "/v1/files#x",
        "/v1/files?x",
        '/v1/"files"',
        "/v1/<files>",
        "/v1/{id}",
        "/v1/files%",
        "/v1/files%2",
        "/v1/files%zz",
        "/v1beta/models/../x:generateContent",
        "/v1beta/models/gemini%2F..%2F..%2Fx:generateContent",
    ],
)
def test_targets_that_could_lead_elsewhere_are_400(path: str) -> None:
    assert kind(way(path)) is Kind.BAD_REQUEST


@pytest.mark.parametrize(
    "path", ["/v1/files/a..b", "/v1/files/...", "/v1/files/a%20b", "/v1/files/%C3%BC", "/v1/x;v=1"]
)
def test_harmless_paths_go_on_as_they_are(path: str) -> None:
    assert way(path, method="GET") == ("openai", path, "plain", None)


@pytest.mark.parametrize("query", [b"a=\x00", b"a b", b"a=\xff", b"a#b", b"a\r\nb"])
def test_queries_that_would_break_a_request_line_are_400(query: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/files"):
        assert kind(way(path, "gpt-4o", query=query)) is Kind.BAD_REQUEST


def test_a_query_goes_on_without_its_key() -> None:
    path = "/v1beta/models/g:streamGenerateContent"
    assert way(path, query=b"alt=sse&key=secret&x[]=%20")[1] == path + "?alt=sse&x[]=%20"
    assert way(path, query=b"key=secret")[1] == path
    assert way("/v1/chat/completions", "gpt-4o", query=b"%6bey=secret")[1] == "/v1/chat/completions"


@given(
    st.one_of(
        st.binary(max_size=50),
        st.lists(
            st.sampled_from(
                [
                    b"/",
                    b"/v1",
                    b"/v1beta/models/",
                    b"gemini",
                    b"%2F",
                    b"%2e",
                    b":generateContent",
                    b"..",
                    b"/openai/",
                    b"/azure",
                    b"/openai/deployments/",
                    b"/api/",
                    b"%",
                    b"\xff",
                    b"a",
                    b"//",
                ]
            ),
            max_size=8,
        ).map(b"".join),
    ),
    st.one_of(st.binary(max_size=20), st.sampled_from([b"GET", b"POST"])),
    st.binary(max_size=30),
    st.none() | st.text(max_size=20),
)
@example(b"/openai/v1", b"POST", b"", "/")
def test_no_bytes_raise_and_what_goes_on_is_a_safe_target(
    path: bytes, method: bytes, query: bytes, model: str | None
) -> None:
    for snapshot in (ALL, NOBODY):
        dialect_of(path)
        allow(path)
        found = route(method, path, query, snapshot, lambda _: None)
        if isinstance(found, Failure):
            continue
        planned = plan(found, Call(model), query, snapshot)
        if isinstance(planned, Plan):
            sent = planned.groups[0][0].target
            assert sent.startswith(b"/")
            assert not sent.startswith(b"//")
            assert all(0x21 <= byte <= 0x7E for byte in sent)
            assert b"/../" not in sent.partition(b"?")[0] + b"/"
            assert b"/./" not in sent.partition(b"?")[0] + b"/"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"/v1/chat/completions", "openai-chat"),
        (b"/v1/messages/batches", "anthropic-messages"),
        (b"/v1beta/models/x", "gemini"),
        (b"/api/tags", "ollama"),
        (b"\xff", "plain"),
    ],
)
def test_refusals_are_worded_in_the_format_of_the_path(path: bytes, name: str) -> None:
    assert dialect_of(path).name == name
