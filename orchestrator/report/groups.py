"""Which runs belong beside each other: those of the same prompts under one profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.report.load import Recorded


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in policy, or were made again, each under a label of its own.

    Attributes:
        name: what they have in common.
        slug: the name as part of an id and of a file's name; no other group's.
        runs: by label.
    """

    name: str
    slug: str
    runs: dict[str, Recorded]


def group(runs: Sequence[Recorded]) -> list[Group]:
    """Group runs by profile and prompts, in the order in which each group's first one is given."""
    together: dict[tuple[object, ...], list[Recorded]] = {}
    for one in runs:
        together.setdefault(_key(one), []).append(one)
    names = _distinct(
        [found[0] for found in together.values()],
        lambda one: f"{one.run.prompts.name} under {one.run.channel.profile}",
        lambda one: f"{one.run.prompts.items} prompts",
        lambda one: one.run.prompts.template or "no template",
        lambda one: order(one) or "in the file's order",
        lambda one: f"profile {one.run.channel.profile_sha256[:8]}",
        lambda one: f"prompts {one.run.prompts.sha256[:8]}",
    )
    return [
        Group(name, slug, dict(zip(_labels(found), found, strict=True)))
        for name, slug, found in zip(names, _slugs(names), together.values(), strict=True)
    ]


def order(one: Recorded) -> str:
    """How a run's prompts were ordered; empty if they were not."""
    seed = one.run.prompts.shuffle_seed
    return "" if seed is None else f"shuffled by seed {seed}"


def _key(one: Recorded) -> tuple[object, ...]:
    channel, prompts = one.run.channel, one.run.prompts
    return (
        *(channel.profile, channel.profile_sha256),
        *(prompts.name, prompts.sha256, prompts.items, prompts.template, prompts.shuffle_seed),
    )


def _labels(runs: Sequence[Recorded]) -> list[str]:
    return _distinct(
        runs,
        lambda one: one.run.channel.policy.label,
        lambda one: one.given.resolve().name,
        lambda one: str(one.given),
    )


def _distinct(runs: Sequence[Recorded], *tellers: Callable[[Recorded], str]) -> list[str]:
    """Each run told by the first teller, and by the further ones that tell more of them apart."""
    told = [tellers[0](one) for one in runs]
    for teller in tellers[1:]:
        alike = defaultdict(set)
        for text, one in zip(told, runs, strict=True):
            alike[text].add(teller(one))
        told = [
            f"{text}, {teller(one)}" if len(alike[text]) > 1 else text
            for text, one in zip(told, runs, strict=True)
        ]
    return told


def _slugs(names: Sequence[str]) -> list[str]:
    """Letters, digits and hyphens of each name; numbered where that is the same."""
    slugs: list[str] = []
    for name in names:
        first = "-".join("".join(c if c.isalnum() else " " for c in name).lower().split())
        slug, number = first, 1
        while slug in slugs:
            number += 1
            slug = f"{first}-{number}"
        slugs.append(slug)
    return slugs
