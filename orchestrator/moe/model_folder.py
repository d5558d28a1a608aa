"""A folder with all that a stack needs of a model: checkpoint, tokenizer, what is said beside them.

Devices read the checkpoint alone, and their image has no tokenizers: this is for the base station
and the command line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from orchestrator.errors import InputError
from orchestrator.moe import model_file
from orchestrator.moe.checkpoint import Checkpoint

# Which tokens end a text: by their numbers, and by their names.
_NUMBERED_ENDS = ("generation_config.json", "config.json")
_NAMED_ENDS = ("tokenizer_config.json", "special_tokens_map.json")
# Read if they are there.
OPTIONAL = (
    "generation_config.json",
    *_NAMED_ENDS,
    "chat_template.jinja",
    "chat_template.json",
)


def check(folder: Path) -> Checkpoint:
    """The folder's checkpoint; InputError for anything with which no stack would start."""
    checkpoint = Checkpoint(folder)
    end_tokens(folder, load_tokenizer(folder))
    for path in (folder / name for name in OPTIONAL):
        if path.is_symlink() or path.exists():
            model_file.require(path, "")
    return checkpoint


def files(checkpoint: Checkpoint) -> list[Path]:
    """The files that base station and devices read, or may read."""
    beside = (path for path in checkpoint.folder.iterdir() if path.suffix in (".json", ".jinja"))
    return sorted({*checkpoint.files, *beside})


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer.json; InputError if it cannot be read."""
    path = model_file.require(folder / "tokenizer.json", "the tokenizer in Hugging Face's form")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path}: not a readable tokenizer ({error})") from None


def end_tokens(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens that end a text, as any file has them; InputError if one of these is damaged.

    A fine-tune for chats often names its end in the tokenizer's files alone.
    """
    ends: set[int] = set()
    for name in _NUMBERED_ENDS:
        found = _read_optional(folder / name).get("eos_token_id")
        numbers = found if isinstance(found, list) else [] if found is None else [found]
        if not all(type(number) is int for number in numbers):
            allowed = "allowed: a token's number, or a list of them"
            raise InputError(f"{folder / name}: eos_token_id: {allowed}")
        ends.update(numbers)
    for name in _NAMED_ENDS:
        token = _read_optional(folder / name).get("eos_token")
        text = token.get("content") if isinstance(token, dict) else token
        if text is not None and not isinstance(text, str):
            raise InputError(f"{folder / name}: eos_token: allowed: a token's text")
        number = None if text is None else tokenizer.token_to_id(text)
        ends.update([] if number is None else [number])
    return frozenset(ends)


def _read_optional(path: Path) -> dict[str, Any]:
    if not (path.is_symlink() or path.exists()):
        return {}
    return model_file.read_json(path, "")
