"""Each format rendered for one item: the texts sent, and the right answer."""

from pathlib import Path

import pytest

from orchestrator.prompts import prompt_sets
from orchestrator.prompts.prompt import ChoicePrompt, CodePrompt, Prompt
from tests.unit.prompts.test_formats import ARC, BOOLQ, CODE, GSM8K, PIQA, error_of, lines

ALGEBRA = '" What is 2 + 2, in ""digits""?\nChoose.",3,4,"5, or 6",7,B\n'
ALGEBRA_DEV = "What is 1 + 1?,2,3,4,5,A\nWhat is 3 + 3?,2,3,6,5,C\n"


def load_one(spec: str, shots: int = 0) -> Prompt:
    (prompt,) = prompt_sets.load(spec, shots).prompts
    return prompt


def choice(spec: str, shots: int = 0) -> ChoicePrompt:
    prompt = load_one(spec, shots)
    assert isinstance(prompt, ChoicePrompt)
    assert (prompt.scoring, prompt.max_tokens, prompt.stop) == ("choice", 0, [])
    assert prompt.answer == prompt.choices[prompt.gold]
    return prompt


@pytest.fixture
def mmlu(tmp_path: Path) -> Path:
    (tmp_path / "test").mkdir()
    (tmp_path / "dev").mkdir()
    (tmp_path / "test" / "abstract_algebra_test.csv").write_text(ALGEBRA)
    (tmp_path / "dev" / "abstract_algebra_dev.csv").write_text(ALGEBRA_DEV)
    return tmp_path


def test_gsm8k_is_rendered(tmp_path: Path) -> None:
    prompt = load_one(f"gsm8k:{lines(tmp_path / 'x.jsonl', GSM8K[1])}")
    assert prompt == Prompt(
        id="gsm8k-1",
        prompt="Question: Bo saves $600 twice. How much is that?\nAnswer:",
        answer="1200",
        max_tokens=256,
        stop=["Question:", "\n\n"],
        scoring="number",
    )


def test_humaneval_is_rendered(tmp_path: Path) -> None:
    prompt = load_one(f"humaneval:{lines(tmp_path / 'x.jsonl', CODE)}")
    assert prompt == CodePrompt(
        id="Own/0",
        prompt="def one():\n",
        answer="    return 1\n",
        max_tokens=512,
        stop=["\nclass", "\ndef", "\n#", "\nif", "\nprint"],
        test="def check(candidate):\n    assert candidate() == 1\n",
        entry_point="one",
    )


def test_arc_is_rendered(tmp_path: Path) -> None:
    prompt = choice(f"arc:{lines(tmp_path / 'x.jsonl', ARC)}")
    assert prompt.id == "own-1"
    assert prompt.prompt == "Question: Which of these is a metal?\nAnswer:"
    assert (prompt.choices, prompt.gold) == ([" wood", " iron", " glass"], 1)


def test_piqa_is_rendered(tmp_path: Path) -> None:
    file = lines(tmp_path / "valid.jsonl", PIQA)
    lines(tmp_path / "valid-labels.lst", "0")
    prompt = choice(f"piqa:{file}")
    assert prompt.id == "piqa-1"
    assert prompt.prompt == "Question: dry a cup\nAnswer:"
    assert (prompt.choices, prompt.gold) == ([" use a towel", " use a hose"], 0)
    lines(tmp_path / "train.jsonl", PIQA | {"goal": "wet a cup"})
    lines(tmp_path / "train-labels.lst", "1")
    shown = "Question: wet a cup\nAnswer: use a hose\n\nQuestion: dry a cup\nAnswer:"
    assert choice(f"piqa:{file}", 1).prompt == shown


