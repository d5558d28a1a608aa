"""Build the images' base from Debian packages, for a host on which no image registry answers.

The result has the layout of the official Python image: `python` and `pip` in /usr/local/bin.
pip inside it behaves as pip does on the host: every setting (PIP_* variables, pip's own files) is
carried over as a PIP_* variable, and the files and folders that settings name by absolute path are
copied in. `file:` URLs are left out: a container cannot reach an index on the host's disk.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

PACKAGES = "python3,python3-venv,iproute2,ca-certificates"
SUITE = "bookworm"
# A folder of wheels fits an image; a mirror of a whole package index does not.
FOLDER_LIMIT_BYTES = 1 << 30


def pip_settings() -> dict[str, str]:
    """Return the host's pip settings as PIP_* variables; the environment wins, as in pip."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    settings = {}
    for line in listing.splitlines():
        section_key, _, value = line.partition("=")
        section, _, key = section_key.rpartition(".")
        if section in ("global", "install"):
            settings["PIP_" + key.upper().replace("-", "_")] = value.strip("'\"")
    settings.update({k: v for k, v in os.environ.items() if k.startswith("PIP_")})
    return settings


def size_bytes(path: Path) -> int:
    """Return the size of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(f.stat().st_size for f in files if f.is_file())


def portable(settings: dict[str, str]) -> tuple[dict[str, str], set[Path]]:
    """Return the settings that a container can use, and the paths to copy into it."""
    kept: dict[str, str] = {}
    paths: set[Path] = set()
    for name, value in settings.items():
        words = []
        for word in value.split():
            path = Path(word)
            if path.is_absolute() and path.exists():
                if size_bytes(path) > FOLDER_LIMIT_BYTES:
                    continue
                paths.add(path)
            if not word.startswith("file:"):
                words.append(word)
        if words:
            kept[name] = " ".join(words)
    return kept, paths


def main(tag: str) -> None:
    """Bootstrap Debian with Python and import it into the Docker Engine as image `tag`."""
    settings, paths = portable(pip_settings())
    # The venv is in /usr/local, so that `python` is where the official image has it.
    hooks = ['chroot "$1" python3 -m venv /usr/local']
    for path in sorted(paths):
        folder = shlex.quote(str(path.parent))
        hooks.append(f'mkdir -p "$1"{folder} && cp -rL {shlex.quote(str(path))} "$1"{folder}/')
    bootstrap = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
    bootstrap += [f"--customize-hook={hook}" for hook in hooks]
    changes = [f"--change=ENV {name}={shlex.quote(value)}" for name, value in settings.items()]
    with subprocess.Popen([*bootstrap, SUITE, "-"], stdout=subprocess.PIPE) as debian:
        subprocess.run(
            ["docker", "import", *changes, '--change=CMD ["python"]', "-", tag],
            stdin=debian.stdout,
            check=True,
        )
    if debian.returncode:
        # docker has imported half a system: remove it again
        subprocess.run(["docker", "image", "rm", tag], check=False)
        sys.exit(debian.returncode)


if __name__ == "__main__":
    main(sys.argv[1])
