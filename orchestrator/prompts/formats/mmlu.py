"""MMLU: a headerless CSV per subject, or Hugging Face's rows of question, choices, answer, subject.

FOLDER/test/SUBJECT_test.csv                 question, four options, letter of the answer
FOLDER/dev/SUBJECT_dev.csv                   the subject's shots
FOLDER/all/test-00000-of-00001.parquet       all subjects; or FOLDER/SUBJECT/test-….parquet of each
FOLDER/all/dev-00000-of-00001.parquet        their shots
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from orchestrator.errors import InputError
from orchestrator.prompts.formats import item, source, splits
from orchestrator.prompts.formats.item import Item, Items, Loaded, describe, with_shots
from orchestrator.prompts.formats.source import MAX_CHARACTERS, Published, Source, Text

TEMPLATE = "mmlu-1"
LETTERS = "ABCD"
COLUMNS = ("question", *LETTERS, "answer")
# Places of the questions in a folder; the first one with any file is read.
PLACES = (
    "test/*_test.csv",
    "test/*_test.csv.gz",
    "test*.parquet",
    "all/test*.parquet",
    "*/test*.parquet",
)


def _number(letter: Any) -> Any:
    """Convert an answer to its index; distributions also store it as a letter, or as text."""
    if isinstance(letter, str) and letter.strip() in (*LETTERS, *"0123"):
        return "ABCD0123".index(letter.strip()) % 4
    return letter


class _Row(Published):
    question: Text
    choices: list[Text] = Field(min_length=4, max_length=4, description="four non-empty texts")
    answer: Annotated[
        int, BeforeValidator(_number), Field(ge=0, le=3, description="0 to 3, or A to D")
    ]
    subject: str = ""


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of one file, or of a folder's subjects in the order of their names."""
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise InputError(
            f"prompt set {path}: no file test/SUBJECT_test.csv or test*.parquet is in the folder"
        )
    prompts, sources = [], []
    for file in files:
        questions, subjects = _read(file)
        sources.append(questions)
        examples: dict[str, list[Item]] = {}
        if shots:
            shown, examples = _read(item.shots_file(file, _examples(file), shots))
            sources.append(shown)
        for subject, items in subjects.items():
            first: list[Item] = []
            if shots:
                first = item.first(Items(examples.get(subject, []), [shown]), shots)
            head = (
                "The following are multiple choice questions (with answers) about "
                f"{subject.replace('_', ' ')}.\n\n"
            )
            prompts += with_shots(items, first, head, shots)
    return Loaded(prompts, sources, describe(TEMPLATE, shots))


def _files(folder: Path) -> list[Path]:
    """Return a folder's question files, without the `._` files that macOS adds on some disks."""
    for place in PLACES:
        found = sorted(folder.glob(place))
        if files := [file for file in found if not file.name.startswith("._")]:
            return files
    return []


def _examples(file: Path) -> list[Path]:
    """Return the possible places of the shots for a file's subjects."""
    if not file.name.removesuffix(".gz").endswith(".csv"):
        return splits.of_split(file, "dev")
    return [splits.absolute(file).parent.parent / "dev" / f"{_subject(file)}_dev.csv"]


def _subject(file: Path) -> str:
    name = file.name.partition(".")[0]
    for split in ("_test", "_val", "_dev"):
        name = name.removesuffix(split)
    return name


def _read(path: Path) -> tuple[Source, dict[str, list[Item]]]:
    """Read a file; return it and its items by subject."""
    file = source.read(path)
    tabular = file.unit == "line" and not file.text.startswith('{"')
    rows = _csv_rows(file) if tabular else _rows(file)
    subjects: dict[str, list[Item]] = {}
    for subject, question, options, gold in rows:
        items = subjects.setdefault(subject, [])
        listed = "".join(f"{at}. {text}\n" for at, text in zip(LETTERS, options, strict=True))
        items.append(
            item.choice(
                f"{subject}-{len(items) + 1}",
                f"{question.strip()}\n{listed}Answer:",
                [f" {at}" for at in LETTERS],
                gold,
            )
        )
    return file, subjects


def _rows(file: Source) -> Iterator[tuple[str, str, list[str], int]]:
    """Yield subject, question, options and index of the right one, from JSON objects."""
    for number, row in enumerate(file.items(_Row), start=1):
        for column, value in (("question", row.question), *(("choices", c) for c in row.choices)):
            if not value.strip():
                raise file.fault(number, column, value, "a non-empty text")
        subject = row.subject or splits.set_name(file.path)
        yield subject, row.question, row.choices, row.answer


def _csv_rows(file: Source) -> Iterator[tuple[str, str, list[str], int]]:
    """Yield subject, question, options and index of the right one, from a CSV without header."""
    rows = csv.reader(io.StringIO("\n".join(file.lines()), newline=""), strict=True)
    subject = _subject(file.path)
    try:
        for row in rows:
            line = rows.line_num
            if len(row) != len(COLUMNS):
                columns = ", ".join(COLUMNS)
                raise InputError(
                    f"prompt set {file.path}, line {line}: {len(row)} fields; "
                    f"allowed: {len(COLUMNS)}, {columns}"
                )
            for column, value in zip(COLUMNS, row, strict=True):
                if not value.strip() or len(value) > MAX_CHARACTERS:
                    raise file.fault(line, column, value, "a non-empty text")
            question, *options, letter = row
            if letter not in tuple(LETTERS):
                raise file.fault(line, "answer", letter, "A, B, C or D")
            yield subject, question, options, LETTERS.index(letter)
    except csv.Error as error:
        raise InputError(
            f"prompt set {file.path}, line {rows.line_num}: not CSV: {error}"
        ) from None
