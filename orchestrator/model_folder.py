"""A folder with all that a stack needs of a model: checkpoint, tokenizer, what is said beside them.

Devices read the checkpoint alone, and their image has no tokenizers: this is for the base station
and the command line.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from orchestrator import model_file
from orchestrator.checkpoint import Checkpoint
from orchestrator.errors import InputError

# Read if they are there.
OPTIONAL = (
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


def check(folder: Path) -> Checkpoint:
    """The folder's checkpoint; InputError for anything with which no stack would start."""
    checkpoint = Checkpoint(folder)
    load_tokenizer(folder)
    for path in (folder / name for name in OPTIONAL):
        if path.is_symlink() or path.exists():
            model_file.require(path, "")
    return checkpoint


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer.json; InputError if it cannot be read."""
    path = model_file.require(folder / "tokenizer.json", "the tokenizer in Hugging Face's form")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"{path}: not a readable tokenizer ({error})") from None
