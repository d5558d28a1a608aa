"""The sender of a run's requests, each under its fading.

each    fading of prompt 0 ─► request │ fading of prompt 1 ─► request │ …
one     fading of the first prompt ─► requests, as their schedule has it
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import cycle, islice

from orchestrator.client.client import Client, now_s
from orchestrator.client.restore import restored
from orchestrator.prompts.prompt import Prompt
from orchestrator.radio.profiles import Profile
from orchestrator.replay.fading import Realisation, begin
from orchestrator.replay.loop import Answer, Due, send
from orchestrator.replay.request import OnTrace, ask
from orchestrator.results.schema import Fading

# For a schedule without a bound of its own: each request in flight is a thread and a connection.
MOST_IN_FLIGHT = 512
# Time until a schedule begins, so that all its senders have started.
LEAD_S = 0.1

Numbered = tuple[int, Prompt]


@dataclass(frozen=True)
class Sender:
    """A sender of prompts to a base station.

    Attributes:
        model: the model's name.
        profile: the profile in force.
        fading: how its fading begins; None: it has no fading.
        in_force: the realisation that requests meet until a fading is started.
        concurrency: how many requests may be in flight.
        routing: record how experts were chosen.
        on_trace: receives the trace of each request.
    """

    client: Client
    model: str
    profile: Profile
    fading: Fading | None
    in_force: Realisation
    concurrency: int | None
    routing: bool
    on_trace: OnTrace | None

    def restored(self) -> AbstractContextManager[object]:
        """Restore the stack after `with` if sending changes what is in force."""
        if self.fading is None or self.fading.one_realisation:
            return nullcontext()
        return restored(self.client)

    def warm_up(self, prompts: Sequence[Prompt], count: int) -> None:
        """Send `count` prompts one after another, starting with the first, and record nothing."""
        for number, prompt in enumerate(islice(cycle(prompts), count)):
            self._ask(number, prompt, now_s(), self.in_force, None)

    def answers(self, left: Sequence[Numbered], starts_s: list[float] | None) -> Iterator[Answer]:
        """Send the prompts that are `left` and yield answers as they arrive.

        `starts_s` has all prompts' starts by number, from any origin; the first one left starts at
        once. Raises like `begin`, and StackError if the base station is gone.
        """
        if self.fading is not None and self.fading.begins == "each":
            for number, prompt in left:
                realisation = begin(self.client, self.profile, number, allow_degraded=True)
                yield self._ask(number, prompt, now_s(), realisation, self.on_trace)
            return
        realisation = self.in_force
        if self.fading is not None and not self.fading.one_realisation and left:
            realisation = begin(self.client, self.profile, left[0][0], allow_degraded=True)

        def send_one(number: int, prompt: Prompt, start_s: float) -> Answer:
            return self._ask(number, prompt, start_s, realisation, self.on_trace)

        yield from send(_due(left, starts_s), send_one, self.concurrency or MOST_IN_FLIGHT)

    def _ask(
        self,
        number: int,
        prompt: Prompt,
        start_s: float,
        realisation: Realisation,
        on_trace: OnTrace | None,
    ) -> Answer:
        answer = ask(
            *(number, prompt, self.client, self.model, start_s, realisation),
            routing=self.routing,
            on_trace=on_trace,
        )
        if answer[0].error is not None:
            self.client.health()  # raises if it is gone: further requests would fail too
        return answer


def _due(left: Sequence[Numbered], starts_s: list[float] | None) -> list[Due]:
    """Return what is left to send; its schedule begins now, with the first prompt left."""
    if starts_s is None or not left:
        return [Due(n, prompt) for n, prompt in left]
    begin_s = now_s() + LEAD_S - starts_s[left[0][0]]
    return [Due(n, prompt, begin_s + starts_s[n]) for n, prompt in left]
