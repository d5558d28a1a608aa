"""The official Python client of OpenAI's API talks to the base station."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from orchestrator.prompts import prompt_sets
from tests.stack.conftest import MODEL, PATIENCE_S, Stack

PROMPT = prompt_sets.load("arithmetic").prompts[0]
WANTED = {"max_tokens": PROMPT.max_tokens, "stop": PROMPT.stop}


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    stack.use("ideal")
    url = stack.bs.base_url.join("/v1")
    http = openai.DefaultHttpxClient(trust_env=False)
    with OpenAI(
        base_url=str(url), api_key="none", http_client=http, max_retries=0, timeout=PATIENCE_S
    ) as made:
        yield made


@pytest.fixture
def answer(stack: Stack) -> str:
    """The model's completion of the prompt."""
    stack.use("ideal")
    text: str = stack.complete(PROMPT.prompt, **WANTED)["choices"][0]["text"]
    assert text.endswith(PROMPT.answer)
    return text


def test_the_model_is_listed(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == client.models.retrieve(model.id).id == MODEL.name


def test_a_completion_gives_the_answer(client: OpenAI, answer: str) -> None:
    reply = client.completions.create(
        model=MODEL.name, prompt=PROMPT.prompt, max_tokens=PROMPT.max_tokens, stop=PROMPT.stop
    )
    assert reply.choices[0].text == answer
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_streamed_completion_gives_the_answer(client: OpenAI, answer: str) -> None:
    stream = client.completions.create(
        model=MODEL.name,
        prompt=[PROMPT.prompt, PROMPT.prompt],
        max_tokens=PROMPT.max_tokens,
        stop=PROMPT.stop,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    texts = ["", ""]
    reasons = set()
    for chunk in chunks:
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        reasons.add((choice.index, choice.finish_reason))
    assert texts == [answer, answer]
    assert {(0, "stop"), (1, "stop")} <= reasons
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0


def test_prompt_and_completion_have_log_probabilities(client: OpenAI, answer: str) -> None:
    reply = client.completions.create(
        model=MODEL.name, prompt=PROMPT.prompt, max_tokens=4, echo=True, logprobs=2
    )
    choice = reply.choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert choice.text == "".join(logprobs.tokens)
    assert (PROMPT.prompt + answer).startswith(choice.text)
    assert logprobs.token_logprobs[0] is None
    for token, logprob, top in zip(
        logprobs.tokens[-4:], logprobs.token_logprobs[-4:], logprobs.top_logprobs[-4:], strict=True
    ):
        assert logprob == max(top.values()) == top[token]  # greedy


def test_a_chat_gives_the_answer(client: OpenAI, answer: str) -> None:
    reply = client.chat.completions.create(
        model=MODEL.name,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": PROMPT.prompt},
        ],
        stop=PROMPT.stop,
        logprobs=True,
        top_logprobs=1,
    )
    choice = reply.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == answer
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    spoken = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
    assert spoken.decode().startswith(answer)
    assert all(token.top_logprobs[0].token == token.token for token in choice.logprobs.content)


def test_a_chat_continues_after_an_answer(client: OpenAI, answer: str) -> None:
    question: ChatCompletionMessageParam = {"role": "user", "content": PROMPT.prompt}
    first = client.chat.completions.create(model=MODEL.name, messages=[question], stop=PROMPT.stop)
    reply = cast(
        ChatCompletionMessageParam, first.choices[0].message.model_dump(exclude_unset=True)
    )
    again = client.chat.completions.create(
        model=MODEL.name, messages=[question, reply, question], stop=PROMPT.stop
    )
    assert again.choices[0].message.content == answer


def test_a_streamed_chat_gives_the_answer(client: OpenAI, answer: str) -> None:
    stream = client.chat.completions.create(
        model=MODEL.name,
        messages=[{"role": "user", "content": PROMPT.prompt}],
        max_completion_tokens=PROMPT.max_tokens,
        stop=PROMPT.stop,
        stream=True,
        stream_options={"include_usage": True},
    )
    first, *chunks, last = list(stream)
    assert first.choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage is not None


def test_a_response_gives_the_answer(client: OpenAI, answer: str) -> None:
    response = client.responses.create(model=MODEL.name, input=PROMPT.prompt)
    assert response.output_text.startswith(answer)
    assert response.status == "completed"


def test_a_streamed_response_gives_the_answer(client: OpenAI, answer: str) -> None:
    with client.responses.stream(model=MODEL.name, input=PROMPT.prompt) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        whole = stream.get_final_response()
    assert "".join(deltas) == whole.output_text
    assert whole.output_text.startswith(answer)


def test_errors_map_to_the_clients_exceptions(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="is not served here") as missing:
        client.completions.create(model="gpt-4", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="exceed the model's context of 2048") as long:
        client.completions.create(model=MODEL.name, prompt="a", max_tokens=2048)
    assert long.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="temperature: Input should be less than or"):
        client.chat.completions.create(
            model=MODEL.name, messages=[{"role": "user", "content": "a"}], temperature=3
        )
