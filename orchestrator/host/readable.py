"""Whether containers can read what compose mounts from the host.

Containers drop all capabilities, so their root is bound by permission bits, and some images run as
another user. Whether that matters depends on the engine too (rootless, user namespaces, a virtual
machine): where the bits leave a doubt, a container tries it.
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
    """Refuse to start services that could not read a file mounted from this host.

    Args:
        services: as compose understands them; their images are here, or can be pulled.
        needed: by mounted folder, the files that have to be read, where not all have to.

    Raises:
        InputError: it names a file of each such mount.
    """
    mounts = {
        (service["image"], Path(volume["source"]).resolve(), volume["target"])
        for service in services
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    }
    closed: dict[Path, Path] = {}
    for image, source, target in sorted(mounts):
        files = needed.get(source, [source, *sorted(source.rglob("*"))])
        if file := _first_unreadable(image, source, target, files):
            closed[source] = file
    if closed:
        raise InputError(
            f"{', '.join(map(str, closed.values()))}: containers may not read; "
            f"allowed: permissions as after `chmod -R go+rX {shlex.join(map(str, closed))}`"
        )


def _first_unreadable(image: str, source: Path, target: str, files: Iterable[Path]) -> Path | None:
    """The first file that a container cannot read when `source` is mounted at `target`."""
    doubtful = {
        str(target / file.relative_to(source)): file
        for file in files
        if not _open_to_all(file, source)
    }
    if not doubtful:
        return None
    mount = f"type=bind,source={source},target={target},readonly"
    done = docker(
        *("run", "--rm", "--network", "none", "--cap-drop", "ALL", "--mount", mount),
        *("--entrypoint", "sh", image, "-c", _OPEN, "sh", *doubtful),
    )
    return doubtful.get(done.stdout.strip())


def _open_to_all(file: Path, source: Path) -> bool:
    """Whether the permission bits of a file and of the folders around it let everybody read it."""
    path = file.resolve()
    if not path.stat().st_mode & stat.S_IROTH:
        return False
    folders = [folder for folder in path.parents if folder.is_relative_to(source)]
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
