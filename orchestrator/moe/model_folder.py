"""A folder with all model files that a stack needs: checkpoint, tokenizer, their configuration.

For the base station and the command line. Devices read the checkpoint only, and their image has no
tokenizers package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from orchestrator.errors import InputError
from orchestrator.moe import model_file
from orchestrator.moe.checkpoint import Checkpoint

# The files that name the end tokens: by number, and by text.
_NUMBERED_ENDS = ("generation_config.json", "config.json")
_NAMED_ENDS = ("tokenizer_config.json", "special_tokens_map.json")
# Read if present.
OPTIONAL = (
    "generation_config.json",
    *_NAMED_ENDS,
    "chat_template.jinja",
    "chat_template.json",
)


def check(folder: Path) -> Checkpoint:
    """Return the folder's checkpoint; InputError for anything that keeps a stack from starting."""
    checkpoint = Checkpoint(folder)
    end_tokens(folder, load_tokenizer(folder))
    for path in (folder / name for name in OPTIONAL):
        if path.is_symlink() or path.exists():
            model_file.require(path, "")
    return checkpoint


def files(checkpoint: Checkpoint) -> list[Path]:
    """Return the files that base station and devices read, or may read."""
    metadata = (path for path in checkpoint.folder.iterdir() if path.suffix in (".json", ".jinja"))
    return sorted({*checkpoint.files, *metadata})


def load_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer in the folder's tokenizer.json; InputError if it cannot be read."""
    path = model_file.require(folder / "tokenizer.json", "the tokenizer in Hugging Face's form")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path}: not a readable tokenizer ({error})") from None


def end_tokens(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the end tokens that any of the files names; InputError if a file is damaged.

    A fine-tune for chats often names its end token in the tokenizer's files only.
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
