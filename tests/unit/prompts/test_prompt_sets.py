import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestrator.cli.prompts import app
from orchestrator.errors import InputError
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.formats import source
from orchestrator.prompts.prompt import ChoicePrompt

ITEM = {"id": "a-1", "prompt": "What is 1 + 1?", "answer": "2", "max_tokens": 8, "stop": ["\n"]}

CHOICE = {"id": "c", "prompt": "Ice is", "choices": [" cold", " warm", " cold"], "gold": 2}


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


def test_a_user_s_file_is_loaded(tmp_path: Path) -> None:
    loaded = prompt_sets.load(write(tmp_path / "mine.jsonl", ITEM, ITEM | {"id": "a-2"}))
    assert loaded.name == "mine"
    assert [prompt.id for prompt in loaded.prompts] == ["a-1", "a-2"]
    assert loaded.prompts[0].model_dump() == ITEM | {"scoring": "match"}
    assert [prompt.id for prompt in loaded.head(1).prompts] == ["a-1"]
    assert loaded.head(None) == loaded


def test_bundled_sets_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDMOE_PROMPTS_DIR", str(tmp_path))
    write(tmp_path / "order.jsonl", ITEM)
    write(tmp_path / "facts.jsonl", ITEM)
    assert prompt_sets.bundled() == ["facts", "order"]
    assert prompt_sets.load("order").name == "order"
    assert "'oder' is unknown; allowed: facts, order, or FORMAT:PATH" in error_of("oder")


def test_the_sets_in_the_repository_are_valid() -> None:
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
        (ITEM | {"stop": "\n"}, r"field stop: '\n' is not a list of at most 16 texts"),
        (ITEM | {"stop": [""]}, "field stop: '' is not a list of at most 16 texts"),
        (ITEM | {"hint": "x"}, "field 'hint' is unknown; allowed: id, prompt, answer, max_tokens"),
        (ITEM | {"scoring": "code"}, "field scoring: 'code' is not match or number"),
        (ITEM | {"prompt": "x" * (1 << 20) + "x"}, "xxx… is not a non-empty text of at most"),
        (CHOICE | {"gold": 3}, "field gold: 3 is not 0 to 2"),
        (CHOICE | {"gold": -1}, "field gold: -1 is not 0 to 2"),
        (CHOICE | {"gold": "2"}, "field gold: '2' is not the number of a choice, the first being"),
        (CHOICE | {"choices": [" a"]}, "field choices: [' a'] is not a list of 2 to 64 texts"),
        (CHOICE | {"choices": [" a", " "]}, "field choices: ' ' is not a list of 2 to 64 texts"),
        (CHOICE | {"answer": "x"}, "field 'answer' is unknown; allowed: id, prompt, choices, gold"),
        (ITEM | {"id": "first"}, "field id: 'first' is already the id of line 1"),
    ],
)
def test_an_invalid_line_is_refused(tmp_path: Path, line: object, expected: str) -> None:
    message = error_of(write(tmp_path / "bad.jsonl", ITEM | {"id": "first"}, line))
    assert message.startswith(f"prompt set {tmp_path / 'bad.jsonl'}, line 2")
    assert expected in message
    assert len(message) < 300 + len(str(tmp_path))


def test_an_invalid_file_is_refused(tmp_path: Path) -> None:
    assert "the file is empty" in error_of(write(tmp_path / "empty.jsonl"))
    assert "No such file" in error_of(f"jsonl:{tmp_path / 'none.jsonl'}")
    assert "Is a directory" in error_of(f"jsonl:{tmp_path}")
    (tmp_path / "latin.jsonl").write_bytes('{"id": "é"}'.encode("latin-1"))
    assert "latin.jsonl: not a text in UTF-8" in error_of(f"jsonl:{tmp_path / 'latin.jsonl'}")
    assert "format 'csv' is not one of arc, boolq" in error_of("csv:x")


