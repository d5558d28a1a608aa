"""Files of one JSON document each: there as a whole or not at all, whoever is killed meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from orchestrator.errors import InputError

_Document = TypeVar("_Document", bound=BaseModel)


def read(file: Path, kind: type[_Document], what: str) -> _Document:
    """The document in a file; InputError if there is none, or it is not `what` it should be."""
    try:
        return kind.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except ValidationError as error:
        raise InputError(f"{file}: not {what} of this version: {first_fault(error)}") from None


def write(file: Path, document: BaseModel) -> None:
    """Write a document in place of what the file held."""
    with _written(file, document) as whole:
        whole.replace(file)


def create(file: Path, document: BaseModel) -> None:
    """Write a document into a new file; FileExistsError to all but the first who want it."""
    with _written(file, document) as whole:
        os.link(whole, file)


def first_fault(error: ValidationError) -> str:
    """Where a document is wrong first, and how."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}"


@contextmanager
def _written(file: Path, document: BaseModel) -> Iterator[Path]:
    """A document in a file beside the one that it is for."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8") as text:
            text.write(document.model_dump_json(indent=2) + "\n")
            text.flush()
            os.fsync(text.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)
