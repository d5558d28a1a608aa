"""How a chat becomes a prompt: the checkpoint's own template."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from orchestrator.errors import InputError
from services.bs.http.errors import refused

# Where a template may be; without one of them the tokenizer is tokenizer.json alone.
_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")


class ChatTemplate:
    """A checkpoint's chat template, if it has one."""

    def __init__(self, folder: Path) -> None:
        """InputError if what is there cannot be read."""
        self._tokenizer = None
        if any((folder / name).exists() for name in _FILES):
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # whatever the library makes of a damaged file
                what = " ".join(str(error).split())
                raise InputError(f"{folder}: not a readable tokenizer ({what})") from None

    def prompt(self, messages: list[dict[str, str]], param: str) -> str:
        """The prompt that asks for the next message; ApiError, of `param`, if there is none."""
        if self._tokenizer is None or self._tokenizer.chat_template is None:
            raise refused(param, "this checkpoint has no chat template; /v1/completions works")
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # whatever a checkpoint's template may raise
            raise refused(param, f"the chat template refuses them: {error}") from None
        return str(text)
