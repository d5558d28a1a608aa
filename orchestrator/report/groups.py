"""Groups of runs to compare: those of the same prompts under one profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.report.load import Recorded


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in policy, or are repetitions, each under a unique label.

    Attributes:
        name: the prompts and profile that they have in common.
        slug: the name as part of ids and file names; unique among groups.
        runs: by label.
    """

    name: str
    slug: str
    runs: dict[str, Recorded]


def group(runs: Sequence[Recorded]) -> list[Group]:
    """Group runs by profile and prompts, in the order of the first run of each group."""
    members_by_key: dict[tuple[object, ...], list[Recorded]] = {}
    for recorded in runs:
        members_by_key.setdefault(_key(recorded), []).append(recorded)
    names = _distinct(
        [found[0] for found in members_by_key.values()],
        lambda recorded: f"{recorded.run.prompts.name} under {recorded.run.channel.profile}",
        lambda recorded: f"{recorded.run.prompts.items} prompts",
        lambda recorded: recorded.run.prompts.template or "no template",
        lambda recorded: order(recorded) or "in the file's order",
        lambda recorded: f"profile {recorded.run.channel.profile_sha256[:8]}",
        lambda recorded: f"prompts {recorded.run.prompts.sha256[:8]}",
    )
    return [
        Group(name, slug, dict(zip(_labels(found), found, strict=True)))
        for name, slug, found in zip(names, _slugs(names), members_by_key.values(), strict=True)
    ]


def order(recorded: Recorded) -> str:
    """Return the order of a run's prompts; empty if they were not shuffled."""
    seed = recorded.run.prompts.shuffle_seed
    return "" if seed is None else f"shuffled by seed {seed}"


def _key(recorded: Recorded) -> tuple[object, ...]:
    channel, prompts = recorded.run.channel, recorded.run.prompts
    return (
        *(channel.profile, channel.profile_sha256),
        *(prompts.name, prompts.sha256, prompts.items, prompts.template, prompts.shuffle_seed),
    )


def _labels(runs: Sequence[Recorded]) -> list[str]:
    return _distinct(
        runs,
        lambda recorded: recorded.run.channel.policy.label,
        lambda recorded: recorded.given.resolve().name,
        lambda recorded: str(recorded.given),
    )


def _distinct(runs: Sequence[Recorded], *describers: Callable[[Recorded], str]) -> list[str]:
    """Describe runs by the first describer, and by further ones where they distinguish runs."""
    texts = [describers[0](recorded) for recorded in runs]
    for describe in describers[1:]:
        descriptions = defaultdict(set)
        for text, recorded in zip(texts, runs, strict=True):
            descriptions[text].add(describe(recorded))
        texts = [
            f"{text}, {describe(recorded)}" if len(descriptions[text]) > 1 else text
            for text, recorded in zip(texts, runs, strict=True)
        ]
    return texts


def _slugs(names: Sequence[str]) -> list[str]:
    """Return each name in letters, digits and hyphens; numbered where they are equal."""
    slugs: list[str] = []
    for name in names:
        first = "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())
        slug, number = first, 1
        while slug in slugs:
            number += 1
            slug = f"{first}-{number}"
        slugs.append(slug)
    return slugs
