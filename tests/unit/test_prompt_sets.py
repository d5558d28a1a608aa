import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator.cli.prompts import app
from orchestrator.errors import InputError
from orchestrator.replay import prompt_sets
from orchestrator.replay.scoring import exact_match, extract_answer

ITEM = {"id": "a-1", "prompt": "What is 1 + 1?", "answer": "2", "max_tokens": 8, "stop": ["\n"]}


def write(path: Path, *items: object) -> str:
    lines = [item if isinstance(item, str) else json.dumps(item) for item in items]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return f"jsonl:{path}"


def error_of(spec: str) -> str:
    with pytest.raises(InputError) as caught:
        prompt_sets.load(spec)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_of_the_users(tmp_path: Path) -> None:
    loaded = prompt_sets.load(write(tmp_path / "mine.jsonl", ITEM, ITEM | {"id": "a-2"}))
    assert loaded.name == "mine"
    assert [prompt.id for prompt in loaded.prompts] == ["a-1", "a-2"]
    assert loaded.prompts[0].model_dump() == ITEM | {"scoring": "match"}
    assert [prompt.id for prompt in loaded.head(1).prompts] == ["a-1"]
    assert loaded.head(None) == loaded


def test_bundled_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDMOE_PROMPTS_DIR", str(tmp_path))
    write(tmp_path / "order.jsonl", ITEM)
    write(tmp_path / "facts.jsonl", ITEM)
    assert prompt_sets.bundled() == ["facts", "order"]
    assert prompt_sets.load("order").name == "order"
    assert "'oder' is unknown; allowed: facts, order, or FORMAT:PATH" in error_of("oder")


def test_the_repositorys_own_sets_are_sound() -> None:
    assert prompt_sets.bundled()
    for name in prompt_sets.bundled():
        assert prompt_sets.load(name).prompts


def test_a_line_separator_in_a_text_does_not_end_the_line(tmp_path: Path) -> None:
    raw = json.dumps(ITEM | {"prompt": "one\u2028two\x85three"}, ensure_ascii=False)
    assert prompt_sets.load(write(tmp_path / "x.jsonl", raw)).prompts[0].prompt[3] == "\u2028"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{not json", "line 2: '{not json' is not a JSON object; allowed: one with id, prompt"),
        ("[1, 2]", "line 2: '[1, 2]' is not a JSON object"),
        ("", "line 2: '' is not a JSON object"),
        ("[" * 100_000, "line 2: '[[[[["),
        (
            {key: value for key, value in ITEM.items() if key != "answer"},
            "line 2: field answer is missing; allowed: a non-empty text",
        ),
        (ITEM | {"max_tokens": "8"}, "field max_tokens: '8' is not an integer of at least 1"),
        (ITEM | {"max_tokens": 0}, "field max_tokens: 0 is not an integer of at least 1"),
        (ITEM | {"max_tokens": 8.5}, "field max_tokens: 8.5 is not an integer"),
        (ITEM | {"max_tokens": True}, "field max_tokens: True is not an integer"),
        (ITEM | {"prompt": ""}, "field prompt: '' is not a non-empty text"),
        (ITEM | {"answer": 2}, "field answer: 2 is not a non-empty text"),
        (ITEM | {"stop": "\n"}, r"field stop: '\n' is not a list of non-empty texts"),
        (ITEM | {"stop": [""]}, "field stop: '' is not a list of non-empty texts"),
        (ITEM | {"hint": "x"}, "field 'hint' is unknown; allowed: id, prompt, answer, max_tokens"),
        (ITEM | {"id": "first"}, "field id: 'first' is already the id of line 1"),
    ],
)
def test_a_bad_line(tmp_path: Path, line: object, expected: str) -> None:
    message = error_of(write(tmp_path / "bad.jsonl", ITEM | {"id": "first"}, line))
    assert message.startswith(f"prompt set {tmp_path / 'bad.jsonl'}, line 2")
    assert expected in message
    assert len(message) < 300 + len(str(tmp_path))


def test_a_bad_file(tmp_path: Path) -> None:
    assert "the file is empty" in error_of(write(tmp_path / "empty.jsonl"))
    assert "No such file" in error_of(f"jsonl:{tmp_path / 'none.jsonl'}")
    assert "Is a directory" in error_of(f"jsonl:{tmp_path}")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    assert "latin.jsonl: not a text in UTF-8" in error_of(f"jsonl:{tmp_path / 'latin.jsonl'}")
    assert "format 'csv' is not one of arc, boolq" in error_of("csv:x")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDMOE_PROMPTS_DIR", str(tmp_path))
    long = "What is\n1 + 1? " + "x" * 200
    first = "What is 1 + 1? " + "x" * 38 + "…"
    write(tmp_path / "sums.jsonl", ITEM | {"prompt": long}, ITEM | {"id": "a-2"})
    run = CliRunner().invoke
    listed = json.loads(run(app, ["list", "--json"]).stdout)
    assert listed == [{"name": "sums", "items": 2, "first": first}]
    assert f"sums 2 {first}" in " ".join(run(app, ["list"]).stdout.split())
    checked = run(app, ["check", "sums"])
    assert (checked.stdout, checked.exit_code) == (f"{tmp_path / 'sums.jsonl'}: ok, 2 items\n", 0)
    assert json.loads(run(app, ["check", "sums", "--json"]).stdout)["items"] == 2
    assert isinstance(run(app, ["check", "none"]).exception, InputError)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" 12\n", "12"),
        (" 21 #### 12", "12"),
        ("1 #### 2 #### 3 ", "3"),
        ("####", ""),
        ("", ""),
        ("##### 4", "4"),
    ],
)
def test_the_answer_of_a_completion(completion: str, answer: str) -> None:
    assert extract_answer(completion) == answer


def test_exact_match() -> None:
    assert exact_match(" 21 #### 12\n", "12") == 1.0
    assert exact_match(" 12 #### 21", "12") == 0.0
    assert exact_match("Yes", "yes") == 0.0


@given(st.text(), st.text(st.characters(exclude_characters="#", exclude_categories=["Cs"])))
def test_only_what_follows_the_working_counts(working: str, answer: str) -> None:
    assert exact_match(f"{working}####{answer}", answer) == 1.0
