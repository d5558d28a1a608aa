"""A sweep's requests: policies take turns on the same prompts, under the same fading.

    prompts 0 … 9     topk │ wlr θ=0.1 │ wlr θ=0.2        a block: each policy, one after the other
    prompts 10 … 19   wlr θ=0.1 │ wlr θ=0.2 │ topk        the next one: another begins

Turns are short, so that what drifts on the host falls on all policies alike. Where fading begins
anew for each prompt a block is one prompt, and the fading begins again for each policy: which
channel a policy meets does not depend on how long others took.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing

from orchestrator.client.applied import wait_applied
from orchestrator.client.client import Client, now_s
from orchestrator.client.restore import restored
from orchestrator.errors import StackError
from orchestrator.prompts.prompt_sets import Prompt
from orchestrator.radio.profiles import Profile
from orchestrator.replay.fading import Realisation, begin
from orchestrator.replay.progress_reporter import ProgressReporter, Tally
from orchestrator.replay.request import ask
from orchestrator.results.provenance import describe, of_stack
from orchestrator.results.run_folder import (
    RUN,
    SUMMARY,
    RunFolder,
    check_same,
    read_intervals,
    read_requests,
    read_run,
    write_summary,
)
from orchestrator.results.schema import Channel, Request
from orchestrator.results.summary import summarise
from orchestrator.sweep.plan import Cell, Plan, blocks

BLOCK = 10

Numbered = tuple[int, Prompt]


class Runner:
    """Sends what a plan's cells lack."""

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
        self._telling = ProgressReporter(client)
        self._in_force: Profile | None = None  # as far as this sweep has put it there

    def run(self) -> None:
        """Fill every cell; the stack then has the policy and the profile of before, whatever came.

        A failed request is recorded, as long as the base station answers at all.

        Raises:
            InputError: a profile or policy is refused, or a cell is not of this sweep's stack.
            StackError: the stack does not answer, or not under what was asked.
        """
        if all((cell.path / SUMMARY).exists() for cell in self._plan.all_cells):
            return
        self._check_stack()
        with self._telling, restored(self._client):
            for profile in self._plan.profiles:
                for prompts in self._plan.sets:
                    self._fill(self._plan.cells(profile, prompts))

    def _check_stack(self) -> None:
        """That cells of before the sweep was stopped had the same stack; InputError if not."""
        now = of_stack(self._client.stack())
        for cell in self._plan.all_cells:
            if (cell.path / RUN).exists():
                run = read_run(cell.path)
                check_same(cell.path / RUN, of_stack(run.stack), now)

    def _fill(self, cells: Sequence[Cell]) -> None:
        profile, prompts = cells[0].profile, cells[0].prompts
        model = self._client.health().model.name
        size = 1 if self._begins_anew(profile) else BLOCK
        before = {cell: read_requests(cell.path) for cell in cells}
        recorded = {cell: {one.id for one in requests} for cell, requests in before.items()}
        tallies = {cell: Tally(prompts, requests) for cell, requests in before.items()}
        with ExitStack() as stack:
            folders: dict[Cell, RunFolder] = {}
            for turn, block in enumerate(blocks(len(prompts.prompts), size)):
                first = turn % len(cells)
                for cell in (*cells[first:], *cells[:first]):
                    left = [(n, prompts.prompts[n]) for n in block if n not in recorded[cell]]
                    if not left:
                        continue
                    realisation = self._switch(cell, left[0][0])
                    if cell not in folders:
                        fading = self._plan.fading_of(profile)
                        run = describe(prompts, self._client.stack(), fading=fading)
                        folder = RunFolder(cell.path, run, resume=True)
                        folders[cell] = stack.enter_context(closing(folder))
                    self._telling.show(tallies[cell])
                    for item in left:
                        realisation, request = self._send(item, cell, realisation, model)
                        folders[cell].add(request)
                        tallies[cell].add(request)
                        self._on_request(request)
                    channel = realisation.channel
                    applied = self._client.intervals(channel.apply_at_s)
                    folders[cell].add_intervals([a for a in applied if a.epoch == channel.epoch])
        for cell in cells:
            if cell in folders or not (cell.path / SUMMARY).exists():
                self._summarise(cell)

    def _switch(self, cell: Cell, number: int) -> Realisation:
        """Put a cell's policy and a prompt's channel into force, and wait until they are."""
        profile, anew = cell.profile, self._begins_anew(cell.profile)
        if not anew and self._in_force is not profile:
            self._client.use_profile(profile, allow_degraded=self._allow_degraded)
            self._in_force = profile
        channel = self._client.use_policy(cell.policy)
        if anew:
            realisation = begin(self._client, profile, number, allow_degraded=self._allow_degraded)
            channel, self._in_force = realisation.channel, profile
        else:
            wait_applied(self._client, channel)
            realisation = Realisation(channel, channel.interval)
        asked = (cell.policy, profile.sha256)
        if (channel.policy, channel.profile_sha256) != asked:
            raise StackError(
                f"the orchestrator has {channel.policy.label} and {channel.profile} in force; "
                f"{cell.policy.label} and {profile.name} were asked for"
            )
        return realisation

    def _begins_anew(self, profile: Profile) -> bool:
        fading = self._plan.fading_of(profile)
        return fading is not None and fading.begins == "each"

    def _send(
        self, item: Numbered, cell: Cell, realisation: Realisation, model: str
    ) -> tuple[Realisation, Request]:
        """Make a request; the channel that it had, and the request."""
        request = self._request(item, realisation, model)
        if self._met(request, realisation.channel):  # once, the switch may have come late
            if self._begins_anew(cell.profile):
                realisation = self._switch(cell, item[0])
            request = self._request(item, realisation, model)
            channel = realisation.channel
            if met := self._met(request, channel):
                raise StackError(
                    f"{request.prompt_id} ran under {met}; {channel.policy.label} and "
                    f"{channel.profile} (epoch {channel.epoch}) were asked for: does anybody else "
                    "use the stack?"
                )
        return realisation, request

    def _met(self, request: Request, channel: Channel) -> str | None:
        """What a request met besides `channel`, as it says itself or as is in force at its end."""
        for met in (request.timings, self._client.channel()):
            if met is not None and (met.policy, met.profile, met.epoch) != (
                *(channel.policy, channel.profile, channel.epoch),
            ):
                return f"{met.policy.label} and {met.profile} (epoch {met.epoch})"
        return None

    def _request(self, item: Numbered, realisation: Realisation, model: str) -> Request:
        request, _ = ask(*item, self._client, model, now_s(), realisation)
        if request.error is not None:
            self._client.health()  # if it is gone, what is left would fail as well
        return request

    def _summarise(self, cell: Cell) -> None:
        requests = read_requests(cell.path)
        summary = summarise(
            read_run(cell.path),
            requests,
            self._client.stack(),
            intervals=read_intervals(cell.path),
            continuous=False,
            ended_now=False,  # other cells have had the stack since
        )
        write_summary(cell.path, summary)


def recorded(plan: Plan) -> int:
    """How many of a plan's requests have been made."""
    return sum(len(read_requests(cell.path)) for cell in plan.all_cells)