def test_the_commands_list_and_check_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDMOE_PROMPTS_DIR", str(tmp_path))
    long = "What is\n1 + 1? " + "x" * 200
    first = "What is 1 + 1? " + "x" * 38 + "…"
    write(tmp_path / "sums.jsonl", ITEM | {"prompt": long}, ITEM | {"id": "a-2"})
    run = CliRunner().invoke
    listed = json.loads(run(app, ["list", "--json"]).stdout)
    assert listed["sets"] == [{"name": "sums", "items": 2, "first": first}]
    assert "humaneval" in listed["formats"]
    assert f"sums 2 {first}" in " ".join(run(app, ["list"]).stdout.split())
    checked = run(app, ["check", "sums"])
    assert (checked.stdout, checked.exit_code) == (
        f"{tmp_path / 'sums.jsonl'}: ok, 2 items, scored: 2 by match\n",
        0,
    )
    assert json.loads(run(app, ["check", "sums", "--json"]).stdout)["items"] == 2
    assert isinstance(run(app, ["check", "none"]).exception, InputError)
    shown = run(app, ["check", "sums", "--show", "1"]).stdout
    assert shown.endswith("--- a-2\nWhat is 1 + 1?\n--- right (match)\n2\n")
    assert str(run(app, ["check", "sums", "--show", "2"]).exception).endswith("allowed: 0 to 1")
    fault = str(run(app, ["check", "sums", "--shots", "1"]).exception)
    assert fault == "shots is 1: jsonl has no solved examples to show; allowed: 0"


def test_a_custom_set_may_have_multiple_choices(tmp_path: Path) -> None:
    spec = write(tmp_path / "mine.jsonl", CHOICE, ITEM)
    choice, question = prompt_sets.load(spec).prompts
    assert isinstance(choice, ChoicePrompt)
    assert (choice.choices, choice.gold, choice.answer) == ([" cold", " warm", " cold"], 2, " cold")
    assert question.scoring == "match"
    shown = CliRunner().invoke(app, ["check", spec, "--show", "0"]).stdout
    assert "scored: 1 by choice, 1 by match" in shown
    assert "--- choice 2, the right one\n cold\n" in shown
    shown = CliRunner().invoke(app, ["check", spec, "--show", "0", "--json"]).stdout
    assert json.loads(shown)["prompt"]["gold"] == 2


def test_a_custom_set_may_score_by_number(tmp_path: Path) -> None:
    spec = write(tmp_path / "mine.jsonl", ITEM | {"scoring": "number"})
    assert prompt_sets.load(spec).prompts[0].scoring == "number"
    spec = write(tmp_path / "mine.jsonl", ITEM | {"scoring": "number", "answer": "two"})
    assert "line 1, field answer: 'two' is not a number, as scoring has it" in error_of(spec)


def test_a_seed_determines_the_order(tmp_path: Path) -> None:
    loaded = prompt_sets.load(
        write(tmp_path / "x.jsonl", *(ITEM | {"id": str(n)} for n in range(50)))
    )
    assert loaded.shuffled(1) == loaded.shuffled(1)
    assert loaded.shuffled(1) != loaded.shuffled(2)
    assert sorted(loaded.shuffled(1).prompts, key=lambda prompt: int(prompt.id)) == [
        *loaded.prompts
    ]
    assert [prompt.id for prompt in loaded.shuffled(7).head(3).prompts] == ["24", "35", "14"]


def test_trailing_blank_lines_are_ignored(tmp_path: Path) -> None:
    loaded = prompt_sets.load(write(tmp_path / "x.jsonl", ITEM, "", " \t\r"))
    assert len(loaded.prompts) == 1
    spec = write(tmp_path / "x.jsonl", "", ITEM)
    assert "line 1: '' is not a JSON object" in error_of(spec)


def test_byte_order_marks_and_windows_line_ends_are_ignored(tmp_path: Path) -> None:
    spec = write(tmp_path / "x.jsonl", ITEM)
    plain = prompt_sets.load(spec)
    data = (tmp_path / "x.jsonl").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + data)
    assert prompt_sets.load(spec).prompts == plain.prompts
    (tmp_path / "x.jsonl").write_bytes(gzip.compress(b"\xef\xbb\xbf" + data))
    assert prompt_sets.load(spec).prompts == plain.prompts


def test_compressed_files_are_read(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", ITEM)
    data = gzip.compress((tmp_path / "x.jsonl").read_bytes())
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(data)
    loaded = prompt_sets.load(f"jsonl:{packed}")
    assert loaded.name == "x"
    assert loaded.prompts == prompt_sets.load(f"jsonl:{tmp_path / 'x.jsonl'}").prompts
    packed.write_bytes(data[:-9])
    assert "x.jsonl.gz: not a whole gzip file" in error_of(f"jsonl:{packed}")
    packed.write_bytes(b"not packed")
    assert "x.jsonl.gz, line 1: 'not packed' is not a JSON object" in error_of(f"jsonl:{packed}")
    packed.write_bytes(gzip.compress(bytes(source.MAX_BYTES + 1), compresslevel=1))
    assert "larger than the 67108864 bytes allowed" in error_of(f"jsonl:{packed}")
