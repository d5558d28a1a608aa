"""POST /v1/completions, as OpenAI defines it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.bs.engine.sampling import Sampling
from tests.harness.parrot import TIMINGS, Http, Parrot, tokenizer

PATH = "/v1/completions"
PROMPT = "What is 4 + 5?"
IDS: list[int] = tokenizer().encode(PROMPT).ids


def chunks(http: Http, **body: Any) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    lines = http.post(PATH, {"stream": True, **body}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_a_text_is_completed(http: Http, parrot: Parrot) -> None:
    reply = http.complete(PROMPT, max_tokens=3, stop="x", seed=4, temperature=0.5, model="parrot")
    (choice,) = reply["choices"]
    assert (reply["object"], reply["model"]) == ("text_completion", "parrot")
    assert choice["index"] == 0
    assert choice["text"] == tokenizer().decode(IDS[:3])
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    assert reply["usage"] == {
        "prompt_tokens": len(IDS),
        "completion_tokens": 3,
        "total_tokens": len(IDS) + 3,
    }
    (request,) = parrot.requests
    assert (request.prompts, request.stop) == ([IDS], ["x"])
    assert request.sampling == Sampling(seed=4, temperature=0.5)
    assert (request.logprobs, request.echo) == (None, False)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a b", 1),
        (["a b", "c"], 2),
        ([300, 301], 1),
        ([[300, 301], [302]], 2),
    ],
)
def test_every_form_of_prompt_is_read(
    http: Http, parrot: Parrot, prompt: Any, prompts: int
) -> None:
    reply = http.complete(prompt)
    assert [choice["index"] for choice in reply["choices"]] == list(range(prompts))
    assert len(parrot.requests[0].prompts) == prompts
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"stop"}


def test_a_null_field_has_its_default(http: Http, parrot: Parrot) -> None:
    nulls = ("max_tokens", "temperature", "stop", "seed", "n", "best_of", "top_p", "logit_bias")
    http.complete(PROMPT, **dict.fromkeys((*nulls, "echo", "stream", "logprobs", "suffix", "user")))
    assert (parrot.requests[0].max_tokens, parrot.requests[0].sampling) == (16, Sampling())


def test_echo_scores_prompts_without_making_a_token(http: Http) -> None:
    texts = ["Is 3 greater than 4? no", "Is 3 greater than 4? yes"]
    reply = http.complete(texts, max_tokens=0, echo=True, logprobs=0)
    for text, choice in zip(texts, reply["choices"], strict=True):
        scored = choice["logprobs"]
        assert choice["text"] == text == "".join(scored["tokens"])
        assert scored["token_logprobs"] == [None] + [
            -i / 8 for i in range(1, len(scored["tokens"]))
        ]
        assert scored["top_logprobs"][0] is None
        assert scored["top_logprobs"][-1] == {scored["tokens"][-1]: scored["token_logprobs"][-1]}
        answer = text.rindex(" ")
        assert [text[at:] for at in scored["text_offset"] if at >= answer] == [text[answer:]]
    assert reply["usage"]["completion_tokens"] == 0


def test_requests_of_an_evaluation_harness_are_served(http: Http) -> None:
    """Token lists, echo, the likeliest token, and one more token, which the harness leaves out."""
    reply = http.complete(
        [IDS, IDS[:4]], max_tokens=1, echo=True, logprobs=1, temperature=0, seed=1
    )
    for ids, choice in zip((IDS, IDS[:4]), reply["choices"], strict=True):
        scored = choice["logprobs"]
        assert {len(values) for values in scored.values()} == {len(ids) + 1}
        assert choice["text"] == tokenizer().decode([*ids, ids[0]])
        assert scored["top_logprobs"][1] == {
            tokenizer().decode([300]): -1 / 16,
            scored["tokens"][1]: -1 / 8,
        }
        assert scored["text_offset"][-1] == len(tokenizer().decode(ids))


def test_parts_of_characters_have_a_name_and_the_characters_offset(http: Http) -> None:
    scored = http.complete("é東", max_tokens=0, echo=True, logprobs=1)["choices"][0]["logprobs"]
    assert scored["tokens"] == [f"bytes:\\x{byte:02x}" for byte in "é東".encode()]
    assert scored["text_offset"] == [0, 0, 1, 1, 1]
    half = tokenizer().encode("東").ids[:2]
    reply = http.complete(half, max_tokens=2, echo=True, logprobs=0)["choices"][0]
    assert reply["logprobs"]["text_offset"][:2] == [0, 0]
    assert reply["text"].startswith("\ufffd")


def test_offsets_without_echo_are_those_of_the_completion(http: Http) -> None:
    choice = http.complete(PROMPT, logprobs=2)["choices"][0]
    scored = choice["logprobs"]
    assert "".join(scored["tokens"]) == choice["text"] == PROMPT
    assert [choice["text"][at] for at in scored["text_offset"]] == [t[0] for t in scored["tokens"]]
    assert {len(top) for top in scored["top_logprobs"]} == {3}


def test_a_special_token_has_a_name_but_no_text(http: Http) -> None:
    choice = http.complete([300, 0, 300], max_tokens=0, echo=True, logprobs=0)["choices"][0]
    word = tokenizer().decode([300])
    assert choice["text"] == 2 * word
    assert choice["logprobs"]["tokens"] == [word, "</s>", word]
    assert choice["logprobs"]["text_offset"] == [0, len(word), len(word)]


def test_a_stream_adds_up_to_the_whole(http: Http) -> None:
    body = {"prompt": ["a b c", "d"], "echo": True, "logprobs": 1, "max_tokens": 2}
    whole = http.complete(**body)
    parts = chunks(http, **body)
    for choice in whole["choices"]:
        mine = [p["choices"][0] for p in parts if p["choices"][0]["index"] == choice["index"]]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [part["finish_reason"] for part in mine[:-1]] == [None] * (len(mine) - 1)
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        for name, values in choice["logprobs"].items():
            assert [v for part in mine for v in (part["logprobs"] or {name: []})[name]] == values
    assert not any("usage" in part for part in parts)


def test_a_stream_ends_with_its_usage_if_requested(http: Http) -> None:
    *parts, last = chunks(http, prompt=PROMPT, stream_options={"include_usage": True})
    assert all(part["usage"] is None for part in parts)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == last["usage"]["completion_tokens"] == len(IDS)


def test_our_own_fields_come_at_the_end(http: Http) -> None:
    reply = http.complete(PROMPT, timings=True, routing=True)
    assert (reply["timings"], reply["routing"]) == (TIMINGS.model_dump(), "bnB6")
    last = chunks(http, prompt=PROMPT, timings=True, routing=True)[-1]
    assert (last["timings"], last["routing"], last["choices"]) == (TIMINGS.model_dump(), "bnB6", [])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"prompt": 3}, "prompt: allowed: a text, a list of texts, tokens, or a list of lists of"),
        ({"prompt": ["a", 3]}, "prompt: allowed: a text, a list of texts"),
        ({"prompt": [1.5]}, "prompt: allowed: a text"),
        ({"prompt": [True]}, "prompt: allowed: a text"),
        ({"prompt": []}, "prompt: has 0 prompts, allowed: 1 to 64"),
        ({"prompt": ["a"] * 65}, "prompt: has 65 prompts, allowed: 1 to 64"),
        ({"prompt": ""}, "prompt: must have at least one token"),
        ({"prompt": [[1], []]}, "prompt: must have at least one token"),
        ({"prompt": [912]}, "prompt: tokens must be from 0 to 911"),
        ({"prompt": [-1]}, "prompt: tokens must be from 0 to 911"),
        ({"prompt": ["a", "a " * 80]}, "exceed the model's context of 64"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens: is 0, allowed: from 1; 0 with echo only"),
        ({"prompt": "a", "logprobs": 6}, "logprobs: Input should be less than or equal to 5"),
        ({"prompt": "a", "suffix": "b"}, "suffix: is not served; allowed: null or empty"),
        ({"prompt": "a", "echo": True, "logits": True}, "logits: allowed: with a single prompt"),
        ({"prompt": ["a", "b"], "routing": True}, "routing: allowed: with a single prompt"),
    ],
)
def test_invalid_requests_are_refused_in_one_line(http: Http, body: Any, message: str) -> None:
    assert message in http.refused(PATH, body)


def test_defaults_of_unsupported_fields_are_accepted(http: Http) -> None:
    http.complete("a", n=1, best_of=1, top_p=1, presence_penalty=0.0, logit_bias={}, suffix="")
