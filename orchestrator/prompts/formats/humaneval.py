"""HumanEval: lines of `task_id`, `prompt`, `entry_point`, `canonical_solution` and `test`."""

from __future__ import annotations

from pathlib import Path

from orchestrator.prompts.formats import source
from orchestrator.prompts.formats.item import Loaded, describe, without_shots
from orchestrator.prompts.formats.source import Published, Text
from orchestrator.prompts.prompt import CodePrompt, Prompt

TEMPLATE = "humaneval-1"
MAX_TOKENS = 512
STOP = ["\nclass", "\ndef", "\n#", "\nif", "\nprint"]


class _Line(Published):
    task_id: Text
    prompt: Text
    entry_point: Text
    canonical_solution: Text
    test: Text


def load(path: Path, shots: int) -> Loaded:
    """Load the prompts of a file unchanged; there are no shots."""
    without_shots("humaneval", shots)
    file = source.read(path)
    lines = file.items(_Line)
    for number, line in enumerate(lines, start=1):
        if not line.entry_point.isidentifier():
            raise file.fault(number, "entry_point", line.entry_point, "the name of a function")
    prompts: list[Prompt] = [
        CodePrompt(
            id=line.task_id,
            prompt=line.prompt,
            answer=line.canonical_solution,
            max_tokens=MAX_TOKENS,
            stop=STOP,
            test=line.test,
            entry_point=line.entry_point,
        )
        for line in lines
    ]
    file.check_ids([prompt.id for prompt in prompts])
    return Loaded(prompts, [file], describe(TEMPLATE, 0))
