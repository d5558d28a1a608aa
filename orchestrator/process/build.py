"""Version, source digest and packages of a process."""

from __future__ import annotations

import hashlib
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import orchestrator
from orchestrator.process.root import ROOT

# Packages that affect computation and communication in containers.
DEVICE_PACKAGES = ("msgpack", "numpy", "pyzmq", "safetensors", "torch")
TRUNK_PACKAGES = ("fastapi", "pydantic", "scipy", "tokenizers", "transformers", "uvicorn")

# Excluded from all images (.dockerignore).
_NOT_IN_IMAGES = ROOT / "services" / "grafana"


@cache
def source() -> str:
    """Return a digest of the source of orchestrator and services, the same in checkout and images.

    Not a revision: a container has no repository, and uncommitted changes count.
    """
    digest = hashlib.sha256()
    for folder in ("orchestrator", "services"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if not file.is_relative_to(_NOT_IN_IMAGES):
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Build:
    """Versions and source digest; all processes of a stack have the same."""

    version: str
    python: str
    source: str
    packages: dict[str, str]

    @property
    def device_line(self) -> str:
        """The part that also applies to devices, in the form of their Hello."""
        names = [name for name in DEVICE_PACKAGES if name in self.packages]
        parts = [f"{name} {self.packages[name]}" for name in names]
        return ", ".join([f"source {self.source}", f"python {self.python}", *parts])


@cache
def describe() -> Build:
    """Return the build of this process."""
    packages = {}
    for name in (*DEVICE_PACKAGES, *TRUNK_PACKAGES):
        with suppress(PackageNotFoundError):
            packages[name] = version(name)
    return Build(orchestrator.__version__, platform.python_version(), source(), packages)
