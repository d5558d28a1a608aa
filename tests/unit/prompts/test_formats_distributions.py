"""Distributions of benchmarks: each gives the same prompts as the plain format."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from orchestrator.prompts import prompt_sets
from orchestrator.prompts.formats import source
from orchestrator.prompts.prompt import ChoicePrompt
from orchestrator.prompts.prompt_sets import PromptSet
from tests.unit.prompts.test_formats import ARC, BOOLQ, CODE, GSM8K, PIQA, error_of, lines

TEXTS, LABELS = ["wood", "iron", "glass"], ["1", "2", "3"]
PAIRS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]
MMLU = {"question": "Which is cold?", "choices": ["fire", "ice", "sun", "tea"], "answer": 1}


def loaded(kind: str, file: Path, shots: int = 0) -> PromptSet:
    return prompt_sets.load(f"{kind}:{file}", shots)


def table(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def golds(found: PromptSet) -> list[int]:
    return [prompt.gold for prompt in found.prompts if isinstance(prompt, ChoicePrompt)]


@pytest.mark.parametrize(
    "form",
    [
        {"question": {"stem": ARC["question"], "choices": PAIRS}},
        {"question": {"stem": ARC["question"], "choices": PAIRS, "para": "x"}, "answerKey": 2},
        {"choices": PAIRS},
        {"choices": json.dumps(ARC["choices"])},
        {"choices": json.dumps(PAIRS)},
        {"choices": {"text": TEXTS, "label": [1, 2, 3]}, "answerKey": 2},
        {"choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": "B"},
        {"choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": "2"},
        {"choices": {"text": TEXTS, "label": ["A", "B", "C"]}, "answerKey": 2},
    ],
)
def test_every_form_of_arc_gives_the_same_prompts(tmp_path: Path, form: dict[str, Any]) -> None:
    plain = loaded("arc", lines(tmp_path / "test.jsonl", ARC))
    line: dict[str, Any] = ARC | form
    if isinstance(line["question"], dict):
        del line["choices"]
    assert loaded("arc", lines(tmp_path / "other.jsonl", line)).prompts == plain.prompts
    assert loaded("arc", table(tmp_path / "other.parquet", line)).prompts == plain.prompts


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"answerKey": "4"}, "field answerKey: '4' is not one of 1, 2, 3"),
        ({"answerKey": True}, "field answerKey: True is not a non-empty text"),
        ({"answerKey": ""}, "field answerKey: '' is not a non-empty text"),
        ({"question": {"choices": PAIRS}}, "field question: None is not a non-empty text"),
        ({"question": {"stem": "x"}}, "field choices: None is not an object of text and label"),
        ({"choices": [{"text": "a"}, {"text": "b"}]}, "field choices.label: None is not 2 to 64"),
        ({"choices": "[" * 99_999}, "is not an object of text and label"),
        ({"choices": []}, "field choices.text: [] is not 2 to 64 non-empty texts"),
    ],
)
def test_an_invalid_form_of_arc_is_refused(
    tmp_path: Path, form: dict[str, Any], expected: str
) -> None:
    file = lines(tmp_path / "bad.jsonl", ARC | form)
    assert expected in error_of(f"arc:{file}")


@pytest.mark.parametrize(
    "form",
    [
        {"answer": True},
        {"answer": "True"},
        {"answer": "TRUE "},
        {"label": 1},
        {"label": "1"},
        {"label": 1.0},
        {"answer": None, "label": 1},
    ],
)
def test_every_form_of_boolq_gives_the_same_prompts(tmp_path: Path, form: dict[str, Any]) -> None:
    line = {"question": BOOLQ["question"], "passage": BOOLQ["passage"]} | form
    for file in (lines(tmp_path / "x.jsonl", line), table(tmp_path / "x.parquet", line)):
        assert golds(loaded("boolq", file)) == [1]
        assert loaded("boolq", file).prompts[0].prompt.endswith("is tin a metal?\nAnswer:")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"label": -1}, "field label: -1 is not 0 or 1; -1 marks a split without answers"),
        ({"label": 2}, "field label: 2 is not 0 or 1"),
        ({}, "field answer: None is not true or false; nor is there a label, 0 or 1"),
    ],
)
def test_an_invalid_answer_of_boolq_is_refused(
    tmp_path: Path, form: dict[str, Any], expected: str
) -> None:
    line = {"question": BOOLQ["question"], "passage": BOOLQ["passage"]} | form
    assert expected in error_of(f"boolq:{lines(tmp_path / 'x.jsonl', line)}")
    message = error_of(f"boolq:{table(tmp_path / 'x.parquet', line)}")
    assert expected in message
    assert "x.parquet, row 1, " in message or "x.parquet, row 1: " in message


@pytest.mark.parametrize("label", [1, "1", 1.0])
def test_piqa_s_labels_may_be_in_its_lines(tmp_path: Path, label: object) -> None:
    plain = lines(tmp_path / "valid.jsonl", PIQA)
    lines(tmp_path / "valid-labels.lst", "1")
    line = PIQA | {"label": label}
    for file in (lines(tmp_path / "x.jsonl", line), table(tmp_path / "x.parquet", line)):
        assert loaded("piqa", file).prompts == loaded("piqa", plain).prompts


def test_piqa_s_labels_may_be_compressed(tmp_path: Path) -> None:
    plain = lines(tmp_path / "valid.jsonl", PIQA)
    (tmp_path / "valid-labels.lst.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf1\r\n\r\n"))
    assert golds(loaded("piqa", plain)) == [1]


def test_missing_labels_of_piqa_are_reported(tmp_path: Path) -> None:
    file = lines(tmp_path / "test.jsonl", PIQA | {"label": -1})
    assert "field label: -1 is not 0 or 1; -1 marks a split" in error_of(f"piqa:{file}")
    file = lines(tmp_path / "x.jsonl", PIQA | {"label": 1}, PIQA)
    assert "line 2, field label: None is not 0 or 1" in error_of(f"piqa:{file}")


def test_gsm8k_and_humaneval_are_read_from_parquet(tmp_path: Path) -> None:
    for kind, items in (("gsm8k", GSM8K), ("humaneval", [CODE])):
        plain = loaded(kind, lines(tmp_path / "x.jsonl", *items))
        packed = loaded(kind, table(tmp_path / "x.parquet", *items))
        assert packed.prompts == plain.prompts
        assert packed.sha256 != plain.sha256


@pytest.mark.parametrize("answer", [1, "1", "B", " B"])
def test_rows_of_mmlu_give_the_same_prompts_as_its_csv(tmp_path: Path, answer: object) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "high_school_physics_test.csv").write_text(
        "\ufeffWhich is cold?,fire,ice,sun,tea,B\r\n\r\n", encoding="utf-8"
    )
    plain = loaded("mmlu", tmp_path)
    row = MMLU | {"answer": answer, "subject": "high_school_physics"}
    for file in (lines(tmp_path / "x.jsonl", row), table(tmp_path / "x.parquet", row)):
        assert loaded("mmlu", file).prompts == plain.prompts


def test_shots_of_mmlu_have_the_subject_of_the_row(tmp_path: Path) -> None:
    warm = MMLU | {"question": "Which is warm?"}
    named = [{"subject": subject} for subject in ("physics", "art")]
    folder = tmp_path / "datasets--cais--mmlu" / "snapshots" / "0a1b"
    table(folder / "all" / "test-00000-of-00001.parquet", *(MMLU | subject for subject in named))
    table(
        folder / "all" / "dev-00000-of-00001.parquet", *(warm | subject for subject in named[::-1])
    )
    table(folder / "physics" / "test-00000-of-00001.parquet", MMLU)  # already in all/, so ignored
    found = loaded("mmlu", folder, 1)
    assert (found.name, found.template) == ("mmlu", "mmlu-1, 1 shots")
    assert [prompt.id for prompt in found.prompts] == ["physics-1", "art-1"]
    for prompt, subject in zip(found.prompts, ("physics", "art"), strict=True):
        assert f"about {subject}.\n\nWhich is warm?" in prompt.prompt
    assert "has 0 items; allowed: 0 to 0" not in error_of(f"mmlu:{folder}", 2)
    assert "has 1 items; allowed: 0 to 1" in error_of(f"mmlu:{folder}", 2)


def test_a_folder_per_subject_is_read(tmp_path: Path) -> None:
    table(tmp_path / "physics" / "test-00000-of-00001.parquet", MMLU | {"subject": "physics"})
    table(tmp_path / "art" / "test-00000-of-00001.parquet", MMLU | {"subject": "art"})
    assert [prompt.id for prompt in loaded("mmlu", tmp_path).prompts] == ["art-1", "physics-1"]


def test_files_that_macos_adds_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "art_test.csv").write_text("Which is cold?,fire,ice,sun,tea,B\n")
    (tmp_path / "test" / "._art_test.csv").write_bytes(b"\x00\x05\x16\x07\xff")
    assert len(loaded("mmlu", tmp_path).prompts) == 1


def cached(folder: Path, name: str, *items: object) -> Path:
    """Create a link in a snapshot to an unnamed blob, as in a hub's cache."""
    file = folder / "snapshots" / "0a1b" / name
    blob = folder / "blobs" / f"{abs(hash(name)):x}"
    lines(blob, *items)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(blob)
    return file


