"""Checks on the files of a checkpoint folder before they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def require(path: Path, purpose: str) -> Path:
    """Return the path if it is a readable file and not a placeholder.

    `purpose` describes the file in the error for a missing one.

    Raises:
        InputError: the file is missing, a link to nothing, unreadable, or a git-LFS pointer.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(len(_LFS_POINTER))
    except FileNotFoundError:
        if path.is_symlink():
            raise InputError(f"{path}: a link to {path.readlink()}, which does not exist") from None
        raise InputError(f"{path}: missing; {purpose}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if begin == _LFS_POINTER:
        raise InputError(
            f"{path}: a git-lfs pointer, not the file it stands for; "
            f"allowed: what `git lfs pull` puts in its place"
        )
    return path


def read_json(path: Path, purpose: str) -> dict[str, Any]:
    """Return the JSON object in a file; InputError as in `require`, or if it is not an object."""
    try:
        value = json.loads(require(path, purpose).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise InputError(f"{path}: not a JSON object")
    return value
