"""The plan of a sweep: profiles × prompt sets × policies, with a folder for each of these cells.

DIR/sweep.json                      the record of the plan
DIR/PROFILE/SET/POLICY/             one cell: the folder of a run
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
from orchestrator.contracts.policy import PolicySpec
from orchestrator.errors import InputError
from orchestrator.files import json_file
from orchestrator.prompts.prompt_sets import PromptSet
from orchestrator.radio.profiles import Profile
from orchestrator.replay import fading
from orchestrator.results.run_folder import SWEEP, check_same
from orchestrator.results.schema import Fading, FadingBegins, PromptsUsed

REFERENCE = "topk"


class ProfileUsed(BaseModel):
    """A profile of a sweep."""

    name: str
    sha256: str


class SweepRecord(BaseModel):
    """The content of sweep.json; `fading` is None for a sweep that did not record it."""

    command: list[str]
    started_at: str
    profiles: list[ProfileUsed]
    sets: list[PromptsUsed]
    policies: list[PolicySpec]
    fading: FadingBegins | None = None

    def essence(self) -> dict[str, object]:
        """Return the fields that must be the same when a sweep is resumed."""
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
    policy: PolicySpec
    path: Path


@dataclass(frozen=True)
class Plan:
    """A sweep in a folder; `policies` begins with the reference, then wlr by θ.

    With `fading` "one", all prompts share one draw of a static profile. A profile that varies in
    time still restarts for each prompt, because policies could not be compared otherwise.
    """

    path: Path
    profiles: tuple[Profile, ...]
    sets: tuple[PromptSet, ...]
    policies: tuple[PolicySpec, ...]
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
            if any(prompt.needs_tests for prompt in prompts.prompts):
                raise InputError(
                    f"prompt set {prompts.name}: asks for programs, which no sweep runs; "
                    "allowed: wdmoe replay"
                )
        for profile in self.profiles:
            fading.check(profile, max(len(prompts.prompts) for prompts in self.sets))

    @property
    def requests(self) -> int:
        """Number of requests of the whole sweep."""
        prompts = sum(len(prompt_set.prompts) for prompt_set in self.sets)
        return prompts * len(self.profiles) * len(self.policies)

    @property
    def all_cells(self) -> list[Cell]:
        """All cells, in the order in which they run."""
        return [
            cell
            for profile in self.profiles
            for prompts in self.sets
            for cell in self.cells(profile, prompts)
        ]

    def cells(self, profile: Profile, prompts: PromptSet) -> list[Cell]:
        """Return a cell for each policy, in their order."""
        folder = self.path / profile.name / prompts.name
        return [Cell(profile, prompts, policy, folder / slug(policy)) for policy in self.policies]

    def fading_of(self, profile: Profile) -> Fading | None:
        """Return how the fading of a profile begins for the requests; None if it has no fading."""
        if not profile.fades:
            return None
        begins = self.fading if profile.interval_s is None else "each"
        return Fading(begins=begins, interval_s=profile.interval_s)

    def record(self) -> SweepRecord:
        """Return the record of a sweep that starts now."""
        return SweepRecord(
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

    def claim(self, *, resume: bool) -> SweepRecord:
        """Claim the folder for this sweep; return its record, from before if it is resumed.

        Raises:
            InputError: the folder cannot be written; or it holds a sweep, and `resume` is not set
                or that sweep has another plan.
        """
        file, record = self.path / SWEEP, self.record()
        if resume and file.exists():
            previous = json_file.read(file, SweepRecord, "a sweep")
            check_same(file, previous.essence(), record.essence())
            return previous
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            json_file.create(file, record)
        except FileExistsError:
            raise InputError(
                f"{self.path}: holds a sweep already; allowed: a new folder, or to resume it"
            ) from None
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror or error}") from None
        return record

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the claimed folder against other processes; InputError if one holds the lock."""
        with (self.path / SWEEP).open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"{self.path}: a sweep is writing to it; allowed: when that has ended"
                ) from None
            yield


def policies(thetas: Sequence[float], others: Sequence[str]) -> tuple[PolicySpec, ...]:
    """The reference, wlr with each θ, and others as NAME or NAME:PARAMETER=VALUE,…

    Raises:
        InputError: one of them is not a valid policy.
    """
    specs: list[tuple[str, dict[str, Any]]] = [(REFERENCE, {})]
    specs += [("wlr", {"theta": theta}) for theta in thetas]
    specs += map(_parse, others)
    found = [selection.find(name, params) for name, params in specs]
    return tuple(
        PolicySpec(name=one.name, params=one.model_dump(exclude_none=True)) for one in found
    )


def slug(policy: PolicySpec) -> str:
    """A policy's label as the name of a folder: `wlr-theta-0.2`."""
    return re.sub(r"[^\w.+-]+", "-", policy.label.replace("θ", "theta"))


def value_of(text: str) -> Any:
    """Return the value of a parameter as typed: a number, true or false if it parses as one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def blocks(count: int, size: int) -> Iterator[range]:
    """Return 0 … count - 1 in ranges of `size`; the last may be shorter."""
    return (range(start, min(start + size, count)) for start in range(0, count, size))


def _parse(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition(":")
    params: dict[str, Any] = {}
    for word in filter(None, rest.split(",")):
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(f"policy {text}: {word!r} has no value; allowed: PARAMETER=VALUE")
        params[key] = value_of(value)
    return name, params