def test_links_in_a_hub_s_cache_keep_their_names_and_neighbours(tmp_path: Path) -> None:
    folder = tmp_path / "datasets--openai--gsm8k"
    file = cached(folder, "main/test.jsonl", GSM8K[1])
    cached(folder, "main/train.jsonl", GSM8K[0])
    found = loaded("gsm8k", file, 1)
    assert found.name == "main-test"
    assert found.prompts[0].prompt.startswith("Question: Ada has")
    plain = lines(tmp_path / "main" / "test.jsonl", GSM8K[1])
    lines(tmp_path / "main" / "train.jsonl", GSM8K[0])
    assert found.sha256 == loaded("gsm8k", plain, 1).sha256
    folder = tmp_path / "mmlu"
    cached(folder, "dev/art_dev.csv", "Which is wet?,sand,water,ash,salt,B")
    file = cached(folder, "test/art_test.csv", "Which is cold?,fire,ice,sun,tea,B")
    for path, name in ((file, "art_test"), (folder / "snapshots" / "0a1b", "mmlu")):
        assert loaded("mmlu", path, 1).name == name
    assert "Which is wet?" in loaded("mmlu", file, 1).prompts[0].prompt


def test_a_link_that_became_a_text_file_is_followed(tmp_path: Path) -> None:
    link = cached(tmp_path / "gsm8k", "main/test.jsonl", GSM8K[1])
    linked = loaded("gsm8k", link)
    target = link.readlink()
    link.unlink()
    link.write_text(str(Path("../../..") / target.relative_to(tmp_path / "gsm8k")))
    assert loaded("gsm8k", link) == linked
    link.write_text("../none")
    assert "line 1: '../none' is not a JSON object" in error_of(f"gsm8k:{link}")


