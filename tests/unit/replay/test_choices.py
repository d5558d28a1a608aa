"""Several choices per prompt, and what ends them, through a real engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.harness.cell import Cell, emulating
from tests.harness.engine_room import Answer, EngineRoom, asking
from tests.harness.parrot import Http, Parrot

PROMPT = [3, 14, 15, 9, 26]
OTHER = [3, 14, 2]
END = 5


@pytest.fixture
def room(cell: Cell) -> EngineRoom:
    cell.channel.state = emulating(flops=1e15)
    cell.start_all()
    return EngineRoom(cell, ends=frozenset([END]))


def texts(answer: Answer) -> list[str]:
    return [answer.text(index) for index in range(len(answer.reasons()))]


def test_greedy_choices_are_all_the_same(room: EngineRoom) -> None:
    single, several = asking([PROMPT]), asking([PROMPT], n=40)  # more than run at once
    room.serve(single, several)
    assert texts(several) == 40 * texts(single)
    assert several.end.completion_tokens == 40 * single.end.completion_tokens


def test_each_choice_has_a_seed_of_its_own(room: EngineRoom) -> None:
    drawn: dict[str, Any] = {"temperature": 1.5, "max_tokens": 8}
    several = asking([PROMPT, OTHER], n=3, seed=7, **drawn)
    alone = [asking([p], seed=s, **drawn) for p in (PROMPT, OTHER) for s in (7, 8, 9)]
    room.serve(several, *alone)
    assert texts(several) == [answer.text() for answer in alone]
    assert len(set(texts(several)[:3])) == 3


def test_choices_compute_their_shared_prompt_once(room: EngineRoom) -> None:
    several = asking([PROMPT], 1, n=4)
    room.serve(several)
    computed = len(PROMPT) - 1 + 4  # each choice computes the prompt's last token
    assert several.end.timings.prompt_tokens == computed
    assert sum(several.end.timings.experts.used.values()) == 2 * 3 * computed


ALWAYS_END: dict[str, Any] = {"max_tokens": 6, "logit_bias": {END: 100}, "logprobs": 0}


def made(answer: Answer) -> list[int]:
    return [token.token for token in answer.tokens()]


def test_the_models_end_may_be_ignored_and_a_stop_token_may_not(room: EngineRoom) -> None:
    ended = asking([PROMPT], **ALWAYS_END)
    ignoring = asking([PROMPT], **ALWAYS_END, ignore_eos=True)
    stopped = asking([PROMPT], **ALWAYS_END, ignore_eos=True, stop_tokens=frozenset([END]))
    room.serve(ended, ignoring, stopped)
    assert [made(answer) for answer in (ended, ignoring, stopped)] == [[END], 6 * [END], [END]]
    assert [answer.reasons()[0] for answer in (ended, ignoring, stopped)] == [
        "stop",
        "length",
        "stop",
    ]
    assert (ended.text(), stopped.text()) == ("", "")


def test_nothing_ends_before_min_tokens(room: EngineRoom) -> None:
    barred = asking([PROMPT], **ALWAYS_END, min_tokens=4)
    texts = asking([PROMPT], **ALWAYS_END, min_tokens=4, ignore_eos=True, stop=[f"{END} "])
    at_once = asking([PROMPT], **ALWAYS_END, ignore_eos=True, stop=[f"{END} "])
    room.serve(barred, texts, at_once)
    assert [token == END for token in made(barred)] == [False] * 4 + [True]
    assert (made(texts), texts.text()) == (5 * [END], 4 * f"{END} ")
    assert (made(at_once), at_once.text()) == ([END], "")


@pytest.mark.parametrize("path", ["completions", "chat"])
def test_choices_have_their_indices_and_usage_counts_all(
    http: Http, parrot: Parrot, path: str
) -> None:
    if path == "chat":
        reply = http.chat({"role": "user", "content": "a b c"}, n=2, max_tokens=9)
        contents = [choice["message"]["content"] for choice in reply["choices"]]
    else:
        reply = http.complete("a b c", n=2)
        contents = [choice["text"] for choice in reply["choices"]]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    assert contents == ["a b c", " b c"]
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert parrot.requests[0].n == 2


def test_choices_of_several_prompts_follow_each_other(http: Http) -> None:
    choices = http.complete(["a b", "c d"], n=2, echo=True, logprobs=0)["choices"]
    assert [choice["text"] for choice in choices] == ["a ba b", "a b b", "c dc d", "c d d"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["logprobs"]["text_offset"][2] for choice in choices] == [3, 3, 3, 3]


def test_best_of_returns_the_likeliest_per_token(http: Http) -> None:
    reply = http.complete(["a b c", "d e f"], best_of=3, n=2)
    assert [choice["text"] for choice in reply["choices"]] == [" c", " b c", " f", " e f"]
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2, 3]
    assert [choice["logprobs"] for choice in reply["choices"]] == [None] * 4
    assert reply["usage"]["completion_tokens"] == 12
    scored = http.complete("a b c", best_of=3, logprobs=1)["choices"]
    assert [choice["logprobs"]["tokens"] for choice in scored] == [[" c"]]


def test_a_stream_gives_every_choice_its_role_its_text_and_its_end(http: Http) -> None:
    body = {"messages": [{"role": "user", "content": "a b c"}], "n": 2, "stream": True}
    lines = http.post("/v1/chat/completions", body).text.split("\n\n")
    deltas = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    for index, text in enumerate(["a b c", " b c"]):
        first, *parts, last = [d for d in deltas if d["index"] == index]
        assert first["delta"] == {"role": "assistant", "content": ""}
        assert "".join(part["delta"]["content"] for part in parts) == text
        assert last["finish_reason"] == "stop"


def test_fields_that_change_the_answer_reach_the_engine(http: Http, parrot: Parrot) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": 0.3,
        "min_tokens": 2,
    }
    http.complete("a", logit_bias={"7": -1}, ignore_eos=True, strict=True, **fields)
    http.complete("a", top_k=-1)
    first, second = parrot.requests
    for name, value in fields.items():
        assert getattr(first.sampling, name) == value
    assert (first.sampling.logit_bias, first.ignore_eos) == ({7: -1}, True)
    assert second.sampling.top_k == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 0}, "n: Input should be greater than or equal to 1"),
        ({"n": 65}, "n: Input should be less than or equal to 64"),
        ({"n": 33, "prompt": ["a", "b"]}, "n: 33 choices of 2 prompts; allowed: 64 sequences in"),
        ({"best_of": 2, "n": 3}, "best_of: is 2, allowed: from n, 3"),
        ({"best_of": 2, "stream": True}, "best_of: is 2, allowed in a stream: n, 1"),
        ({"n": 2, "routing": True}, "routing: allowed: with a single prompt and choice"),
        ({"top_p": 1.1}, "top_p: Input should be less than or equal to 1"),
        ({"top_k": -2}, "top_k: Input should be greater than or equal to -1"),
        ({"min_p": -0.1}, "min_p: Input should be greater than or equal to 0"),
        ({"repetition_penalty": 0}, "repetition_penalty: Input should be greater than or"),
        ({"presence_penalty": 3}, "presence_penalty: Input should be less than or equal to 2"),
        ({"logit_bias": {"912": 1}}, "logit_bias.912: allowed: tokens from 0 to 911"),
        ({"logit_bias": {"a": 1}}, "logit_bias.a: String should match pattern"),
        ({"logit_bias": {"7": 101}}, "logit_bias.7: Input should be less than or equal to 100"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias: Dictionary should have"),
        ({"min_tokens": 17}, "min_tokens: is 17, allowed: up to max_tokens, 16"),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_name(http: Http, fields: Any, message: str) -> None:
    assert http.refused("/v1/completions", {"prompt": "a", **fields}).startswith(message)


def test_a_stop_text_that_is_a_special_token_matches_by_its_id(http: Http, parrot: Parrot) -> None:
    http.complete("a", stop=["</s>", "x"])
    assert parrot.requests[0].stop_tokens == {0}
