"""The requests of a sweep: policies take turns on the same prompts, under the same fading.

    prompts 0 … 9     topk │ wlr θ=0.1 │ wlr θ=0.2        a block: all policies, one after the other
    prompts 10 … 19   wlr θ=0.1 │ wlr θ=0.2 │ topk        the next block: another policy begins

Turns are short, so that drift on the host affects all policies alike. Where fading restarts for
each prompt, a block is one prompt, and the fading restarts for each policy: the channel of a policy
does not depend on the time that others took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client, now_s
from orchestrator.client.restore import restored
from orchestrator.contracts.http import Status
from orchestrator.errors import StackError
from orchestrator.radio.profiles import Profile
from orchestrator.replay.fading import Realisation, begin
from orchestrator.replay.progress_reporter import ProgressReporter
from orchestrator.replay.recorder import Recorder
from orchestrator.replay.request import ask
from orchestrator.replay.sender import Numbered
from orchestrator.results.provenance import describe, of_stack
from orchestrator.results.run_folder import (
    RUN,
    SUMMARY,
    RunFolder,
    check_same,
    read_requests,
    read_run,
)
from orchestrator.results.schema import Request, Run
from orchestrator.sweep.plan import Cell, Plan, blocks

BLOCK = 10


class Runner:
    """Sends the requests that the cells of a plan lack."""

    def __init__(
        self,
        plan: Plan,
        client: Client,
        *,
        allow_degraded: bool = False,
        on_request: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self._plan = plan
        self._client = client
        self._allow_degraded = allow_degraded
        self._on_request = on_request
        self._progress = ProgressReporter(client)
        self._in_force: Profile | None = None  # the profile that this sweep put into force

    def run(self) -> None:
        """Fill every cell; restore policy and profile of the stack afterwards, even after an error.

        A failed request is recorded, as long as the base station still answers.

        Raises:
            InputError: a profile or policy is refused, or a cell was made on another stack.
            StackError: the stack does not answer, or not under the requested policy and profile.
        """
        if all((cell.path / SUMMARY).exists() for cell in self._plan.all_cells):
            return
        self._check_stack()
        with self._progress, restored(self._client):
            for profile in self._plan.profiles:
                for prompts in self._plan.sets:
                    self._fill(self._plan.cells(profile, prompts))

    def _check_stack(self) -> None:
        """Raise InputError if cells recorded before a resume were made on another stack."""
        now = of_stack(self._client.stack())
        for cell in self._plan.all_cells:
            if (cell.path / RUN).exists():
                run = read_run(cell.path)
                check_same(cell.path / RUN, of_stack(run.stack), now)

    def _fill(self, cells: Sequence[Cell]) -> None:
        profile, prompts = cells[0].profile, cells[0].prompts
        model = self._client.health().model.name
        size = 1 if self._restarts(profile) else BLOCK
        recorded = {cell: {request.id for request in read_requests(cell.path)} for cell in cells}
        recorders: dict[Cell, Recorder] = {}
        with ExitStack() as opened:
            for turn, block in enumerate(blocks(len(prompts.prompts), size)):
                first = turn % len(cells)
                for cell in (*cells[first:], *cells[:first]):
                    left = [(n, prompts.prompts[n]) for n in block if n not in recorded[cell]]
                    if not left:
                        continue
                    realisation = self._switch(cell, left[0][0])
                    if cell not in recorders:
                        fading = self._plan.fading_of(profile)
                        run = describe(prompts, self._client.stack(), fading=fading)
                        recorders[cell] = opened.enter_context(self._recorder(cell, run))
                    self._progress.show(recorders[cell].tally)
                    for item in left:
                        realisation, request = self._send(item, cell, realisation, model)
                        recorders[cell].add(request)
                    channel = realisation.channel
                    applied = self._client.intervals(channel.apply_at_s)
                    recorders[cell].add_intervals([a for a in applied if a.epoch == channel.epoch])
            for cell in cells:
                if cell not in recorders and not (cell.path / SUMMARY).exists():
                    recorder = self._recorder(cell, read_run(cell.path))
                    recorders[cell] = opened.enter_context(recorder)
                if cell in recorders:
                    recorders[cell].finish(self._client.stack(), took_turns=True)

    def _recorder(self, cell: Cell, run: Run) -> closing[Recorder]:
        folder = RunFolder(cell.path, run, resume=True)
        return closing(Recorder(folder, cell.prompts, self._on_request))

    def _switch(self, cell: Cell, number: int) -> Realisation:
        """Put a cell's policy and a prompt's channel into force, and wait until they are."""
        profile, restarts = cell.profile, self._restarts(cell.profile)
        if not restarts and self._in_force is not profile:
            self._client.use_profile(profile, allow_degraded=self._allow_degraded)
            self._in_force = profile
        channel = self._client.use_policy(cell.policy)
        if restarts:
            realisation = begin(self._client, profile, number, allow_degraded=self._allow_degraded)
            channel, self._in_force = realisation.channel, profile
        else:
            wait_applied(self._client, channel)
            realisation = Realisation(channel, channel.interval)
        wanted = (cell.policy, profile.sha256)
        if (channel.policy, channel.profile_sha256) != wanted:
            raise StackError(
                f"the orchestrator has {channel.policy.label} and {channel.profile} in force; "
                f"{cell.policy.label} and {profile.name} were requested"
            )
        return realisation

    def _restarts(self, profile: Profile) -> bool:
        fading = self._plan.fading_of(profile)
        return fading is not None and fading.begins == "each"

    def _send(
        self, item: Numbered, cell: Cell, realisation: Realisation, model: str
    ) -> tuple[Realisation, Request]:
        """Send a request; return its channel and its record."""
        request = self._request(item, realisation, model)
        if self._mismatch(request, realisation.channel):  # retry once: a late switch
            if self._restarts(cell.profile):
                realisation = self._switch(cell, item[0])
            request = self._request(item, realisation, model)
            channel = realisation.channel
            if other := self._mismatch(request, channel):
                raise StackError(
                    f"{request.prompt_id} ran under {other}; {channel.policy.label} and "
                    f"{channel.profile} (epoch {channel.epoch}) were requested: does another "
                    "client use the stack?"
                )
        return realisation, request

    def _mismatch(self, request: Request, channel: Status) -> str | None:
        """What a request met instead of `channel`, by its own record or by what is in force now."""
        for met in (request.timings, self._client.status()):
            if met is not None and (met.policy, met.profile, met.epoch) != (
                *(channel.policy, channel.profile, channel.epoch),
            ):
                return f"{met.policy.label} and {met.profile} (epoch {met.epoch})"
        return None

    def _request(self, item: Numbered, realisation: Realisation, model: str) -> Request:
        request, _ = ask(*item, self._client, model, now_s(), realisation)
        if request.error is not None:
            self._client.health()  # raises if the base station is gone, as all requests would fail
        return request


def recorded(plan: Plan) -> int:
    """Return the number of requests of a plan that are recorded."""
    return sum(len(read_requests(cell.path)) for cell in plan.all_cells)
