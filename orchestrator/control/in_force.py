"""What is in force, in files: a restart changes neither the channel nor the policy.

    profile-SHA256.json    a profile's text and its traces
    in_force.json          which of them it is, since when, under which epoch, and the policy

`in_force.json` is written before a state of it is announced, and replaced as a whole.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from orchestrator import selection
from orchestrator.contracts.channel_state import MAX_PARAMS, Param, PolicyState
from orchestrator.control.timeline import Timeline
from orchestrator.errors import InputError, StackError
from orchestrator.files import json_file
from orchestrator.radio import profiles
from orchestrator.radio.profiles import Profile

_Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _ProfileFile(_Strict):
    text: str
    traces: dict[str, str]


class _PolicyRecord(_Strict):
    name: str
    params: Annotated[dict[str, Param], Field(max_length=MAX_PARAMS)]


class _InForceFile(_Strict):
    v: Literal[1]
    setting: str
    profile: str
    profile_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    epoch: _Count
    start_s: FiniteFloat
    first: _Count
    from_s: FiniteFloat
    policy: _PolicyRecord


class InForceStore:
    """A folder that holds the plan in force.

    Args:
        folder: has to exist.
        setting: the value of WDMOE_PROFILE, which is stored beside the plan.
    """

    def __init__(self, folder: Path, setting: str) -> None:
        self._setting = setting
        self._folder = folder
        self._file = folder / "in_force.json"

    def restore(self, profile: Profile) -> Timeline | None:
        """The plan that was written last, as it goes on now; None if there is none.

        Args:
            profile: that of the setting; in force if the setting is not the one that was written.

        Raises:
            InputError: the files are damaged, or hold what cannot be put into force here.
        """
        if not self._file.exists():
            return None
        try:
            stored, plan = self._read()
            here, there = len(profile.spec.devices), len(plan.profile.spec.devices)
            if here != there:
                raise InputError(f"{self._file}: has {there} devices, the stack has {here}")
        except InputError as error:
            raise InputError(
                f"{error}; what was in force cannot go on: `wdmoe down` forgets it, and "
                "`wdmoe up` then begins with WDMOE_PROFILE"
            ) from None
        if stored.setting != self._setting:
            plan = plan.with_profile(profile, 0, time.time())
            why = f"WDMOE_PROFILE was {stored.setting}"
        else:
            plan.profile.devices(plan.interval_at(time.time()))  # drawing it may take seconds
            plan = plan.resumed(time.time())
            why = f"restored from {self._file}"
        print(
            f"orchestrator: profile {plan.profile.name} from interval {plan.first} on, policy "
            f"{plan.policy.name}: {why}",
            flush=True,
        )
        return plan

    def write_profile(self, profile: Profile) -> None:
        """Write a profile that a plan is about to refer to; StackError if that fails."""
        file = self._profile_file(profile.sha256)
        if not file.exists():
            _write(file, _ProfileFile(text=profile.text, traces=dict(profile.traces)))

    def write(self, plan: Timeline) -> None:
        """Write a plan, whose profile has been written; StackError if that fails."""
        document = _InForceFile(
            v=1,
            setting=self._setting,
            profile=plan.profile.name,
            profile_sha256=plan.profile.sha256,
            epoch=plan.epoch,
            start_s=plan.start_s,
            first=plan.first,
            from_s=plan.from_s,
            policy=_PolicyRecord(name=plan.policy.name, params=dict(plan.policy.params)),
        )
        _write(self._file, document)

    def remove_other_profiles(self, profile: Profile) -> None:
        """Remove every profile but this one."""
        for file in self._folder.glob("profile-*.json"):
            if file != self._profile_file(profile.sha256):
                file.unlink(missing_ok=True)

    def _read(self) -> tuple[_InForceFile, Timeline]:
        stored = json_file.read(self._file, _InForceFile, "what is in force")
        file = self._profile_file(stored.profile_sha256)
        text = json_file.read(file, _ProfileFile, "a profile")
        profile = profiles.parse(text.text, stored.profile, str(file), text.traces)
        if profile.sha256 != stored.profile_sha256:
            raise InputError(f"{file}: its profile's hash is {profile.sha256}, not the name's")
        try:
            selection.find(stored.policy.name, stored.policy.params)
        except InputError as error:
            raise InputError(f"{self._file}: {error}") from None
        plan = Timeline(
            profile=profile,
            epoch=stored.epoch,
            start_s=stored.start_s,
            first=stored.first,
            from_s=stored.from_s,
            policy=PolicyState(stored.policy.name, stored.policy.params),
        )
        return stored, plan

    def _profile_file(self, sha256: str) -> Path:
        return self._folder / f"profile-{sha256}.json"


def _write(file: Path, document: BaseModel) -> None:
    try:
        json_file.write(file, document)
    except OSError as error:
        raise StackError(f"{file}: cannot be written: {error.strerror}") from None
