"""Reading a text file that a user named, whatever it turns out to be."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import InputError

# No text in UTF-8 begins like this, so the name of a compressed file does not matter.
GZIP = b"\x1f\x8b"
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def user_path(name: str | Path) -> Path:
    """A path as a user wrote it, with `~` and `~user` replaced by the home folder."""
    path = Path(name)
    with suppress(RuntimeError):  # no such user: a file may well have that name
        return path.expanduser()
    return path


def read(path: Path, max_bytes: int) -> str:
    """The whole text; errors as of `read_bytes` and `decode`."""
    return decode(path, read_bytes(path, max_bytes), max_bytes)


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The whole file as it is; never more than `max_bytes` + 1 bytes are held.

    Raises:
        InputError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # the latter: a path with a null character
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    _check_size(path, data, max_bytes)
    return data


def decode(path: Path, data: bytes, max_bytes: int) -> str:
    """The text in a file's bytes, decompressed if need be, without a byte order mark.

    Raises:
        InputError: it is not a text in UTF-8, or has more than `max_bytes` once decompressed.
    """
    if data.startswith(GZIP):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
                data = file.read(max_bytes + 1)
        except _DAMAGED as error:
            raise InputError(f"{path}: not a whole gzip file: {error}") from None
        _check_size(path, data, max_bytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if data.startswith(_UTF_16):
            raise InputError(f"{path}: a text in UTF-16; allowed: UTF-8") from None
        raise InputError(f"{path}: not a text in UTF-8") from None


def lines(text: str) -> list[str]:
    """A text's lines without their ends, and without the blank ones at the end."""
    # Not splitlines(): that also splits at U+2028 and its like, which JSON texts may hold.
    found = [line.removesuffix("\r") for line in text.split("\n")]
    while found and not found[-1].strip():
        found.pop()
    return found


@contextmanager
def stream(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file to be read bit by bit, decompressed if need be.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            compressed = file.peek(len(GZIP)).startswith(GZIP)
            yield gzip.GzipFile(fileobj=file) if compressed else file
    except _DAMAGED as error:
        raise InputError(f"{path}: not a whole gzip file: {error}") from None
    except (OSError, ValueError) as error:  # the latter: a path with a null character
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def _check_size(path: Path, data: bytes, max_bytes: int) -> None:
    if len(data) > max_bytes:
        raise InputError(f"{path}: larger than the {max_bytes} bytes allowed")
