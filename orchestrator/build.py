"""What a process was built from."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import orchestrator

_ROOT = Path(__file__).resolve().parents[1]


@cache
def describe() -> dict[str, str]:
    """Versions, and a digest of the services' source: processes of one stack have the same.

    A container has no repository to ask for a revision, and changes that are not committed count.
    """
    digest = hashlib.sha256()
    for folder in ("orchestrator", "services"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return {
        "version": orchestrator.__version__,
        "python": platform.python_version(),
        "source": digest.hexdigest()[:12],
    }
