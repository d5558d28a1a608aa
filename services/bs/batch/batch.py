"""One forward pass: its sequences, the requests that they belong to, and its measurements.

    parts       │ a │ b b b │ c │ d d │    tokens of one sequence each
    owner         0   0 0 0   1   2 2      index in `servings` of each token's request
    groups      │ one policy    │ other│    selected together; one sequence each if the policy draws

Requests share a step's times, but each counts its own tokens: the counts are arrays of requests ×
experts while the layers are computed, and are added to the requests' meters at the end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from orchestrator.selection import Policy
from services.bs.batch.attention import KvCache
from services.bs.batch.layer_record import LayerRecord
from services.bs.batch.request_context import RequestContext
from services.bs.batch.routing_trace import RoutingTrace
from services.bs.batch.timings import Times
from services.bs.tracing.spans import LayerTrace, StepTrace

Counts = NDArray[np.int64]


@dataclass(eq=False)
class Segment:
    """A sequence's next tokens.

    Attributes:
        ids: the tokens.
        cache: keys and values of all tokens before them.
        generator: what a policy draws with for this sequence.
        wanted: number of last tokens whose logits are needed.
        logits: wanted × vocabulary, fp32, on the CPU; set by the step.
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

    `traces` pairs the trace of a request with its rows, counted from the group's first.
    """

    rows: slice
    policy: Policy
    generator: torch.Generator
    traces: list[tuple[RoutingTrace, slice]]


class ForwardBatch:
    """The sequences of one step; used by the engine's thread only.

    Counts have a row for each request and a column for each expert.

    Attributes:
        layers_s: duration of each layer, from the gate to the sum of its experts' outputs.
    """

    def __init__(self, parts: Iterable[Segment], experts: int) -> None:
        """Take parts in the order of their requests; put those with the same policy together."""
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
        self._left_out = (0, 0)
        if any(serving.spans is not None for serving in self.servings):
            self.trace = StepTrace(len(self.owner), len(self.parts))

    def wanted(self) -> list[int]:
        """Return the rows whose logits are needed."""
        rows: list[int] = []
        end = 0
        for part in self.parts:
            end += len(part)
            rows += range(end - part.wanted, end)
        return rows

    def untouched(self, layer: int, rows: NDArray[np.bool_]) -> None:
        """Record that `rows` (n,) of a layer were routed to experts, and none has answered.

        If these are all rows of a sequence, its request fails: the rest would be made up.
        """
        for number in np.flatnonzero(np.logical_and.reduceat(rows, self._first)).tolist():
            serving = self.parts[number].serving
            if serving.untouched is None:
                serving.untouched = layer

    def book(self, record: LayerRecord) -> None:
        """Add a layer that has ended: its times, and its trace if one is recorded."""
        self.layers_s.append(record.left_s - record.gate_at_s)
        times = self.times
        times.gate_s += record.gated_s - record.gate_at_s
        times.selection_s += record.selected_s - record.gated_s
        times.combine_s += record.left_s - record.answered_s
        times.moe_s += record.left_s - record.entered_s
        if self.trace is not None:
            before, self._left_out = self._left_out, self._count_left_out()
            deselected, lost = (
                now - then for now, then in zip(self._left_out, before, strict=True)
            )
            self.trace.layers.append(
                LayerTrace(
                    number=record.number,
                    entered_s=record.entered_s,
                    gate_s=record.gate_at_s,
                    gated_s=record.gated_s,
                    selected_s=record.selected_s,
                    combine_s=record.answered_s,
                    ended_s=record.left_s,
                    deselected=deselected,
                    lost=lost,
                    trips=[call.round_trip(record.answered_s) for call in record.calls],
                )
            )

    def close(self) -> None:
        """Add each request's share to its meter, once all layers have been computed."""
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

    def _count_left_out(self) -> tuple[int, int]:
        """Return the experts of tokens left out so far by the policy, and by faults."""
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
