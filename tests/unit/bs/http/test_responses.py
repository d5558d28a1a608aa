"""POST /v1/responses, as OpenAI defines it, through OpenAI's client and over plain HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseTextDeltaEvent,
)

from tests.harness.parrot import CONTEXT_LENGTH, Http, Parrot, tokenizer

PATH = "/v1/responses"
QUESTION = "What is 4 + 5?"
IDS: list[int] = tokenizer().encode(QUESTION).ids


@pytest.fixture
def client(http: Http) -> Iterator[OpenAI]:
    inner = openai.DefaultHttpxClient(trust_env=False)
    with OpenAI(base_url=f"{http.url}/v1", api_key="-", http_client=inner, max_retries=0) as client:
        yield client


def test_a_text_is_answered(client: OpenAI, parrot: Parrot) -> None:
    response = client.responses.create(model="parrot", input=QUESTION)
    assert (response.output_text, response.status, response.error) == (QUESTION, "completed", None)
    assert response.model == "parrot"
    assert response.usage is not None
    assert response.usage.input_tokens == response.usage.output_tokens == len(IDS)
    assert response.usage.total_tokens == 2 * len(IDS)
    (request,) = parrot.requests
    assert (request.prompts, request.max_tokens) == ([IDS], CONTEXT_LENGTH - len(IDS))
    assert response.id == request.id


def test_a_chat_continues_after_its_answer(client: OpenAI, parrot: Parrot) -> None:
    question: Any = {"role": "user", "content": QUESTION}
    first = client.responses.create(model="parrot", input=[question], instructions="Be brief.")
    assert first.instructions == "Be brief."
    said = [item.model_dump() for item in first.output]
    part: dict[str, Any] = {"type": "input_text", "text": QUESTION}
    later: Any = [question, *said, {"type": "message", "role": "user", "content": [part]}]
    assert client.responses.create(model="parrot", input=later).output_text == QUESTION
    assert parrot.requests[1].prompts == [IDS]  # the template takes the last message


def test_an_answer_that_is_cut_is_incomplete(client: OpenAI) -> None:
    response = client.responses.create(model="parrot", input=QUESTION, max_output_tokens=2)
    assert (response.status, response.max_output_tokens) == ("incomplete", 2)
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == tokenizer().decode(IDS[:2])


def test_log_probabilities_are_returned_if_requested(client: OpenAI) -> None:
    (whole,) = client.responses.create(model="parrot", input="é", top_logprobs=2).output
    assert isinstance(whole, ResponseOutputMessage)
    (part,) = whole.content
    assert isinstance(part, ResponseOutputText)
    assert part.logprobs is not None
    assert [token.logprob for token in part.logprobs] == [-2 / 8, -3 / 8]
    assert len(part.logprobs[0].top_logprobs) == 2
    (plain,) = client.responses.create(model="parrot", input="é").output
    assert isinstance(plain, ResponseOutputMessage)
    assert isinstance(plain.content[0], ResponseOutputText)
    assert plain.content[0].logprobs == []


def test_a_stream_has_openais_events(client: OpenAI) -> None:
    stream = client.responses.create(model="parrot", input=QUESTION, stream=True)
    events = list(stream)
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(IDS),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event.delta for event in events if isinstance(event, ResponseTextDeltaEvent)]
    assert "".join(deltas) == QUESTION
    last = events[-1]
    assert isinstance(last, ResponseCompletedEvent)
    assert last.response.output_text == QUESTION
    assert last.response.usage is not None


def test_openais_client_accepts_the_events_of_a_stream(client: OpenAI) -> None:
    """The client builds the response from events, and fails if one does not fit."""
    with client.responses.stream(model="parrot", input=QUESTION, max_output_tokens=3) as stream:
        last = list(stream)[-1]
        assert isinstance(last, ResponseIncompleteEvent)
    assert last.response.output_text == tokenizer().decode(IDS[:3])


def test_a_stream_that_fails_ends_with_the_reason(client: OpenAI, parrot: Parrot) -> None:
    parrot.fails, parrot.said_before_failing = "a device is gone", 1
    *_, last = client.responses.create(model="parrot", input=QUESTION, stream=True)
    assert isinstance(last, ResponseFailedEvent)
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert last.response.error.message == parrot.fails


def test_a_failure_before_the_first_event_has_a_status(client: OpenAI, parrot: Parrot) -> None:
    parrot.full = True
    with pytest.raises(openai.RateLimitError):
        client.responses.create(model="parrot", input=QUESTION, stream=True)


def test_events_have_their_names_and_no_done(http: Http) -> None:
    lines = http.post(PATH, {"input": QUESTION, "stream": True}).text.split("\n\n")
    assert lines.pop() == ""
    for line in lines:
        name, data = line.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


def test_harmless_fields_are_let_through_and_unknown_ones_ignored(http: Http) -> None:
    through = {"metadata": {"a": "b"}, "store": True, "reasoning": {"effort": "low"}, "user": "u"}
    body = {"input": QUESTION, **through, "include": ["reasoning.encrypted_content"], "colour": 1}
    answer = http.post(PATH, body)
    assert answer.status_code == 200
    assert answer.headers["x-wdmoe-ignored-fields"] == "colour"
    assert answer.json()["metadata"] == {"a": "b"}
    assert answer.json()["store"] is False


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "input: Field required"),
        ({"input": []}, "input: "),
        ({"input": ""}, "input: must have at least one token"),
        ({"input": "a " * 80}, "input: its "),
        ({"input": [{"role": "tool", "content": "a"}]}, "input[0].role: "),
        ({"input": [{"type": "function_call_output", "output": "a"}]}, "input[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "a"}]}]},
            "input[0].content[0].type: ",
        ),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens: "),
        ({"input": "a", "max_tokens": 3}, "max_tokens: is not served"),
        ({"input": "a", "n": 2}, "n: "),
        ({"input": "a", "previous_response_id": "resp-1"}, "previous_response_id: is not served"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools: is not served"),
        ({"input": "a", "text": {"format": {"type": "json_object"}}}, "text.format.type: "),
        ({"input": "a", "background": True}, "background: "),
        ({"input": "a", "metadata": {"a": {}}}, "metadata.a: "),
        ({"input": "a", "metadata": {str(n): "" for n in range(17)}}, "metadata: "),
        ({"input": "a", "truncation": "auto"}, "truncation: "),
        ({"input": "a", "colour": 1, "strict": True}, "colour: is not a field of this request"),
    ],
)
def test_invalid_fields_are_refused_by_name(http: Http, body: Any, message: str) -> None:
    assert http.refused(PATH, body).startswith(message)


def test_another_model_is_not_found(http: Http) -> None:
    assert "not served here" in http.refused(PATH, {"input": "a", "model": "gpt-6"}, 404)
