"""Read text files that users name: plain or gzip, checked for size and encoding."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from orchestrator.errors import InputError

# No UTF-8 text begins with these bytes, so the name of a compressed file does not matter.
GZIP = b"\x1f\x8b"
_DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


def user_path(name: str | Path) -> Path:
    """Return the path with `~` and `~user` replaced by the home folder."""
    path = Path(name)
    with suppress(RuntimeError):  # no such user: the name may be that of a file
        return path.expanduser()
    return path


def read(path: Path, max_bytes: int) -> str:
    """Return the whole text; raises what `read_bytes` and `decode` raise."""
    return decode(path, read_bytes(path, max_bytes), max_bytes)


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return the raw bytes of a file; holds at most `max_bytes` + 1 bytes in memory.

    Raises:
        InputError: the file cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # the latter: a path with a null character
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    _check_size(path, data, max_bytes)
    return data


def decode(path: Path, data: bytes, max_bytes: int) -> str:
    """Return the text in a file's bytes, decompressed if necessary, without a byte order mark.

    Raises:
        InputError: the text is not UTF-8, or is larger than `max_bytes` when decompressed.
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
    """Return the lines of a text without line ends, and without trailing blank lines."""
    # Not splitlines(): it also splits at U+2028 and similar, which JSON texts may contain.
    found = [line.removesuffix("\r") for line in text.split("\n")]
    while found and not found[-1].strip():
        found.pop()
    return found


@contextmanager
def stream(path: Path) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading as a stream, decompressed if necessary.

    Raises:
        InputError: the file cannot be read.
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
