"""What a format makes of its files, and how solved examples (shots) get before its prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.prompts.formats import splits
from orchestrator.prompts.formats.source import MAX_CHARACTERS, Source
from orchestrator.prompts.prompt import ChoicePrompt, Prompt


@dataclass(frozen=True)
class Item:
    """A prompt without shots, and what follows it where it is a shot itself."""

    prompt: Prompt
    solution: str


@dataclass(frozen=True)
class Items:
    """A file's items, and all files that they were read from."""

    items: list[Item]
    sources: list[Source]


@dataclass(frozen=True)
class Loaded:
    """A set's prompts, what they were read from, and the template's name, version and shots."""

    prompts: list[Prompt]
    sources: list[Source]
    template: str


def choice(name: str, context: str, choices: Sequence[str], gold: int) -> Item:
    """An item of multiple choice; the texts are continuations of the context."""
    return Item(
        ChoicePrompt(
            id=name, prompt=context, answer=choices[gold], choices=list(choices), gold=gold
        ),
        solution=choices[gold],
    )


def load(path: Path, shots: int, template: str, read: Callable[[Path], Items]) -> Loaded:
    """The prompts of a file, with the first `shots` items of the train split before each."""
    own = read(path)
    if not shots:
        return Loaded([item.prompt for item in own.items], own.sources, describe(template, 0))
    shown = read(shots_file(path, splits.of_split(path, "train"), shots))
    prompts = with_shots(own.items, first(shown, shots), "", shots)
    return Loaded(prompts, own.sources + shown.sources, describe(template, shots))


def describe(template: str, shots: int) -> str:
    """A template by name and version, and the shots, as results state it."""
    return f"{template}, {shots} shots"


def shots_file(path: Path, places: Sequence[Path], shots: int) -> Path:
    """The file with the shots for the set at `path`; InputError if there is no such other file."""
    for found in (file for place in places for file in splits.compressed(place)):
        if found.exists():
            if found.samefile(path):
                raise InputError(
                    f"--shots {shots}: {path} is the file that shots come from; allowed: 0"
                )
            return found
    raise InputError(f"--shots {shots}: for {path} there is no {places[0]}; allowed: 0")


def first(shown: Items, shots: int) -> list[Item]:
    """The first items of a shots file; InputError if it has not as many."""
    if len(shown.items) < shots:
        raise InputError(
            f"--shots {shots}: {shown.sources[0].path} has {len(shown.items)} items; "
            f"allowed: 0 to {len(shown.items)}"
        )
    return shown.items[:shots]


def with_shots(items: Sequence[Item], shown: Sequence[Item], head: str, shots: int) -> list[Prompt]:
    """Prompts with a head, then each shot and its solution, then the prompt's own text.

    Raises:
        InputError: one becomes longer than the base station would take.
    """
    lead = head + "".join(f"{item.prompt.prompt}{item.solution}\n\n" for item in shown)
    prompts = [
        item.prompt.model_copy(update={"prompt": lead + item.prompt.prompt}) for item in items
    ]
    for prompt in prompts:
        if len(prompt.prompt) > MAX_CHARACTERS:
            raise InputError(
                f"--shots {shots}: prompt {prompt.id} is {len(prompt.prompt)} characters long; "
                f"allowed: at most {MAX_CHARACTERS}"
            )
    return prompts


def without_shots(name: str, shots: int) -> None:
    """InputError if shots are asked of a format that has none."""
    if shots:
        raise InputError(f"--shots {shots}: {name} has no solved examples to show; allowed: 0")
