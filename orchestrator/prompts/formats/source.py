"""A benchmark file: its text, its hash, and error messages for faults in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from orchestrator.errors import InputError, short
from orchestrator.files import text_file
from orchestrator.prompts.formats import parquet, splits

MAX_BYTES = 64 << 20
MAX_CHARACTERS = 1 << 20  # per text; the limit of the base station
LFS = b"version https://git-lfs.github.com/spec/"

Text = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_CHARACTERS,
        description=f"a non-empty text of at most {MAX_CHARACTERS} characters",
    ),
]


def _binary(value: Any) -> Any:
    """Convert a label that a distribution stores as text or as a float to 0 or 1."""
    if isinstance(value, str) and value.strip() in ("0", "1"):
        return int(value)
    return int(value) if isinstance(value, float) and value in (0.0, 1.0) else value


Label = Annotated[
    Literal[0, 1] | None,
    BeforeValidator(_binary),
    Field(description="0 or 1; -1 marks a split without answers"),
]


class Published(BaseModel):
    """An item as a benchmark publishes it; fields that a distribution adds are ignored.

    A field's description follows "allowed:" in error messages.
    """

    model_config = ConfigDict(strict=True, frozen=True)


_Item = TypeVar("_Item", bound=BaseModel)


@dataclass(frozen=True)
class Source:
    """The text of a file, and the SHA-256 of its bytes (before decompression).

    The text of a Parquet file is one JSON object per row; `unit` names a line in error messages.
    """

    path: Path
    text: str
    sha256: str
    unit: str = "line"

    def lines(self) -> list[str]:
        """Return the lines without trailing blank ones; InputError if there are none."""
        lines = text_file.lines(self.text)
        if not lines:
            raise InputError(
                f"prompt set {self.path}: the file is empty, at least one item is needed"
            )
        return lines

    def items(self, kind: type[_Item]) -> list[_Item]:
        """Parse each line as JSON; InputError names line, field, value and what is allowed."""
        return [self.item(number, line, kind) for number, line in enumerate(self.lines(), 1)]

    def item(self, number: int, line: str, kind: type[_Item]) -> _Item:
        """Parse one line as JSON; raises what `items` raises."""
        try:
            return kind.model_validate_json(line)
        except ValidationError as error:
            fault = _explain(error, line, kind)
            raise InputError(f"prompt set {self.path}, {self.unit} {number}: {fault}") from None

    def fault(self, line: int, field: str, value: object, allowed: str) -> InputError:
        """Return the error for a field that is well-formed but wrong."""
        shown = short(value)
        return InputError(
            f"prompt set {self.path}, {self.unit} {line}, field {field}: {shown} is not {allowed}"
        )

    def check_ids(self, ids: Sequence[str]) -> None:
        """Raise InputError if two lines have the same id."""
        first_seen: dict[str, int] = {}
        for number, name in enumerate(ids, start=1):
            if name in first_seen:
                raise InputError(
                    f"prompt set {self.path}, {self.unit} {number}, field id: {short(name)} is "
                    f"already the id of {self.unit} {first_seen[name]}; allowed: a different "
                    "id for each item"
                )
            first_seen[name] = number


def read(path: Path) -> Source:
    """Read a text, compressed or not, or a Parquet file; InputError if it is neither."""
    data = text_file.read_bytes(path, MAX_BYTES)
    if target := _link_target(path, data):
        data = text_file.read_bytes(target, MAX_BYTES)
    digest = hashlib.sha256(data).hexdigest()
    if data.startswith(LFS):
        raise InputError(f"{path}: a git-lfs pointer, not the file; git lfs pull gets it")
    if data.startswith(parquet.MAGIC):
        return Source(path, parquet.json_lines(path, data, MAX_BYTES), digest, "row")
    return Source(path, text_file.decode(path, data, MAX_BYTES), digest)


def _link_target(path: Path, data: bytes) -> Path | None:
    """Return the target of a link that a copy (git on Windows) turned into a text file."""
    if data.startswith(b"../") and len(data) < 4096 and b"\n" not in data and b"\0" not in data:
        target = path.parent / data.decode(errors="replace")
        return target if target.is_file() else None
    return None


def sha256(sources: Sequence[Source]) -> str:
    """Return the hash of one file; for several, of the `sha256sum` listing in their folder."""
    if len(sources) == 1:
        return sources[0].sha256
    paths = [splits.absolute(source.path) for source in sources]
    folder = os.path.commonpath([path.parent for path in paths])
    listing = "".join(
        f"{source.sha256}  {path.relative_to(folder).as_posix()}\n"
        for source, path in zip(sources, paths, strict=True)
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def _explain(error: ValidationError, line: str, kind: type[BaseModel]) -> str:
    """Return the first fault in a line: field, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        fields = ", ".join(kind.model_fields)
        return f"{short(line)} is not a JSON object; allowed: one with {fields}"
    names: list[str] = []
    model, allowed = kind, ""
    for part in first["loc"]:
        if part not in model.model_fields:
            break
        field = model.model_fields[str(part)]
        names.append(str(part))
        allowed = field.description or allowed
        if not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    if not names:
        unknown = short(first["loc"][0])
        return f"field {unknown} is unknown; allowed: {', '.join(kind.model_fields)}"
    name = ".".join(names)
    if first["type"] == "missing":
        return f"field {name} is missing; allowed: {allowed}"
    return f"field {name}: {short(first['input'])} is not {allowed}"
