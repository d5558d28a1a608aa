"""The requests sent to the base station, and the scores of its answers, over real HTTP.

The server splits text into words with their leading white space, and has a log-probability for
each word.
"""

import itertools
import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.responses import Response
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.client import likelihood
from orchestrator.client.client import Client
from orchestrator.client.sse import AnswerError
from orchestrator.contracts.http import Status
from orchestrator.contracts.time_parts import PARTS
from orchestrator.prompts.prompt import ChoicePrompt, CodePrompt, Prompt
from orchestrator.replay.fading import Realisation
from orchestrator.replay.request import ask
from orchestrator.results.schema import Choice, Request
from tests.harness import answers
from tests.harness.replay_stack import CHANNEL
from tests.harness.serving import serve

MET = Realisation(Status.model_validate(CHANNEL), 17)
TIMINGS = answers.timings(
    time_to_first_token_s=0.001,
    completion_tokens=0,
    profile="ideal",
    **dict.fromkeys(PARTS, 0.0001),
).model_dump()
KNOWN = {" tin": -3.0, " a": -0.5, " soft": -0.5, " metal": -0.5, "Answer:tin": -2.0}

app = FastAPI()
received: list[dict[str, Any]] = []


@app.post("/v1/completions")
def completions(body: dict[str, Any]) -> Response:
    received.append(body)
    if not body.get("stream"):
        return Response(json.dumps(answer(body["prompt"])), media_type="application/json")
    if body["prompt"] == "busy":
        raise HTTPException(500, "out of order")
    chunk = {"choices": [{"text": body["prompt"], "finish_reason": "stop"}], "timings": TIMINGS}
    return Response(
        f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", media_type="text/event-stream"
    )


def answer(texts: list[str]) -> dict[str, Any]:
    return {
        "choices": [
            {"index": index, "text": text, "logprobs": logprobs(text), "finish_reason": "length"}
            for index, text in enumerate(texts)
        ],
        "timings": TIMINGS,
    }


def logprobs(text: str) -> dict[str, list[Any]]:
    tokens = re.findall(r"\s*\S+", text)
    return {
        "tokens": tokens,
        "token_logprobs": [None, *(KNOWN.get(token, -9.0) for token in tokens[1:])],
        "top_logprobs": [None, *({} for _ in tokens[1:])],
        "text_offset": [0, *itertools.accumulate(map(len, tokens))][:-1],
    }


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serve(app) as url:
        client = Client(url, url)
        yield client
        client.close()


def choice(*choices: str, gold: int = 0, prompt: str = "What is soft?\nAnswer:") -> ChoicePrompt:
    return ChoicePrompt(
        id="c", prompt=prompt, answer=choices[gold], choices=list(choices), gold=gold
    )


def send(client: Client, prompt: Prompt) -> Request:
    return ask(3, prompt, client, "tiny", 0.0, MET)[0]


def text(prompt: str, scoring: Any, answer: str) -> Prompt:
    return Prompt(id="t", prompt=prompt, answer=answer, max_tokens=9, stop=[], scoring=scoring)


def test_all_choices_go_out_in_one_request(client: Client) -> None:
    received.clear()
    send(client, choice(" tin", " a metal"))
    assert received == [
        {
            "model": "tiny",
            "prompt": ["What is soft?\nAnswer: tin", "What is soft?\nAnswer: a metal"],
            "max_tokens": 0,
            "echo": True,
            "logprobs": 0,
            "timings": True,
        }
    ]


def test_a_choice_is_scored_raw_and_by_length(client: Client) -> None:
    request = send(client, choice(" tin", " a soft metal", gold=1))
    assert request.choices == [
        Choice(log_likelihood=-3.0, tokens=1, characters=3),
        Choice(log_likelihood=-1.5, tokens=3, characters=12),
    ]
    assert (request.score, request.score_norm) == (1.0, 1.0)
    assert (request.answer, request.expected) == ("a soft metal", "a soft metal")
    request = send(client, choice(" tin", " a wooden metal"))  # -3.0 and -10.0, 3 and 14
    assert (request.score, request.score_norm) == (1.0, 0.0)
    assert (request.id, request.completion, request.error) == (3, "", None)
    assert request.time_to_first_token_s is None
    assert request.timings is not None
    assert Request.model_validate_json(request.model_dump_json()) == request


def test_white_space_at_the_prompts_end_belongs_to_the_choice(client: Client) -> None:
    request = send(client, choice("tin", "a metal", prompt="What is soft?\nAnswer: "))
    assert [c.log_likelihood for c in request.choices] == [-3.0, -1.0]
    assert [c.characters for c in request.choices] == [3, 7]


def test_a_token_across_the_border_belongs_to_the_choice(client: Client) -> None:
    request = send(client, choice("tin", " tin", prompt="What is soft? Answer:"))
    assert [c.tokens for c in request.choices] == [1, 1]
    assert [c.log_likelihood for c in request.choices] == [-9.0, -3.0]  # ` Answer:tin`, ` tin`


