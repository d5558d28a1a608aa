"""Check that containers can read the files that compose mounts from the host.

Containers drop all capabilities, so permission bits apply to their root user, and some images run
as another user. The outcome also depends on the engine (rootless, user namespaces, a virtual
machine): if the bits do not grant access to all users, a container tries to open the file.
"""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import InputError
from orchestrator.host.containers import docker

# Prints the first of its arguments that it cannot open.
_OPEN = 'for path; do (: <"$path") 2>/dev/null || { echo "$path"; exit; }; done'


def check(services: Iterable[Mapping[str, Any]], needed: Mapping[Path, list[Path]]) -> None:
    """Check that services can read all files mounted from this host.

    Args:
        services: as resolved by compose; their images are present, or can be pulled.
        needed: by mounted folder, the files to check; all files of folders that are not listed.

    Raises:
        InputError: a mount has unreadable files; it names one file per mount.
    """
    mounts = {
        (service["image"], Path(volume["source"]).resolve(), volume["target"])
        for service in services
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    }
    unreadable: dict[Path, Path] = {}
    for image, source, target in sorted(mounts):
        files = needed.get(source, [source, *sorted(source.rglob("*"))])
        if file := _first_unreadable(image, source, target, files):
            unreadable[source] = file
    if unreadable:
        raise InputError(
            f"{', '.join(map(str, unreadable.values()))}: containers may not read; "
            f"allowed: permissions as after `chmod -R go+rX {shlex.join(map(str, unreadable))}`"
        )


def _first_unreadable(image: str, source: Path, target: str, files: Iterable[Path]) -> Path | None:
    """Return the first file that a container cannot read when `source` is mounted at `target`."""
    doubtful = {
        str(target / file.relative_to(source)): file
        for file in files
        if not _open_to_all(file, source)
    }
    if not doubtful:
        return None
    mount = f"type=bind,source={source},target={target},readonly"
    result = docker(
        *("run", "--rm", "--network", "none", "--cap-drop", "ALL", "--mount", mount),
        *("--entrypoint", "sh", image, "-c", _OPEN, "sh", *doubtful),
    )
    return doubtful.get(result.stdout.strip())


def _open_to_all(file: Path, source: Path) -> bool:
    """Return whether permission bits of a file and its folders grant read access to all users."""
    path = file.resolve()
    if not path.stat().st_mode & stat.S_IROTH:
        return False
    folders = [folder for folder in path.parents if folder.is_relative_to(source)]
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
