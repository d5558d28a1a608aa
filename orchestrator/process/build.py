"""What a process was built from."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import orchestrator
from orchestrator.process.root import ROOT

# What containers compute and talk with.
DEVICE_PACKAGES = ("msgpack", "numpy", "pyzmq", "safetensors", "torch")
TRUNK_PACKAGES = ("fastapi", "pydantic", "scipy", "tokenizers", "transformers", "uvicorn")

# No image holds it (.dockerignore).
_NOT_IN_IMAGES = ROOT / "services" / "grafana"


@cache
def source() -> str:
    """Digest of the source of orchestrator and services: the same in a checkout and its images.

    A container has no repository to ask for a revision, and changes that are not committed count.
    """
    digest = hashlib.sha256()
    for folder in ("orchestrator", "services"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if not file.is_relative_to(_NOT_IN_IMAGES):
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Build:
    """Versions, and the digest of the source: processes of one stack have the same."""

    version: str
    python: str
    source: str
    packages: dict[str, str]

    @property
    def device_line(self) -> str:
        """The part that a device has too, as its Hello has it."""
        names = [name for name in DEVICE_PACKAGES if name in self.packages]
        parts = [f"{name} {self.packages[name]}" for name in names]
        return ", ".join([f"source {self.source}", f"python {self.python}", *parts])


@cache
def describe() -> Build:
    """What this process was built from."""
    packages = {}
    for name in (*DEVICE_PACKAGES, *TRUNK_PACKAGES):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return Build(orchestrator.__version__, platform.python_version(), source(), packages)
