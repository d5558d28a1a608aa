"""MMLU: a headless CSV a subject, of question, four options, and the right one's letter.

FOLDER/test/SUBJECT_test.csv     what is asked
FOLDER/dev/SUBJECT_dev.csv       the subject's shots
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.replay.formats import item, source
from orchestrator.replay.formats.item import Item, Items, Loaded, describe, with_shots
from orchestrator.replay.formats.source import MAX_CHARACTERS

TEMPLATE = "mmlu-1"
LETTERS = "ABCD"
COLUMNS = ("question", *LETTERS, "answer")


def load(path: Path, shots: int) -> Loaded:
    """The prompts of a folder's subjects in the order of their names, or of one subject's file."""
    files = sorted(path.glob("test/*_test.csv")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"prompt set {path}: no file test/SUBJECT_test.csv is in the folder")
    prompts, sources = [], []
    for file in files:
        subject = _subject(file)
        own = _read(file)
        sources += own.sources
        shown: list[Item] = []
        if shots:
            examples = file.resolve().parent.parent / "dev" / f"{subject}_dev.csv"
            found = _read(item.shots_file(file, examples, shots))
            sources += found.sources
            shown = item.first(found, shots)
        head = (
            "The following are multiple choice questions (with answers) about "
            f"{subject.replace('_', ' ')}.\n\n"
        )
        prompts += with_shots(own.items, shown, head, shots)
    return Loaded(prompts, sources, describe(TEMPLATE, shots))


def _subject(file: Path) -> str:
    name = file.name.partition(".")[0]
    for split in ("_test", "_val", "_dev"):
        name = name.removesuffix(split)
    return name


def _read(path: Path) -> Items:
    file = source.read(path)
    rows = csv.reader(io.StringIO("\n".join(file.lines()), newline=""), strict=True)
    items: list[Item] = []
    try:
        for row in rows:
            line = rows.line_num
            if len(row) != len(COLUMNS):
                columns = ", ".join(COLUMNS)
                raise InputError(
                    f"prompt set {path}, line {line}: {len(row)} fields; "
                    f"allowed: {len(COLUMNS)}, {columns}"
                )
            for column, value in zip(COLUMNS, row, strict=True):
                if not value.strip() or len(value) > MAX_CHARACTERS:
                    raise file.fault(line, column, value, "a non-empty text")
            question, *options, letter = row
            if letter not in tuple(LETTERS):
                raise file.fault(line, "answer", letter, "A, B, C or D")
            told = "".join(f"{at}. {one}\n" for at, one in zip(LETTERS, options, strict=True))
            items.append(
                item.choice(
                    f"{_subject(path)}-{len(items) + 1}",
                    f"{question.strip()}\n{told}Answer:",
                    [f" {at}" for at in LETTERS],
                    LETTERS.index(letter),
                )
            )
    except csv.Error as error:
        raise InputError(f"prompt set {path}, line {rows.line_num}: not CSV: {error}") from None
    return Items(items, [file])
