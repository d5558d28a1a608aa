"""Which fields of a body are served, let through, ignored or refused, and how errors name them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from services.bs.http.body import read
from services.bs.http.errors import ApiError
from services.bs.http.openai.schema import IGNORED_FIELDS, Body, ChatRequest, CompletionRequest
from tests.harness.parrot import Http, Parrot, base_station, templated

pytestmark = pytest.mark.slow

COMPLETION = ("/v1/completions", {"prompt": "a b"})
USER = {"role": "user", "content": "a b"}
CHAT = ("/v1/chat/completions", {"messages": [USER]})
BOTH = pytest.mark.parametrize(("path", "body"), [COMPLETION, CHAT], ids=["completion", "chat"])


def good(http: Http, path: str, body: Any) -> httpx.Response:
    reply = http.post(path, body)
    assert reply.status_code == 200, reply.text
    return reply


def raw(http: Http, body: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    with httpx.Client(base_url=http.url, trust_env=False) as client:
        return client.post("/v1/completions", content=body, headers=headers)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/completions",
            {"prompt": "a", "temperature": 0.0, "ignore_eos": False, "best_of": 1},
        ),
        (
            "/v1/completions",
            {
                "prompt": "a",
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            },
        ),
        ("/v1/chat/completions", {"messages": [USER | {"type": "text"}], "seed": 1234}),
        (
            "/v1/chat/completions",
            {
                "messages": [USER | {"name": None}],
                "store": None,
                "metadata": None,
                "parallel_tool_calls": None,
                "service_tier": None,
                "function_call": None,
                "stream_options": None,
                "timings": None,
            },
        ),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    USER | {"name": "ada"},
                    {"role": "assistant", "content": None, "refusal": None, "annotations": []},
                    USER,
                ],
                "metadata": {"a": "b"},
                "modalities": ["text"],
                "parallel_tool_calls": True,
                "prediction": {"type": "content", "content": "a"},
                "prompt_cache_key": "k",
                "reasoning_effort": "high",
                "safety_identifier": "u",
                "service_tier": "auto",
                "store": True,
                "stream_options": {"include_obfuscation": False},
                "tool_choice": "auto",
                "top_logprobs": 0,
                "user": "u",
                "verbosity": "low",
                "max_tokens": 3,
                "max_completion_tokens": 3,
            },
        ),
    ],
    ids=["benchmark", "load generator", "harness", "nulls", "everything"],
)
def test_fields_that_cannot_change_the_answer_are_let_through(
    http: Http, path: str, body: Any
) -> None:
    assert IGNORED_FIELDS not in good(http, path, body | {"strict": True}).headers


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_unknown_fields_are_ignored_and_named(
    http: Http, path: str, body: Any, stream: bool
) -> None:
    reply = good(http, path, body | {"colour": 1, "shape": [], "stream": stream, "none": None})
    assert reply.headers[IGNORED_FIELDS] == "colour, shape"


def test_unknown_fields_have_their_full_names(http: Http) -> None:
    path, parts = "/v1/chat/completions", [{"type": "text", "text": "a", "cache_control": {}}]
    messages = [USER, {"role": "user", "content": parts, "colour": 1}]
    reply = good(http, path, {"messages": messages})
    assert reply.headers[IGNORED_FIELDS] == (
        "messages[1].colour, messages[1].content[0].cache_control"
    )
    refused = http.post(path, {"messages": messages, "strict": True})
    assert refused.status_code == 400
    assert refused.json()["error"] == {
        "message": "messages[1].colour: is not a field of this request",
        "type": "invalid_request_error",
        "param": "messages[1].colour",
        "code": None,
    }


def test_the_header_of_ignored_fields_is_bounded_and_plain(http: Http) -> None:
    names = {f"x{i}": 1 for i in range(100)}
    body = {"prompt": "a", "é\r\nSet-Cookie: a": 1, "y" * 5000: 1, **names}
    header = good(http, "/v1/completions", body).headers[IGNORED_FIELDS]
    assert header.startswith("%C3%A9%0D%0ASet-Cookie%3A%20a, yyyy")
    assert header.endswith("x13, and 86 more")
    assert len(header) < 2000


def test_a_probe_has_no_unknown_fields(http: Http) -> None:
    body = {"device": 0, "size_bytes": 1, "count": 1, "colour": 1}
    assert http.refused("/probe", body) == "colour: is not a field of this request"


IMAGE = {"type": "image_url", "image_url": {"url": "http://a/b.png"}}


@pytest.mark.parametrize(
    ("message", "param", "error"),
    [
        ("a", "messages[1]", "allowed: a JSON object"),
        ({"role": "tool"}, "messages[1].role", "Input should be 'system', 'developer', 'user' or"),
        ({"name": 3}, "messages[1].name", "Input should be a valid string"),
        ({"content": None}, "messages[1].content", "Field required"),
        ({"content": 3}, "messages[1].content", "Input should be a valid string"),
        ({"content": [{"text": "a"}]}, "messages[1].content[0].type", "Field required"),
        ({"content": [IMAGE]}, "messages[1].content[0].type", "Input should be 'text'"),
        ({"tool_calls": [{}]}, "messages[1].tool_calls", "is not served; allowed: null or empty"),
    ],
)
def test_an_error_names_the_field_of_a_message(
    http: Http, message: Any, param: str, error: str
) -> None:
    second = USER | message if isinstance(message, dict) else message
    assert_refused(http, "/v1/chat/completions", {"messages": [USER, second]}, param, error)


@pytest.mark.parametrize(
    ("fields", "param", "error"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format.type", "Input should be"),
        ({"modalities": ["audio"]}, "modalities[0]", "Input should be 'text'"),
        ({"tools": [{"type": "function"}]}, "tools", "is not served; allowed: null or empty"),
        ({"tool_choice": "required"}, "tool_choice", "Input should be 'none' or 'auto'"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "Input should be less than or"),
        ({"stream_options": {"include_usage": "a"}}, "stream_options.include_usage", "Input"),
        ({"stop": ["a", ""]}, "stop[1]", "String should have at least 1 character"),
        ({"stop": 3}, "stop", "Input should be a valid string"),
        ({"temperature": 3}, "temperature", "Input should be less than or equal to 2"),
        ({"messages": None}, "messages", "Field required"),
    ],
)
def test_an_error_names_its_field(http: Http, fields: Any, param: str, error: str) -> None:
    path, body = CHAT
    assert_refused(http, path, body | fields, param, error)


def assert_refused(http: Http, path: str, body: Any, param: str, error: str) -> None:
    reply = http.post(path, body)
    assert reply.status_code == 400
    reported = reply.json()["error"]
    assert reported["param"] == param
    assert reported["message"].startswith(f"{param}: {error}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"prompt": "a" "b"}', "body: not JSON at character 15: Expecting ',' delimiter"),
        (b'{"prompt": "a",}', "body: not JSON at character 1"),
        (b"", "body: not JSON at character 0: Expecting value"),
        (b"{", "body: not JSON at character 1"),
        (b'{"prompt": "\xff"}', "body: not UTF-8 at byte 12"),
        (b'{"prompt": ' + b"[" * 100_000, "body: JSON that cannot be read"),
        (b'{"prompt": [' + b"9" * 5000 + b"]}", "body: JSON that cannot be read"),
        (b"[1]", "body: allowed: a JSON object"),
        (b'"a"', "body: allowed: a JSON object"),
    ],
)
def test_an_error_in_json_names_its_place(http: Http, body: bytes, message: str) -> None:
    reply = raw(http, body, {"content-type": "application/json"})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["message"].startswith(message)
    assert error["param"] is None


@pytest.mark.parametrize(
    "headers",
    [None, {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "text/plain"}],
)
def test_a_body_is_json_whatever_its_content_type(
    http: Http, headers: dict[str, str] | None
) -> None:
    assert raw(http, b'{"prompt": "a b"}', headers).json()["choices"][0]["text"] == "a b"


def test_a_byte_order_mark_is_dropped(http: Http) -> None:
    assert raw(http, b'\xef\xbb\xbf{"prompt": "a b"}').status_code == 200


def test_nan_is_refused(http: Http) -> None:
    reply = raw(http, b'{"prompt": "a", "temperature": NaN}')
    assert reply.json()["error"]["param"] == "temperature"


def test_half_a_surrogate_pair_in_a_message_is_refused(http: Http) -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800"}]}'
    with httpx.Client(base_url=http.url, trust_env=False) as client:
        reply = client.post("/v1/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[0].content"


def test_a_developer_is_the_system_and_names_reach_the_template(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }} {{ m.name }}: {{ m.content }} {% endfor %}"
    parrot = Parrot()
    with base_station(parrot, templated(tmp_path / "model", template)) as url:
        Http(url).chat({"role": "developer", "content": "a"}, USER | {"name": "ada"}, max_tokens=1)
        Http(url).complete("system : a user ada: a b ")
    assert parrot.requests[0].prompts == parrot.requests[1].prompts


@pytest.mark.parametrize("path_and_body", [COMPLETION, CHAT], ids=["completion", "chat"])
def test_every_chunk_may_have_the_usage_so_far(http: Http, path_and_body: Any) -> None:
    path, body = path_and_body
    options = {"include_usage": True, "continuous_usage_stats": True}
    text = good(http, path, body | {"stream": True, "stream_options": options}).text
    *parts, last = [
        json.loads(line.removeprefix("data: "))
        for line in text.split("\n\n")
        if line.startswith("data: {")
    ]
    made = [part["usage"]["completion_tokens"] for part in parts]
    assert made == sorted(made)
    assert set(made) >= {1, 2}
    assert parts[-1]["usage"] == last["usage"]
    assert last["usage"]["completion_tokens"] == last["usage"]["prompt_tokens"] == 2


def test_usage_in_every_chunk_does_not_need_usage_at_the_end(http: Http) -> None:
    body = {"prompt": "a", "stream": True, "stream_options": {"continuous_usage_stats": True}}
    text = good(http, "/v1/completions", body).text
    chunks = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    assert all(chunk["choices"] and chunk["usage"] for chunk in chunks)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*ChatRequest.model_fields, "role", "content", "text", "type", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from([CompletionRequest, ChatRequest]), st.binary(max_size=30) | json_values)
def test_any_body_is_read_or_refused_in_one_line(model: type[Body], value: Any) -> None:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    text = "nothing"
    try:
        text = str(asyncio.run(read(Request({"type": "http"}, receive), model)).headers)
    except ApiError as error:
        text = error.body["error"]["message"]
    assert "\n" not in text
