"""The checkpoint's chat template, which makes a prompt of a chat."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from orchestrator.errors import InputError, one_line
from services.bs.http.errors import refused

# Files that may hold a template; without them, the tokenizer is tokenizer.json alone.
_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")


class ChatTemplate:
    """A checkpoint's chat template, if it has one."""

    def __init__(self, folder: Path) -> None:
        """Load the template; InputError if its files cannot be read."""
        self._tokenizer = None
        if any((folder / name).exists() for name in _FILES):
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # the library raises many types on a damaged file
                what = one_line(str(error))
                raise InputError(f"{folder}: not a readable tokenizer ({what})") from None

    def prompt(self, messages: list[dict[str, str]], param: str) -> str:
        """Return the prompt for the next message; ApiError, naming `param`, if there is none."""
        if self._tokenizer is None or self._tokenizer.chat_template is None:
            raise refused(param, "this checkpoint has no chat template; use /v1/completions")
        try:
            text = self._tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template may raise anything
            raise refused(param, f"the chat template refuses them: {error}") from None
        return str(text)
