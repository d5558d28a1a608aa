"""Common to all formats: hashes, shots, names, and errors for invalid files."""

import hashlib
import json
from pathlib import Path

import pytest

from orchestrator.errors import InputError
from orchestrator.prompts import prompt_sets
from orchestrator.prompts.formats import item

GSM8K = [
    {"question": "Ada has 2 pens and buys 3. How many has she?", "answer": "2 + 3 = 5\n#### 5"},
    {"question": "Bo saves $600 twice. How much is that?", "answer": "2 * 600 = 1200\n#### 1,200"},
]
PIQA = {"goal": "dry a cup", "sol1": "use a towel", "sol2": "use a hose"}
ARC = {
    "id": "own-1",
    "question": "Which of these is a metal?",
    "choices": {"text": ["wood", "iron", "glass"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
BOOLQ = {"question": "is tin a metal", "passage": "Tin is a soft metal.", "answer": True}
CODE = {
    "task_id": "Own/0",
    "prompt": "def one():\n",
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}


def lines(path: Path, *items: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [item if isinstance(item, str) else json.dumps(item) for item in items]
    path.write_text("".join(line + "\n" for line in texts), encoding="utf-8")
    return path


def error_of(spec: str, shots: int = 0) -> str:
    with pytest.raises(InputError) as caught:
        prompt_sets.load(spec, shots)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_set_is_named_after_its_file_or_the_folder_of_its_benchmark(tmp_path: Path) -> None:
    file = lines(tmp_path / "ARC-Easy" / "test.jsonl", ARC)
    assert prompt_sets.load(f"arc:{file}").name == "ARC-Easy-test"
    file = lines(tmp_path / "ARC-Easy" / "my.arc.jsonl", ARC)
    assert prompt_sets.load(f"arc:{file}").name == "my.arc"


def test_shots_come_from_the_file_of_examples(tmp_path: Path) -> None:
    file = lines(tmp_path / "test.jsonl", GSM8K[1])
    lines(tmp_path / "train.jsonl", GSM8K[0], GSM8K[1])
    plain, shown = (prompt_sets.load(f"gsm8k:{file}", shots) for shots in (0, 1))
    assert plain.prompts[0].prompt == "Question: Bo saves $600 twice. How much is that?\nAnswer:"
    assert shown.prompts[0].prompt == (
        "Question: Ada has 2 pens and buys 3. How many has she?\nAnswer: 2 + 3 = 5\n#### 5\n\n"
        "Question: Bo saves $600 twice. How much is that?\nAnswer:"
    )
    assert (plain.template, shown.template) == ("gsm8k-1, 0 shots", "gsm8k-1, 1 shots")


def test_the_hash_covers_all_files_of_the_prompts(tmp_path: Path) -> None:
    file = lines(tmp_path / "test.jsonl", GSM8K[1])
    examples = lines(tmp_path / "train.jsonl", GSM8K[0])
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in (file, examples))
    assert prompt_sets.load(f"gsm8k:{file}").sha256 == first
    listing = f"{first}  test.jsonl\n{second}  train.jsonl\n"
    both = prompt_sets.load(f"gsm8k:{file}", 1).sha256
    assert both == hashlib.sha256(listing.encode()).hexdigest()


def test_unavailable_shots_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lines(tmp_path / "test.jsonl", GSM8K[1])
    fault = f"shots is 1: for {file} there is no {tmp_path / 'train.jsonl'}; allowed: 0"
    assert error_of(f"gsm8k:{file}", 1) == fault
    examples = lines(tmp_path / "train.jsonl", GSM8K[0])
    assert "train.jsonl has 1 items; allowed: 0 to 1" in error_of(f"gsm8k:{file}", 2)
    assert "is the file that shots come from; allowed: 0" in error_of(f"gsm8k:{examples}", 1)
    code = lines(tmp_path / "code.jsonl", CODE)
    assert "humaneval has no solved examples" in error_of(f"humaneval:{code}", 1)
    monkeypatch.setattr(item, "MAX_CHARACTERS", 100)
    assert "prompt gsm8k-1 is 137 characters long; allowed: at most 100" in error_of(
        f"gsm8k:{file}", 1
    )


def without(whole: dict[str, object], field: str) -> dict[str, object]:
    return {key: value for key, value in whole.items() if key != field}


@pytest.mark.parametrize(
    ("kind", "line", "expected"),
    [
        ("gsm8k", "{", "'{' is not a JSON object; allowed: one with question, answer"),
        ("gsm8k", without(dict(GSM8K[0]), "question"), "field question is missing; allowed: a"),
        ("gsm8k", GSM8K[0] | {"answer": "five"}, "field answer: 'five' is not a text that ends in"),
        ("gsm8k", GSM8K[0] | {"answer": "5 #### x"}, "is not a text that ends in #### NUMBER"),
        ("humaneval", CODE | {"test": ""}, "field test: '' is not a non-empty text"),
        ("humaneval", CODE | {"entry_point": "f(x"}, "'f(x' is not the name of a function"),
        ("humaneval", CODE, "field id: 'Own/0' is already the id of line 1"),
        ("arc", ARC | {"answerKey": "B"}, "field answerKey: 'B' is not one of 1, 2, 3"),
        ("arc", ARC | {"choices": ["a", "b"]}, "is not an object of text and label"),
        ("arc", ARC | {"choices": {"text": ["a", "b"]}}, "field choices.label is missing"),
        ("arc", ARC | {"choices": {"text": ["a"], "label": ["A"]}}, "field choices.text: ['a'] is"),
        (
            "arc",
            ARC | {"choices": {"text": ["a", "b"], "label": ["1", "1"]}},
            "field choices.label: ['1', '1'] is not 2 labels, a different one per text",
        ),
        (
            "arc",
            ARC | {"choices": {"text": ["a", " "], "label": ["1", "2"]}},
            "field choices.text: ' ' is not a text that is not blank",
        ),
        ("arc", ARC, "field id: 'own-1' is already the id of line 1"),
        ("boolq", BOOLQ | {"answer": "yes"}, "field answer: 'yes' is not true or false"),
        ("boolq", BOOLQ | {"answer": 1}, "field answer: 1 is not true or false"),
        ("boolq", without(BOOLQ, "passage"), "field passage is missing; allowed: a non-empty"),
        ("piqa", PIQA | {"sol2": ""}, "field sol2: '' is not a non-empty text"),
        ("piqa", PIQA | {"sol2": " "}, "field sol2: ' ' is not a text that is not blank"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number(
    tmp_path: Path, kind: str, line: object, expected: str
) -> None:
    good = {"gsm8k": GSM8K[0], "humaneval": CODE, "arc": ARC, "boolq": BOOLQ, "piqa": PIQA}[kind]
    file = lines(tmp_path / "bad.jsonl", good, line)
    lines(tmp_path / "bad-labels.lst", "0", "1")
    message = error_of(f"{kind}:{file}")
    assert message.startswith(f"prompt set {file}, line 2")
    assert expected in message


@pytest.mark.parametrize("kind", ["arc", "boolq", "gsm8k", "humaneval", "mmlu", "piqa"])
def test_a_file_without_items_is_refused(tmp_path: Path, kind: str) -> None:
    empty = lines(tmp_path / "empty.jsonl")
    assert "the file is empty, at least one item is needed" in error_of(f"{kind}:{empty}")
    assert "No such file" in error_of(f"{kind}:{tmp_path / 'none.jsonl'}")


def test_fields_that_a_distribution_adds_are_ignored(tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl", BOOLQ | {"idx": 7})
    assert prompt_sets.load(f"boolq:{file}").prompts[0].id == "boolq-1"
