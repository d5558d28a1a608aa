"""Items that formats load, and solved examples (shots) in front of their prompts."""

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
    """A prompt without shots, and the solution that follows it when it is used as a shot."""

    prompt: Prompt
    solution: str


@dataclass(frozen=True)
class Items:
    """The items of a file, and all files that they were read from."""

    items: list[Item]
    sources: list[Source]


@dataclass(frozen=True)
class Loaded:
    """The prompts of a set, the files read, and the template's name, version and shots."""

    prompts: list[Prompt]
    sources: list[Source]
    template: str


def choice(name: str, context: str, choices: Sequence[str], gold: int) -> Item:
    """Return a multiple-choice item; the choices are continuations of the context."""
    return Item(
        ChoicePrompt(
            id=name, prompt=context, answer=choices[gold], choices=list(choices), gold=gold
        ),
        solution=choices[gold],
    )


def load(path: Path, shots: int, template: str, read: Callable[[Path], Items]) -> Loaded:
    """Load the prompts of a file, with the first `shots` items of the train split before each."""
    target = read(path)
    if not shots:
        return Loaded([item.prompt for item in target.items], target.sources, describe(template, 0))
    examples = read(shots_file(path, splits.of_split(path, "train"), shots))
    prompts = with_shots(target.items, first(examples, shots), "", shots)
    return Loaded(prompts, target.sources + examples.sources, describe(template, shots))


def describe(template: str, shots: int) -> str:
    """Return the template (name and version) and the shots as recorded in results."""
    return f"{template}, {shots} shots"


def shots_file(path: Path, places: Sequence[Path], shots: int) -> Path:
    """Return the file of shots for the set at `path`; InputError if there is no such other file."""
    for candidate in (file for place in places for file in splits.compressed(place)):
        if candidate.exists():
            if candidate.samefile(path):
                raise InputError(
                    f"shots is {shots}: {path} is the file that shots come from; allowed: 0"
                )
            return candidate
    raise InputError(f"shots is {shots}: for {path} there is no {places[0]}; allowed: 0")


def first(examples: Items, shots: int) -> list[Item]:
    """Return the first `shots` items; InputError if there are fewer."""
    if len(examples.items) < shots:
        raise InputError(
            f"shots is {shots}: {examples.sources[0].path} has {len(examples.items)} items; "
            f"allowed: 0 to {len(examples.items)}"
        )
    return examples.items[:shots]


def with_shots(items: Sequence[Item], shown: Sequence[Item], head: str, shots: int) -> list[Prompt]:
    """Return prompts of a head, each shot with its solution, and the item's own text.

    Raises:
        InputError: a prompt becomes longer than the base station accepts.
    """
    lead = head + "".join(f"{item.prompt.prompt}{item.solution}\n\n" for item in shown)
    prompts = [
        item.prompt.model_copy(update={"prompt": lead + item.prompt.prompt}) for item in items
    ]
    for prompt in prompts:
        if len(prompt.prompt) > MAX_CHARACTERS:
            raise InputError(
                f"shots is {shots}: prompt {prompt.id} is {len(prompt.prompt)} characters long; "
                f"allowed: at most {MAX_CHARACTERS}"
            )
    return prompts


def without_shots(name: str, shots: int) -> None:
    """Raise InputError if shots are requested from a format that has none."""
    if shots:
        raise InputError(f"shots is {shots}: {name} has no solved examples to show; allowed: 0")
