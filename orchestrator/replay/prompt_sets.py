"""Prompt sets: files of one JSON item a line, bundled by name or the user's own as `jsonl:PATH`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from orchestrator.errors import InputError

BUNDLED_DIR = Path(__file__).resolve().parents[2] / "prompts"
SHOWN_CHARACTERS = 60

_Text = Annotated[str, StringConstraints(min_length=1)]


class Prompt(BaseModel):
    """One item. A field's description is what an error message calls allowed."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    id: _Text = Field(description="a non-empty text")
    prompt: _Text = Field(description="a non-empty text")
    answer: _Text = Field(description="a non-empty text")
    max_tokens: int = Field(ge=1, description="an integer of at least 1")
    stop: list[_Text] = Field(description="a list of non-empty texts, which may be empty")


@dataclass(frozen=True)
class PromptSet:
    """A set's prompts in the order of its file, and what identifies the file."""

    name: str
    path: Path
    sha256: str
    prompts: tuple[Prompt, ...]

    def head(self, limit: int | None) -> PromptSet:
        """The same set, at most its first `limit` prompts."""
        return replace(self, prompts=self.prompts[:limit])


def load(spec: str) -> PromptSet:
    """The set that `spec` names: a bundled name, or FORMAT:PATH. InputError says what is wrong."""
    kind, colon, path = spec.partition(":")
    if colon:
        if kind not in _READERS:
            raise InputError(f"prompt set {spec!r}: format {kind!r} is not one of {_known()}")
        return _load(Path(path).stem, Path(path), _READERS[kind])
    if spec not in bundled():
        raise InputError(
            f"prompt set {spec!r} is unknown; allowed: {', '.join(bundled()) or '(none bundled)'}, "
            f"or FORMAT:PATH with a format of {_known()}"
        )
    return _load(spec, _folder() / f"{spec}.jsonl", _read_jsonl)


def bundled() -> list[str]:
    """The names of the bundled sets."""
    return sorted(path.stem for path in _folder().glob("*.jsonl"))


def _folder() -> Path:
    return Path(os.environ.get("WDMOE_PROMPTS_DIR") or BUNDLED_DIR)


def _load(name: str, path: Path, read: Callable[[Path, str], list[Prompt]]) -> PromptSet:
    try:
        data = path.read_bytes()
        text = data.decode()
    except OSError as error:
        raise InputError(f"prompt set {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"prompt set {path}, byte {error.start}: not UTF-8 text") from None
    prompts = read(path, text)
    if not prompts:
        raise InputError(f"prompt set {path}: the file is empty, at least one item is needed")
    return PromptSet(name, path, hashlib.sha256(data).hexdigest(), tuple(prompts))


def _read_jsonl(path: Path, text: str) -> list[Prompt]:
    first_seen: dict[str, int] = {}
    prompts = []
    # Not splitlines(): that also splits at U+2028 and its like, which JSON texts may hold.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        where = f"prompt set {path}, line {number}"
        try:
            prompt = Prompt.model_validate_json(line)
        except ValidationError as error:
            raise InputError(f"{where}: {_explain(error, line)}") from None
        if prompt.id in first_seen:
            raise InputError(
                f"{where}, field id: {_shorten(prompt.id)} is already the id of line "
                f"{first_seen[prompt.id]}; allowed: an id of its own for each item"
            )
        first_seen[prompt.id] = number
        prompts.append(prompt)
    return prompts


def _explain(error: ValidationError, line: str) -> str:
    """The first thing wrong with a line: field, value, what is allowed."""
    fields = Prompt.model_fields
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return f"{_shorten(line)} is not a JSON object; allowed: one with {', '.join(fields)}"
    name = str(first["loc"][0])
    if name not in fields:
        return f"field {_shorten(name)} is unknown; allowed: {', '.join(fields)}"
    if first["type"] == "missing":
        return f"field {name} is missing; allowed: {fields[name].description}"
    return f"field {name}: {_shorten(first['input'])} is not {fields[name].description}"


def _shorten(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[: SHOWN_CHARACTERS - 1] + "…"


def _known() -> str:
    return ", ".join(_READERS)


_READERS: dict[str, Callable[[Path, str], list[Prompt]]] = {"jsonl": _read_jsonl}
