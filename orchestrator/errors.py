"""Errors that end a command, and how an error message shows a value.

The message is all that the user reads: no traceback is printed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # devices have no pydantic
    from pydantic import ValidationError


class InputError(Exception):
    """The user's input cannot be used (exit code 2).

    The message names the file or option, the field, the value, and what is allowed.
    """


class StackError(Exception):
    """The input is valid, but the stack or the host failed (exit code 1)."""


def cut(text: str, most: int = 60) -> str:
    """Return a text of at most `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def short(value: Any, most: int = 60) -> str:
    """Return a value as an error message shows it."""
    return cut(repr(value), most)


def one_line(text: str, most: int = 200) -> str:
    """Return a text of any origin in one line, for use in a message."""
    return cut(" ".join(text.split()), most)


def first_fault(error: ValidationError, document: str = "JSON") -> str:
    """Return field, or `document`, and message of the first fault that pydantic found."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or document}: {first['msg']}"
