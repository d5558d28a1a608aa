"""POST /tokenize and /detokenize, as in vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.harness.parrot import CONTEXT_LENGTH, Http, Parrot, base_station, templated, tokenizer


def tokenized(http: Http, **body: Any) -> dict[str, Any]:
    answer = http.post("/tokenize", body)
    assert answer.status_code == 200, answer.text
    payload: dict[str, Any] = answer.json()
    return payload


def test_a_text_is_tokenized_and_restored(http: Http) -> None:
    text = "What is 4 + 5? é東"
    payload = tokenized(http, model="parrot", prompt=text)
    ids = tokenizer().encode(text).ids
    assert payload == {
        "count": len(ids),
        "max_model_len": CONTEXT_LENGTH,
        "tokens": ids,
        "token_strs": None,
    }
    assert http.post("/detokenize", {"tokens": ids}).json() == {"prompt": text}


def test_tokens_have_names_if_requested(http: Http) -> None:
    payload = tokenized(http, prompt="é", return_token_strs=True)
    assert payload["token_strs"] == ["bytes:\\xc3", "bytes:\\xa9"]


def test_special_tokens_are_shown(http: Http) -> None:
    assert http.post("/detokenize", {"tokens": [0]}).json() == {"prompt": "</s>"}


def test_an_empty_text_has_no_tokens(http: Http) -> None:
    assert tokenized(http, prompt="")["count"] == 0
    assert http.post("/detokenize", {"tokens": []}).json() == {"prompt": ""}


def test_a_chat_is_what_the_checkpoints_template_makes_of_it(tmp_path: Path) -> None:
    template = "</s>{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %} assistant:"
    message = {"role": "user", "content": "a"}
    with base_station(Parrot(), templated(tmp_path / "model", template)) as url:
        payload = tokenized(Http(url), messages=[message])
        refusal = Http(url).refused(
            "/tokenize", {"messages": [message], "add_special_tokens": True}
        )
    assert payload["tokens"] == tokenizer().encode("</s>user: a assistant:").ids
    assert refusal.startswith("add_special_tokens: ")


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/tokenize", {}, "prompt: allowed: either prompt or messages"),
        (
            "/tokenize",
            {"prompt": "a", "messages": [{"role": "user", "content": "a"}]},
            "prompt: allowed: either",
        ),
        ("/tokenize", {"prompt": 3}, "prompt: "),
        ("/tokenize", {"prompt": "a", "add_generation_prompt": False}, "add_generation_prompt: "),
        ("/detokenize", {}, "tokens: Field required"),
        ("/detokenize", {"tokens": [912]}, "tokens: must be from 0 to 911"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]: "),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]: "),
    ],
)
def test_invalid_bodies_are_refused(http: Http, path: str, body: Any, message: str) -> None:
    assert http.refused(path, body).startswith(message)
