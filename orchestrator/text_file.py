"""Reading a file that a user named, whatever it turns out to be."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import InputError


def read(path: Path, max_bytes: int) -> str:
    """The whole text; errors as of `read_bytes` and `decode`."""
    return decode(path, read_bytes(path, max_bytes))


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The whole file; never more than `max_bytes` + 1 bytes are held.

    Raises:
        InputError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if len(data) > max_bytes:
        raise InputError(f"{path}: larger than the {max_bytes} bytes allowed")
    return data


def decode(path: Path, data: bytes) -> str:
    """The text that a file's bytes are; InputError if they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text in UTF-8") from None
