"""The formats of prompt sets, one file each; `docs/prompts.md` describes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from orchestrator.prompts.formats import arc, boolq, gsm8k, humaneval, jsonl, mmlu, piqa
from orchestrator.prompts.formats.item import Loaded

# Loaders take a path and a number of shots; InputError names file, line, field, value, allowed.
FORMATS: dict[str, Callable[[Path, int], Loaded]] = {
    "arc": arc.load,
    "boolq": boolq.load,
    "gsm8k": gsm8k.load,
    "humaneval": humaneval.load,
    "jsonl": jsonl.load,
    "mmlu": mmlu.load,
    "piqa": piqa.load,
}
