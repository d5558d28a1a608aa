"""What a sweep asks: profiles × prompt sets × policies, and the folder each of these cells has.

DIR/sweep.json                      what was asked
DIR/PROFILE/SET/POLICY/             one cell: a run's folder
DIR/summary.json, table.md, PROFILE.png, PROFILE.svg
"""

from __future__ import annotations

import fcntl
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator import selection
from orchestrator.errors import InputError
from orchestrator.files import json_file
from orchestrator.prompts.prompt import CodePrompt
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.radio.profiles import Profile
from orchestrator.replay import fading
from orchestrator.results.run_folder import SWEEP, check_same
from orchestrator.results.schema import Fading, FadingBegins, Policy, PromptsUsed

REFERENCE = "topk"


class ProfileUsed(BaseModel):
    """A profile of a sweep."""

    name: str
    sha256: str


class Asked(BaseModel):
    """The content of sweep.json; `fading` None: of a sweep that did not record it."""

    command: list[str]
    started_at: str
    profiles: list[ProfileUsed]
    sets: list[PromptsUsed]
    policies: list[Policy]
    fading: FadingBegins | None = None

    def essence(self) -> dict[str, object]:
        """What must not change when a sweep goes on."""
        return {
            "profiles": ", ".join(profile.name for profile in self.profiles),
            **{f"the sha256 of profile {item.name}": item.sha256 for item in self.profiles},
            "sets": ", ".join(prompts.name for prompts in self.sets),
            **{f"the sha256 of set {item.name}": item.sha256 for item in self.sets},
            **{f"the number of prompts of set {item.name}": item.items for item in self.sets},
            "policies": ", ".join(policy.label for policy in self.policies),
            "fading": self.fading,
        }


@dataclass(frozen=True, eq=False)
class Cell:
    """One policy on one prompt set under one profile."""

    profile: Profile
    prompts: PromptSet
    policy: Policy
    path: Path


@dataclass(frozen=True)
class Plan:
    """A sweep in a folder; `policies` begins with the reference, then wlr by its θ.

    `fading` "one": where a profile is static, all prompts have one draw; what varies in time begins
    anew for each prompt all the same, as policies could not be compared otherwise.
    """

    path: Path
    profiles: tuple[Profile, ...]
    sets: tuple[PromptSet, ...]
    policies: tuple[Policy, ...]
    fading: FadingBegins = "each"

    def __post_init__(self) -> None:
        for kind, names in (
            ("profile", [profile.name for profile in self.profiles]),
            ("prompt set", [prompts.name for prompts in self.sets]),
            ("policy", [policy.label for policy in self.policies]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise InputError(f"{kind} {name} is given twice; allowed: once each")
        folders: dict[str, str] = {}
        for policy in self.policies:
            other = folders.setdefault(slug(policy), policy.label)
            if other != policy.label:
                raise InputError(
                    f"policies {other} and {policy.label} have the same folder {slug(policy)}; "
                    "allowed: one of them"
                )
        for prompts in self.sets:
            if any(isinstance(one, CodePrompt) for one in prompts.prompts):
                raise InputError(
                    f"prompt set {prompts.name}: asks for programs, which no sweep runs; "
                    "allowed: wdmoe replay --run-code"
                )
        for profile in self.profiles:
            fading.check(profile, max(len(prompts.prompts) for prompts in self.sets))

    @property
    def requests(self) -> int:
        """How many requests the whole sweep has."""
        prompts = sum(len(one.prompts) for one in self.sets)
        return prompts * len(self.profiles) * len(self.policies)

    @property
    def all_cells(self) -> list[Cell]:
        """Every cell, in the order in which they are run."""
        return [
            cell
            for profile in self.profiles
            for prompts in self.sets
            for cell in self.cells(profile, prompts)
        ]

    def cells(self, profile: Profile, prompts: PromptSet) -> list[Cell]:
        """A cell for each policy, in their order."""
        folder = self.path / profile.name / prompts.name
        return [Cell(profile, prompts, one, folder / slug(one)) for one in self.policies]

    def fading_of(self, profile: Profile) -> Fading | None:
        """How a profile's fading begins for the sweep's requests; None: it has none."""
        if not profile.fades:
            return None
        begins = self.fading if profile.interval_s is None else "each"
        return Fading(begins=begins, interval_s=profile.interval_s)

    def asked(self) -> Asked:
        """The record of a sweep that starts now."""
        return Asked(
            command=sys.argv,
            started_at=datetime.now().astimezone().isoformat(timespec="milliseconds"),
            profiles=[ProfileUsed(name=one.name, sha256=one.sha256) for one in self.profiles],
            sets=[
                PromptsUsed(
                    name=one.name, path=str(one.path), sha256=one.sha256, items=len(one.prompts)
                )
                for one in self.sets
            ],
            policies=list(self.policies),
            fading=self.fading,
        )

    def claim(self, *, resume: bool) -> Asked:
        """Take the folder for this sweep; what was asked, be it before it was stopped.

        Raises:
            InputError: it cannot be written; or a sweep is in it, and `resume` is not set or it
                asked for something else.
        """
        file, asked = self.path / SWEEP, self.asked()
        if resume and file.exists():
            before = json_file.read(file, Asked, "a sweep")
            check_same(file, before.essence(), asked.essence())
            return before
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            json_file.create(file, asked)
        except FileExistsError:
            raise InputError(
                f"--out {self.path}: holds a sweep already; allowed: a new folder, or --resume"
            ) from None
        except OSError as error:
            raise InputError(f"--out {self.path}: {error.strerror or error}") from None
        return asked

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from the folder that was claimed; InputError if one is at it."""
        with (self.path / SWEEP).open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"--out {self.path}: a sweep is writing to it; allowed: when that has ended"
                ) from None
            yield


def policies(thetas: Sequence[float], others: Sequence[str]) -> tuple[Policy, ...]:
    """The reference, wlr with each θ, and others as NAME or NAME:PARAMETER=VALUE,…

    Raises:
        InputError: one of them is no policy.
    """
    asked: list[tuple[str, dict[str, Any]]] = [(REFERENCE, {})]
    asked += [("wlr", {"theta": theta}) for theta in thetas]
    asked += map(_parse, others)
    found = [selection.find(name, params) for name, params in asked]
    return tuple(Policy(name=one.name, params=one.model_dump(exclude_none=True)) for one in found)


def slug(policy: Policy) -> str:
    """A policy's label as the name of a folder: `wlr-theta-0.2`."""
    return re.sub(r"[^\w.+-]+", "-", policy.label.replace("θ", "theta"))


def value_of(text: str) -> Any:
    """A parameter's value as it is typed: a number, true or false if it looks like one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def blocks(count: int, size: int) -> Iterator[range]:
    """0 … count - 1 in pieces of `size`, the last one shorter."""
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition(":")
    params: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"--policy {text}: {word!r} has no value; allowed: PARAMETER=VALUE")
        params[key] = value_of(value)
    return name, params
