"""One forward pass: the sequences in it, the requests they are of, and what it took.

    parts       │ a │ b b b │ c │ d d │    tokens of one sequence each
    owner         0   0 0 0   1   2 2      the request of each token, of `servings`
    groups      │ one policy    │ other│    selected together; a policy that draws: each by itself

Requests share a step's times, and have their tokens to themselves: counts are kept as arrays of
requests × experts while the layers are computed, and given to the requests' meters at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.selection import Policy
from services.bs.batch.attention import KvCache
from services.bs.batch.request_context import RequestContext
from services.bs.batch.routing_trace import RoutingTrace
from services.bs.batch.timings import Times
from services.bs.tracing.spans import StepTrace

Counts = NDArray[np.int64]


@dataclass(eq=False)
class Segment:
    """A sequence's next tokens.

    Attributes:
        ids: the tokens.
        cache: of all tokens before them.
        generator: what a policy draws with for this sequence.
        wanted: of how many of the last of them logits are needed.
        logits: those, wanted × vocabulary, fp32, on the CPU; once the step has been taken.
    """

    ids: list[int]
    cache: KvCache
    serving: RequestContext
    generator: torch.Generator
    wanted: int
    logits: torch.Tensor = field(init=False, repr=False)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PolicyGroup:
    """Neighbouring rows of a step whose experts are selected together.

    `traces` has what records a request's choices, with its rows, counted from the group's first.
    """

    rows: slice
    policy: Policy
    generator: torch.Generator
    traces: list[tuple[RoutingTrace, slice]]


class ForwardBatch:
    """Used by the engine's thread only. Counts have a row a request and a column an expert.

    Attributes:
        layers_s: what each layer took, from the gate to the sum of its experts' outputs.
    """

    def __init__(self, parts: Iterable[Segment], experts: int) -> None:
        """Of parts in the order of their requests; those of equal policies are moved together."""
        by_policy: dict[int, list[Segment]] = {}
        for part in parts:
            by_policy.setdefault(id(part.serving.policy), []).append(part)
        self.parts = [part for together in by_policy.values() for part in together]
        self.groups = _groups(by_policy.values())
        numbers = {id(part.serving): part.serving for part in self.parts}
        self.servings = list(numbers.values())
        number = {key: r for r, key in enumerate(numbers)}
        owners = [number[id(part.serving)] for part in self.parts]
        sizes = [len(part) for part in self.parts]
        self.owner: Counts = np.repeat(owners, sizes)
        self._first: Counts = np.cumsum([0, *sizes[:-1]])
        self.times = Times()
        self.layers_s: list[float] = []
        requests = len(self.servings)
        self.used, self.dropped, self.outage, self.deselected = np.zeros(
            (4, requests, experts), np.int64
        )
        self.device_messages, self.overruns = np.zeros((2, requests), np.int64)
        self.eq8_s = np.zeros(requests)
        self.trace: StepTrace | None = None
        if any(serving.spans is not None for serving in self.servings):
            self.trace = StepTrace(len(self.owner), len(self.parts))

    def wanted(self) -> list[int]:
        """The rows of which logits are needed."""
        rows: list[int] = []
        end = 0
        for part in self.parts:
            end += len(part)
            rows += range(end - part.wanted, end)
        return rows

    def untouched(self, layer: int, rows: NDArray[np.bool_]) -> None:
        """A layer's `rows` (n,) were to get an expert, and none has answered for them.

        A request fails of which a sequence has no other rows: what follows would be made up.
        """
        for number in np.flatnonzero(np.logical_and.reduceat(rows, self._first)).tolist():
            serving = self.parts[number].serving
            if serving.untouched is None:
                serving.untouched = layer

    def close(self) -> None:
        """All layers have been computed: give every request its share."""
        for name in ("used", "dropped", "outage", "deselected"):
            counts = getattr(self, name)
            for r, q in zip(*(axis.tolist() for axis in counts.nonzero()), strict=True):
                getattr(self.servings[r].meter, name)[q] += int(counts[r, q])
        for r, serving in enumerate(self.servings):
            meter = serving.meter
            meter.add(self.times)
            meter.eq8_s += float(self.eq8_s[r])
            meter.device_messages += int(self.device_messages[r])
            meter.overruns += int(self.overruns[r])
            meter.steps += 1
            meter.sequences += len(self.parts)
        if self.trace is not None:
            for serving, tokens in zip(self.servings, np.bincount(self.owner), strict=True):
                if serving.spans is not None:
                    serving.spans.add(self.trace, int(tokens))

    def left_out(self) -> tuple[int, int]:
        """How many experts of tokens the policy, and faults, have cost so far."""
        return int(self.deselected.sum()), int(self.dropped.sum() + self.outage.sum())


def _groups(by_policy: Iterable[list[Segment]]) -> list[PolicyGroup]:
    groups, first = [], 0
    for together in by_policy:
        draws = together[0].serving.policy.draws
        for parts in [[part] for part in together] if draws else [together]:
            traces, at = [], 0
            for part in parts:
                rows = slice(at, at := at + len(part))
                if part.serving.trace is not None:
                    traces.append((part.serving.trace, rows))
            policy, generator = parts[0].serving.policy, parts[0].generator
            groups.append(PolicyGroup(slice(first, first := first + at), policy, generator, traces))
    return groups
