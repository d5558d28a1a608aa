"""What a process was built from."""

from __future__ import annotations

import hashlib
import platform
from functools import cache
from pathlib import Path

import orchestrator

_ROOT = Path(__file__).resolve().parents[1]
# No image holds it (.dockerignore).
_NOT_IN_IMAGES = _ROOT / "services" / "grafana"


@cache
def source() -> str:
    """Digest of the source of orchestrator and services: the same in a checkout and its images.

    A container has no repository to ask for a revision, and changes that are not committed count.
    """
    digest = hashlib.sha256()
    for folder in ("orchestrator", "services"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            if not file.is_relative_to(_NOT_IN_IMAGES):
                digest.update(f"{file.relative_to(_ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@cache
def describe() -> dict[str, str]:
    """Versions, and the digest of the source: processes of one stack have the same."""
    return {
        "version": orchestrator.__version__,
        "python": platform.python_version(),
        "source": source(),
    }
