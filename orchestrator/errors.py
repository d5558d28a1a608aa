"""How a command ends badly, and how its one line shows a value.

An error has no traceback: its message is all that the user reads.
"""

from typing import Any


class InputError(Exception):
    """What the user gave cannot be used (exit code 2).

    The message names the file or option, the field, the value and what is allowed.
    """


class StackError(Exception):
    """The input was fine, the stack or the host could not do it (exit code 1)."""


def short(value: Any) -> str:
    """A value as an error message shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "…"
