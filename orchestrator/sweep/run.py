"""A sweep's requests: policies take turns on the same prompts, under the same fading.

    prompts 0 … 9     topk │ wlr θ=0.1 │ wlr θ=0.2        a block: each policy, one after the other
    prompts 10 … 19   wlr θ=0.1 │ wlr θ=0.2 │ topk        the next one: another begins

Turns are short, so that what drifts on the host falls on all policies alike. Where the channel
varies in time a block is one prompt, and for each policy the fading begins again at an interval
that belongs to the prompt: what a policy meets does not depend on how long others took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from orchestrator.errors import StackError
from orchestrator.profiles import Profile
from orchestrator.replay.client import Client
from orchestrator.replay.loop import closed_loop
from orchestrator.replay.prompt_sets import Prompt
from orchestrator.replay.provenance import describe
from orchestrator.replay.records import Channel, Health, Request
from orchestrator.replay.run_folder import (
    SUMMARY,
    RunFolder,
    read_requests,
    read_run,
    write_summary,
)
from orchestrator.replay.summary import summarise
from orchestrator.sweep.plan import Cell, Plan, blocks

BLOCK = 10
# From where a prompt's fading begins to where the next one's does: longer than any request.
STRIDE_S = 600.0
# A state takes effect at its time; by then the base station and all devices have long had it.
SETTLE_S = 0.002

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
        health = self._client.health()
        with _put_back(self._client):
            for profile in self._plan.profiles:
                for prompts in self._plan.sets:
                    self._fill(self._plan.cells(profile, prompts), health)

    def _fill(self, cells: Sequence[Cell], health: Health) -> None:
        profile, prompts = cells[0].profile, cells[0].prompts
        size = BLOCK if profile.interval_s is None else 1
        recorded = {cell: {one.id for one in read_requests(cell.path)} for cell in cells}
        with ExitStack() as stack:
            folders: dict[Cell, RunFolder] = {}
            for turn, block in enumerate(blocks(len(prompts.prompts), size)):
                first = turn % len(cells)
                for cell in (*cells[first:], *cells[:first]):
                    left = [(n, prompts.prompts[n]) for n in block if n not in recorded[cell]]
                    if not left:
                        continue
                    channel = self._switch(cell, left[0][0])
                    if cell not in folders:
                        run = describe(prompts, health, self._client.channel())
                        folder = RunFolder(cell.path, run, resume=True)
                        folders[cell] = stack.enter_context(closing(folder))
                    self._send(left, folders[cell], channel, health.model.name)
        for cell in cells:
            if cell in folders or not (cell.path / SUMMARY).exists():
                self._summarise(cell)

    def _switch(self, cell: Cell, number: int) -> Channel:
        """Put a cell's policy and channel into force, and wait until they are."""
        profile = cell.profile
        if profile.interval_s is None and self._in_force is not profile:
            self._client.use_profile(profile, allow_degraded=self._allow_degraded)
            self._in_force = profile
        channel = self._client.use_policy(cell.policy)
        if profile.interval_s is not None:
            channel = self._client.use_profile(
                profile,
                first_interval=number * math.ceil(STRIDE_S / profile.interval_s),
                allow_degraded=self._allow_degraded,
            )
            self._in_force = profile
        asked = (cell.policy, profile.sha256)
        if (channel.policy, channel.profile_sha256) != asked:
            raise StackError(
                f"the orchestrator has {channel.policy.label} and {channel.profile} in force; "
                f"{cell.policy.label} and {profile.name} were asked for"
            )
        time.sleep(max(0.0, channel.apply_at_s + SETTLE_S - time.time()))
        return channel

    def _send(
        self, prompts: Sequence[Numbered], folder: RunFolder, channel: Channel, model: str
    ) -> None:
        for request, _ in closed_loop(prompts, self._client, model):
            if request.error is not None:
                self._client.health()  # if it is gone, what is left would fail as well
            _check(request, channel)
            folder.add(request)
            self._on_request(request)
        applied = self._client.intervals(channel.apply_at_s)
        folder.add_intervals([one for one in applied if one.epoch == channel.epoch])

    def _summarise(self, cell: Cell) -> None:
        requests = read_requests(cell.path)
        after = self._client.channel()
        summary = summarise(read_run(cell.path), requests, after, continuous=False)
        write_summary(cell.path, summary)


def recorded(plan: Plan) -> int:
    """How many of a plan's requests have been made."""
    return sum(len(read_requests(cell.path)) for cell in plan.all_cells)


def _check(request: Request, channel: Channel) -> None:
    """That a request ran under what was asked; StackError if somebody else switched meanwhile."""
    timings = request.timings
    if timings is None:
        return
    ran = (timings.policy, timings.profile, timings.epoch)
    if ran != (channel.policy, channel.profile, channel.epoch):
        raise StackError(
            f"{request.prompt_id} ran under {timings.policy.label} and {timings.profile} (epoch "
            f"{timings.epoch}); {channel.policy.label} and {channel.profile} (epoch "
            f"{channel.epoch}) were asked for: does anybody else use the stack?"
        )


@contextmanager
def _put_back(client: Client) -> Iterator[None]:
    """Leave the stack with the policy and the profile that it has now."""
    profile, policy = client.profile(), client.channel().policy
    try:
        yield
    finally:
        client.use_policy(policy)
        client.use_profile(profile, allow_degraded=True)
