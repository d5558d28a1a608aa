"""Prompt sets: bundled ones by name, benchmark files and custom sets as `FORMAT:PATH`."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.files import text_file
from orchestrator.process.environment import setting
from orchestrator.process.root import ROOT
from orchestrator.prompts.formats import FORMATS, source, splits
from orchestrator.prompts.prompt import Prompt as Prompt

BUNDLED_DIR = ROOT / "prompts"


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a set in the order of its file, and the identity of the file.

    `template` is the name and version of the template around the file's texts, and the number of
    solved examples before each; empty without a template.
    """

    name: str
    path: Path
    sha256: str
    prompts: tuple[Prompt, ...]
    template: str = ""

    def head(self, limit: int | None) -> PromptSet:
        """Return the set with at most its first `limit` prompts; None: all."""
        return replace(self, prompts=self.prompts[:limit])

    def shuffled(self, seed: int) -> PromptSet:
        """Return the set in an order drawn from a seed."""
        prompts = list(self.prompts)
        random.Random(seed).shuffle(prompts)
        return replace(self, prompts=tuple(prompts))


def load(spec: str, shots: int = 0) -> PromptSet:
    """Load the set that `spec` names.

    Args:
        spec: the name of a bundled set, or FORMAT:PATH.
        shots: solved examples before each prompt, from the benchmark's own file of examples.

    Raises:
        InputError: names file, line, field and fault.
    """
    kind, colon, path = spec.partition(":")
    if colon:
        if kind not in FORMATS:
            raise InputError(f"prompt set {spec!r}: format {kind!r} is not one of {_known()}")
        file = text_file.user_path(path)
        name = splits.bare(file.name) if kind == "jsonl" else splits.set_name(file)
        return _load(name, kind, file, shots)
    if spec not in bundled():
        raise InputError(
            f"prompt set {spec!r} is unknown; allowed: {', '.join(bundled()) or '(none bundled)'}, "
            f"or FORMAT:PATH with a format of {_known()}"
        )
    return _load(spec, "jsonl", _folder() / f"{spec}.jsonl", shots)


def bundled() -> list[str]:
    """Return the names of the bundled sets."""
    return sorted(path.stem for path in _folder().glob("*.jsonl"))


def _folder() -> Path:
    return text_file.user_path(setting("WDMOE_PROMPTS_DIR") or BUNDLED_DIR)


def _load(name: str, kind: str, path: Path, shots: int) -> PromptSet:
    loaded = FORMATS[kind](path, shots)
    sha256 = source.sha256(loaded.sources)
    return PromptSet(name, path, sha256, tuple(loaded.prompts), loaded.template)


def _known() -> str:
    return ", ".join(FORMATS)
