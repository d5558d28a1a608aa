"""The folder that compose mounts at /model, and the place of the model in it.

a folder with files        the folder            model in /model
a snapshot in the cache    its repository        model in /model/snapshots/REVISION
of Hugging Face              models--OWNER--NAME/
                               blobs/HASH                     ◄─┐
                               snapshots/REVISION/config.json ──┘ a link
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.files.text_file import user_path
from orchestrator.process.environment import setting
from orchestrator.process.root import ROOT

_CACHE_PREFIX = "models--"


@dataclass(frozen=True)
class ModelMount:
    """The `folder` of the model, the mounted folder `source` around it, and the model's name.

    `folder` and `source` contain no symbolic links.
    """

    folder: Path
    source: Path
    name: str

    @classmethod
    def find(cls) -> ModelMount:
        """Resolve WDMOE_MODEL: relative to the working directory, or in `.env` to the checkout."""
        value = setting("WDMOE_MODEL", "models/bundled")
        base = Path.cwd() if os.environ.get("WDMOE_MODEL") else ROOT
        named = Path(os.path.normpath(base / user_path(value)))
        try:
            folder = named.resolve()
        except (OSError, RuntimeError) as error:  # a loop of links
            raise InputError(f"WDMOE_MODEL: {named}: {error}") from None
        repository = folder.parents[1] if len(folder.parents) > 1 else folder
        if folder.parent.name == "snapshots" and repository.name.startswith(_CACHE_PREFIX):
            return cls(folder, repository, repository.name.split("--")[-1])
        return cls(folder, folder, named.name)

    def environment(self) -> dict[str, str]:
        """Return the variables of docker-compose.yml for this mount."""
        inside = self.folder.relative_to(self.source).parts
        return {
            "WDMOE_MODEL_MOUNT": str(self.source),
            "WDMOE_MODEL_SUBFOLDER": "".join(f"/{part}" for part in inside),
            "WDMOE_MODEL_NAME": setting("WDMOE_MODEL_NAME", self.name),
        }

    def check_links(self, files: list[Path]) -> None:
        """Raise InputError if a file of the folder is a link to a target that is not mounted."""
        for file in files:
            link = file
            while link.is_symlink():
                target = link.readlink()
                link = Path(os.path.normpath(link.parent / target))
                if target.is_absolute() or not link.is_relative_to(self.source):
                    break
            else:
                if file.resolve().is_relative_to(self.source):
                    continue
            raise InputError(
                f"WDMOE_MODEL: {file} is a link to {file.resolve()}, which containers cannot see; "
                f"allowed: files, relative links within {self.source}, and a snapshot in the cache "
                "of Hugging Face"
            )
