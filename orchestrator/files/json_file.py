"""Files of one JSON document each, written atomically: a reader sees a whole document or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError, first_fault

_Document = TypeVar("_Document", bound=BaseModel)


def read(file: Path, kind: type[_Document], what: str) -> _Document:
    """Return the document in a file; InputError if it cannot be read, or is not a valid `what`."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except ValidationError as error:
        raise InputError(f"{file}: not {what} of this version: {first_fault(error)}") from None


def write(file: Path, document: BaseModel) -> None:
    """Replace the content of a file by a document."""
    with _written(file, document) as temporary_file:
        temporary_file.replace(file)


def create(file: Path, document: BaseModel) -> None:
    """Write a document into a new file; FileExistsError if the file exists already."""
    with _written(file, document) as temporary_file:
        os.link(temporary_file, file)


@contextmanager
def _written(file: Path, document: BaseModel) -> Iterator[Path]:
    """Write a document to a temporary file in the same folder, and yield its path."""
    temporary_file = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary_file.open("w", encoding="utf-8") as text:
            text.write(document.model_dump_json(indent=2) + "\n")
            text.flush()
            os.fsync(text.fileno())
        yield temporary_file
    finally:
        temporary_file.unlink(missing_ok=True)
