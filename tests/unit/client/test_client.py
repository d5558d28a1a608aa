"""The replay's client against a small HTTP server: the requests it sends, the streams it reads."""

from __future__ import annotations

import time

import pytest

from orchestrator.client.client import Client, Reply
from orchestrator.client.sse import AnswerError
from orchestrator.contracts.openai import CompletionRequest
from orchestrator.contracts.timings import Timings
from services.bs.http.openai import schema
from tests.harness.replay_stack import SLOW_S, TIMINGS, prompt, received


def test_a_completion_request_has_the_prompts_fields(client: Client) -> None:
    received.clear()
    client.complete(prompt("ok 1 + 11"), "tiny")
    assert received == [
        {
            "model": "tiny",
            "prompt": "ok 1 + 11",
            "max_tokens": 5,
            "stop": ["\n"],
            "temperature": 0,
            "stream": True,
            "timings": True,
        }
    ]


def test_a_stream_is_read_to_its_end(client: Client) -> None:
    reply = client.complete(prompt("ok"), "tiny")
    assert reply.error is None
    assert reply.text == " 21\u2028 #### 12"
    assert reply.timings == Timings(**TIMINGS)
    assert reply.first_token_s is not None
    assert reply.started_s < reply.first_token_s <= reply.ended_s
    assert abs(reply.ended_s - time.time()) < 5


def test_the_first_token_comes_with_the_first_chunk(client: Client) -> None:
    reply = client.complete(prompt("slow"), "tiny")
    assert reply.first_token_s is not None
    assert reply.first_token_s - reply.started_s >= SLOW_S


def test_the_first_token_does_not_wait_for_its_text(client: Client) -> None:
    reply = client.complete(prompt("late"), "tiny")
    assert reply.first_token_s is not None
    assert reply.ended_s - reply.first_token_s >= SLOW_S


def test_a_completion_may_have_no_text(client: Client) -> None:
    reply = client.complete(prompt("mute"), "tiny")
    assert (reply.error, reply.text) == (None, "")
    assert reply.first_token_s is not None


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        ("500", 'HTTP 500: {"detail":"device-3\\nis gone"}', ""),
        ("broken", "RemoteProtocolError: peer closed connection", " 21\u2028"),
        ("cut", "the stream ended before [DONE]", " 21\u2028"),
        ("error", "all devices are down", " 21\u2028"),
        ("garbage", "unexpected data in the stream: JSON: Invalid JSON", ""),
        ("untimed", "the stream ended without timings", " 21\u2028 #### 12"),
    ],
)
def test_a_failed_request_has_a_one_line_error_and_its_text_so_far(
    client: Client, word: str, error: str, text: str
) -> None:
    reply = client.complete(prompt(word), "tiny")
    assert reply.error is not None
    assert reply.error.startswith(error)
    assert "\n" not in reply.error
    assert reply.text == text
    assert client.complete(prompt("ok"), "tiny").error is None


def test_proxies_of_the_environment_are_not_used(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client = Client(url, url)
    assert client.health().model.name == "tiny"
    client.close()


def test_scores_without_the_timings_that_were_requested_are_an_error() -> None:
    request = CompletionRequest(model="m", prompt=["a b"], max_tokens=0, echo=True)
    with pytest.raises(AnswerError, match="the answer ended without timings"):
        Reply(0.0).check(request)


def test_every_field_that_the_client_sends_is_one_of_the_api() -> None:
    assert set(CompletionRequest.model_fields) <= set(schema.CompletionRequest.model_fields)