def test_numbers_are_scored_by_value(client: Client) -> None:
    request = send(client, text("so it is $1,200", "number", "1200"))
    assert (request.answer, request.score, request.score_norm) == ("1200", 1.0, None)
    request = send(client, text("no idea", "number", "1200"))
    assert (request.answer, request.score) == ("", 0.0)


def test_code_is_not_scored_before_its_tests_have_run(client: Client) -> None:
    prompt = CodePrompt(
        id="p", prompt="def f(): pass", answer="x", max_tokens=5, stop=[], test="t", entry_point="f"
    )
    request = send(client, prompt)
    assert (request.completion, request.score, request.error) == ("def f(): pass", None, None)


def test_a_refused_request_has_no_score(client: Client) -> None:
    request = send(client, text("busy", "match", "busy"))
    assert request.error == 'HTTP 500: {"detail":"out of order"}'
    assert (request.score, request.score_norm) == (None, None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda reply: reply["choices"].pop(), "2 choices were requested, others were returned"),
        (lambda reply: reply["choices"][1].update(index=0), "2 choices were requested, others"),
        (
            lambda reply: reply["choices"][0].update(text="x"),
            "choice 0: the base station's echo differs",
        ),
        (
            lambda reply: reply.update(timings="long"),
            "unexpected data in the answer: timings: Input should be an object",
        ),
        (
            lambda reply: reply["choices"][0]["logprobs"]["tokens"].pop(),
            "tokens, token_logprobs and text_offset differ in length",
        ),
        (
            lambda reply: reply["choices"][0]["logprobs"]["text_offset"].reverse(),
            "text_offset does not rise within the text",
        ),
        (
            lambda reply: reply["choices"][0]["logprobs"]["text_offset"].__setitem__(-1, 999),
            "text_offset does not rise within the text",
        ),
        (
            lambda reply: reply["choices"][0]["logprobs"]["token_logprobs"].__setitem__(-1, None),
            "a choice has a token without log-probability",
        ),
        (
            lambda reply: reply["choices"][0].update(logprobs=logprobs("What is soft?")),
            "a choice has a token without log-probability",
        ),
        (
            lambda reply: reply["choices"][0].update(logprobs=None),
            "choice 0: has no logprobs",
        ),
    ],
)
def test_an_answer_without_valid_likelihoods_is_an_error(change: Any, fault: str) -> None:
    prompt = choice(" tin", " a metal")
    reply = answer(prompt.texts)
    change(reply)
    with pytest.raises(AnswerError) as caught:
        likelihood.read(json.dumps(reply).encode(), prompt)
    assert str(caught.value).startswith(fault)


def test_an_offset_after_a_space_does_not_lengthen_the_previous_token() -> None:
    prompt = choice(" tin")
    reply = answer(prompt.texts)
    reply["choices"][0]["logprobs"]["text_offset"][-1] += 1
    (found,), _ = likelihood.read(json.dumps(reply).encode(), prompt)
    assert found.log_likelihood == -3.0


@given(
    st.lists(st.floats(-50, 0), min_size=1, max_size=5),
    st.lists(st.floats(-50, 0), min_size=1, max_size=5),
)
def test_a_log_likelihood_is_the_sum_over_the_choices_own_tokens(
    context: list[float], choice_logprobs: list[float]
) -> None:
    prompt = choice(" x" * len(choice_logprobs), prompt="y" * (1 + len(context)))
    reply = answer(prompt.texts)
    reply["choices"][0]["logprobs"] = {
        "tokens": ["y"] * (1 + len(context)) + [" x"] * len(choice_logprobs),
        "token_logprobs": [None, *context, *choice_logprobs],
        "text_offset": [
            *range(1 + len(context)),
            *(1 + len(context) + 2 * at for at in range(len(choice_logprobs))),
        ],
    }
    (found,), _ = likelihood.read(json.dumps(reply).encode(), prompt)
    assert found.tokens == len(choice_logprobs)
    assert found.log_likelihood == pytest.approx(sum(choice_logprobs))
    assert found.characters == 2 * len(choice_logprobs) - 1


def test_a_traced_choice_delivers_its_trace(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = {"start_unix_ns": 5, "spans": [[0, "request", 0, 9, {}]]}
    whole = answer
    monkeypatch.setattr(sys.modules[__name__], "answer", lambda t: whole(t) | {"trace": trace})
    traces: list[Any] = []
    prompt = choice(" a", " b")
    ask(3, prompt, client, "tiny", 0.0, MET, on_trace=lambda _, trace: traces.append(trace))
    assert received[-1]["trace"] is True
    assert traces[0].spans == [(0, "request", 0, 9, {})]