@pytest.mark.parametrize(
    ("name", "examples", "set_name"),
    [
        ("ARC-Easy/ARC-Easy-Test.jsonl", "ARC-Easy/ARC-Easy-Train.jsonl", "ARC-Easy-Test"),
        ("ARC-Easy/test.jsonl", "ARC-Easy/train.jsonl.gz", "ARC-Easy-test"),
        ("ARC-Easy/test.jsonl.gz", "ARC-Easy/train.jsonl", "ARC-Easy-test"),
        (
            "ARC-Easy/test-00000-of-00001.parquet",
            "ARC-Easy/train-00000-of-00002.parquet",
            "ARC-Easy-test",
        ),
        ("ARC-Easy/test/0000.parquet", "ARC-Easy/train/0000.parquet", "ARC-Easy-test"),
        ("boolq/data/test.jsonl", "boolq/data/train.jsonl", "boolq-test"),
        ("mine/own.jsonl", "mine/train.jsonl", "own"),
    ],
)
def test_a_set_s_name_and_its_examples_are_found_in_every_layout(
    tmp_path: Path, name: str, examples: str, set_name: str
) -> None:
    for file, item in ((name, ARC), (examples, ARC | {"id": "shown", "question": "Shown?"})):
        if file.endswith(".parquet"):
            table(tmp_path / file, item)
        else:
            lines(tmp_path / file, item)
    found = loaded("arc", tmp_path / name, 1)
    assert found.name == set_name
    assert found.prompts[0].prompt.startswith("Question: Shown?\nAnswer: iron\n\n")


def test_a_damaged_parquet_file_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table(tmp_path / "x.parquet", *GSM8K)
    data = file.read_bytes()
    for damaged in (data[:-9], data[:30] + data[31:], b"PAR1", b"PAR1" * 9):
        file.write_bytes(damaged)
        assert error_of(f"gsm8k:{file}").startswith(f"{file}: not a whole Parquet file: ")
    table(file, *([GSM8K[0] | {"question": "x" * 9999}] * 99))
    size = file.stat().st_size
    monkeypatch.setattr(source, "MAX_BYTES", size)
    assert error_of(f"gsm8k:{file}") == f"{file}: its rows have more than the {size} bytes allowed"
    table(file)
    assert "x.parquet: the file is empty, at least one item" in error_of(f"gsm8k:{file}")


def test_a_git_lfs_pointer_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert error_of(f"gsm8k:{file}") == (
        f"{file}: a git-lfs pointer, not the file; git lfs pull gets it"
    )


@pytest.mark.parametrize("kind", ["arc", "boolq", "gsm8k", "humaneval", "jsonl", "piqa"])
def test_a_folder_is_refused(tmp_path: Path, kind: str) -> None:
    assert error_of(f"{kind}:{tmp_path}") == f"{tmp_path}: Is a directory"


def test_a_text_in_utf_16_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps(GSM8K[0]), encoding="utf-16")
    assert error_of(f"gsm8k:{file}") == f"{file}: a text in UTF-16; allowed: UTF-8"