def test_labels_of_piqa_are_checked(tmp_path: Path) -> None:
    file = lines(tmp_path / "valid.jsonl", PIQA, PIQA)
    labels = tmp_path / "valid-labels.lst"
    assert error_of(f"piqa:{file}") == (
        f"prompt set {file}: its items have no field label, and there is no {labels}; "
        "allowed: either, 0 or 1 an item"
    )
    lines(labels, "0")
    assert error_of(f"piqa:{file}") == (
        f"prompt set {labels}: 1 labels; allowed: 2, as many as {file} has items"
    )
    lines(labels, "0", "2")
    assert error_of(f"piqa:{file}") == (
        f"prompt set {labels}, line 2, field label: '2' is not 0 or 1"
    )


def test_boolq_is_rendered(tmp_path: Path) -> None:
    prompt = choice(f"boolq:{lines(tmp_path / 'x.jsonl', BOOLQ)}")
    assert prompt.prompt == "Tin is a soft metal.\nQuestion: is tin a metal?\nAnswer:"
    assert (prompt.choices, prompt.gold) == ([" no", " yes"], 1)


def test_mmlu_is_rendered(mmlu: Path) -> None:
    prompt = choice(f"mmlu:{mmlu}")
    assert prompt.id == "abstract_algebra-1"
    assert prompt.prompt == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        'What is 2 + 2, in "digits"?\nChoose.\nA. 3\nB. 4\nC. 5, or 6\nD. 7\nAnswer:'
    )
    assert (prompt.choices, prompt.gold) == ([" A", " B", " C", " D"], 1)
    assert prompt_sets.load(f"mmlu:{mmlu}").name == mmlu.name


def test_mmlu_shows_examples_of_the_same_subject(
    mmlu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (mmlu / "test" / "tools_test.csv").write_text("What cuts?,a saw,a cup,a hat,a bed,A\n")
    (mmlu / "dev" / "tools_dev.csv").write_text("What drills?,a cup,a drill,a hat,a bed,B\n")
    algebra, tools = prompt_sets.load(f"mmlu:{mmlu}", 1).prompts
    assert "What is 1 + 1?" in algebra.prompt
    assert tools.prompt == (
        "The following are multiple choice questions (with answers) about tools.\n\n"
        "What drills?\nA. a cup\nB. a drill\nC. a hat\nD. a bed\nAnswer: B\n\n"
        "What cuts?\nA. a saw\nB. a cup\nC. a hat\nD. a bed\nAnswer:"
    )
    monkeypatch.chdir(mmlu / "test")
    assert prompt_sets.load("mmlu:tools_test.csv", 1).prompts == (tools,)
    assert "tools_dev.csv has 1 items; allowed: 0 to 1" in error_of(f"mmlu:{mmlu}", 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q,1,2,3,4,A\nq,1,2,3,4\n", "line 2: 5 fields; allowed: 6, question, A, B, C, D, answer"),
        ("q,1,2,3,4,A\nq,1,2,3,4,E\n", "line 2, field answer: 'E' is not A, B, C or D"),
        ("q,1,2,3,4,AB\n", "line 1, field answer: 'AB' is not A, B, C or D"),
        ("q,1,,3,4,A\n", "line 1, field B: '' is not a non-empty text"),
        (",1,2,3,4,A\n", "line 1, field question: '' is not a non-empty text"),
        ('q,1,2,3,4,A\n"q,1,2,3,4,A\n', "line 2: not CSV: unexpected end of data"),
        ('q,1,"2"x,3,4,A\n', "line 1: not CSV: "),
    ],
)
def test_an_invalid_row_of_mmlu_is_refused(mmlu: Path, text: str, expected: str) -> None:
    file = mmlu / "test" / "abstract_algebra_test.csv"
    file.write_text(text)
    message = error_of(f"mmlu:{mmlu}")
    assert message.startswith(f"prompt set {file}, ")
    assert expected in message


def test_an_mmlu_folder_without_tests_is_refused(tmp_path: Path) -> None:
    assert "no file test/SUBJECT_test.csv or test*.parquet is in" in error_of(f"mmlu:{tmp_path}")
