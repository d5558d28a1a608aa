"""Which runs belong beside each other: those of one prompt set under one profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.report.recorded import Recorded


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in policy, or were made again, each under a label of its own."""

    name: str
    runs: dict[str, Recorded]

    @property
    def slug(self) -> str:
        """The name as part of an id and of a file's name."""
        return "-".join(
            "".join(char if char.isalnum() else " " for char in self.name).lower().split()
        )


def group(runs: Sequence[Recorded]) -> list[Group]:
    """Group runs by profile and prompts, in the order in which each group's first one is given."""
    together: dict[tuple[str, ...], list[Recorded]] = {}
    for one in runs:
        together.setdefault(_key(one), []).append(one)
    names = _distinct(
        [found[0] for found in together.values()],
        lambda one: f"{one.run.prompts.name} under {one.run.channel.profile}",
        lambda one: f"profile {one.run.channel.profile_sha256[:8]}",
        lambda one: f"prompts {one.run.prompts.sha256[:8]}",
    )
    return [
        Group(name, dict(zip(_labels(found), found, strict=True)))
        for name, found in zip(names, together.values(), strict=True)
    ]


def _key(one: Recorded) -> tuple[str, ...]:
    channel, prompts = one.run.channel, one.run.prompts
    return channel.profile, channel.profile_sha256, prompts.name, prompts.sha256


def _labels(runs: Sequence[Recorded]) -> list[str]:
    return _distinct(
        runs,
        lambda one: one.run.channel.policy.label,
        lambda one: one.given.resolve().name,
        lambda one: str(one.given),
    )


def _distinct(runs: Sequence[Recorded], *tellers: Callable[[Recorded], str]) -> list[str]:
    """Each run told by the first teller, and by the further ones where that is not enough."""
    told = [tellers[0](one) for one in runs]
    for teller in tellers[1:]:
        count = Counter(told)
        told = [
            f"{text}, {teller(one)}" if count[text] > 1 else text
            for text, one in zip(told, runs, strict=True)
        ]
    return told
