"""POST /v1/chat/completions, as OpenAI defines it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InputError
from services.bs.http.chat.chat_template import ChatTemplate
from tests.harness.parrot import (
    CONTEXT_LENGTH,
    FOLDER,
    Http,
    Parrot,
    base_station,
    templated,
    tokenizer,
)

PATH = "/v1/chat/completions"
SYSTEM = {"role": "system", "content": "Answer."}
USER = {"role": "user", "content": "What is 4 + 5?"}
IDS: list[int] = tokenizer().encode("What is 4 + 5?").ids


def test_a_chat_is_answered(http: Http, parrot: Parrot) -> None:
    reply = http.chat(SYSTEM, USER, max_tokens=50)
    assert (reply["object"], reply["model"]) == ("chat.completion", "parrot")
    (choice,) = reply["choices"]
    assert choice["message"] == {"role": "assistant", "content": USER["content"], "refusal": None}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    assert reply["usage"]["total_tokens"] == 2 * len(IDS)
    assert parrot.requests[0].prompts == [IDS]


def test_the_prompt_is_what_the_checkpoints_template_makes(tmp_path: Path) -> None:
    template = (
        "</s>{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    parrot = Parrot()
    with base_station(parrot, templated(tmp_path / "model", template)) as url:
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        Http(url).chat(SYSTEM, {"role": "user", "content": parts}, max_tokens=1)
    expected = tokenizer().encode("</s>system: Answer. user: a\nb assistant:").ids
    assert parrot.requests[0].prompts == [expected]


def test_without_max_tokens_the_context_is_the_limit(http: Http, parrot: Parrot) -> None:
    http.chat(USER)
    http.chat(USER, max_completion_tokens=5)
    limits = [request.max_tokens for request in parrot.requests]
    assert limits == [CONTEXT_LENGTH - len(IDS), 5]


def test_logprobs_name_tokens_and_their_bytes(http: Http) -> None:
    choice = http.chat({"role": "user", "content": "é"}, logprobs=True, top_logprobs=2)["choices"][
        0
    ]
    first, second = choice["logprobs"]["content"]
    assert (first["token"], first["bytes"], first["logprob"]) == ("bytes:\\xc3", [0xC3], -2 / 8)
    assert (second["token"], second["bytes"]) == ("bytes:\\xa9", [0xA9])
    assert [top["logprob"] for top in first["top_logprobs"]] == [-2 / 16] * 2
    plain = http.chat(USER, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [token["top_logprobs"] for token in plain] == [[]] * len(IDS)


def test_a_stream_begins_with_the_role_and_ends_with_the_usage(http: Http) -> None:
    body = {"messages": [USER], "stream": True, "stream_options": {"include_usage": True}}
    lines = http.post(PATH, body | {"logprobs": True}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    first, *parts, finish, last = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(part["choices"][0]["delta"]["content"] for part in parts)
    assert text == USER["content"]
    assert sum(len(p["choices"][0]["logprobs"]["content"]) for p in parts) == len(IDS)
    assert finish["choices"][0]["delta"] == {}
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(IDS)
    assert all(chunk["usage"] is None for chunk in (first, *parts, finish))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "messages: List should have at least 1 item"),
        (
            {"messages": [{"role": "tool", "content": "a"}]},
            "messages[0].role: Input should be 'system', ",
        ),
        ({"messages": [SYSTEM]}, "messages: must have at least one token"),
        ({"messages": [{"role": "user", "content": "a " * 80}]}, "exceed the model's context"),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens: is 0, allowed: from 1"),
        (
            {"messages": [USER], "max_tokens": 1, "max_completion_tokens": 2},
            "max_tokens: allowed: equal to max_completion_tokens",
        ),
        ({"messages": [USER], "top_logprobs": 1}, "top_logprobs: allowed: with logprobs only"),
        ({"messages": [USER], "tools": [{"type": "function"}]}, "tools: is not served"),
        (
            {"messages": [USER], "response_format": {"type": "json_object"}},
            "response_format.type: Input should be 'text'",
        ),
    ],
)
def test_invalid_requests_are_refused_in_one_line(http: Http, body: Any, message: str) -> None:
    assert message in http.refused(PATH, body)


def test_defaults_of_unsupported_fields_are_accepted(http: Http) -> None:
    http.chat(USER, response_format={"type": "text"}, tools=[], tool_choice="none", n=1)


def test_a_checkpoint_without_a_template_says_so(tmp_path: Path) -> None:
    shutil.copy(FOLDER / "tokenizer.json", tmp_path)
    with base_station(Parrot(), tmp_path) as url:
        assert "no chat template" in Http(url).refused(PATH, {"messages": [USER]})


def test_a_template_may_refuse_messages(tmp_path: Path) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with base_station(Parrot(), templated(tmp_path / "model", template)) as url:
        message = Http(url).refused(PATH, {"messages": [USER]})
    assert message == "messages: the chat template refuses them: roles must alternate"


def test_a_damaged_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = templated(tmp_path / "model", "")
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(InputError, match="not a readable tokenizer") as caught:
        ChatTemplate(folder)
    assert "\n" not in str(caught.value)
