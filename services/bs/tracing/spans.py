"""The trace of a request: its steps, and the spans made from them.

    request
    └─ queue │ step │ between │ step │ … │ between       one after the other, without gaps
               └─ layer │ layer │ …                      and attention, norms, head
                    ├─ gate │ selection │ … │ combine
                    └─ round_trip                        one for each device, in parallel
                         └─ downlink │ wait │ compute │ pack │ uplink      without gaps

Several requests share a step, which is in the trace of each. A request that is not traced costs
nothing here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from orchestrator.contracts.clock_offset import shift_into
from orchestrator.contracts.timings import RequestSpans

# For one request: 5 MB as JSON, 5 MB of memory while it runs. Later steps become a single span.
MAX_SPANS = 1 << 16
# Parts of a round trip, between its sending, the device's four times, and its answer.
_PARTS = ("downlink", "wait", "compute", "pack", "uplink")
# Unix time that never steps, so that the traces of several requests share a clock.
_UNIX_ZERO_NS = time.time_ns() - time.monotonic_ns()

Value: TypeAlias = int | str | bool


class Span(NamedTuple):
    """A span, in time since the request's arrival; `depth` 0 is the request itself.

    Spans come in the order of their starts, a parent right before the first of its children.
    """

    depth: int
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Value]


class RoundTrip(NamedTuple):
    """One device's message of a layer; times are by monotonic clocks, `device_s` by the device's.

    `device_s`: received, started, finished, sent; None if there was no answer until `ended_s`.
    """

    device: int
    tokens: int
    sent_bytes: int
    answer_bytes: int
    overrun: bool
    sent_s: float
    ended_s: float
    device_s: tuple[float, float, float, float] | None


class LayerTrace(NamedTuple):
    """One layer of a step; `deselected` and `lost` count experts of tokens, as in a meter."""

    number: int
    entered_s: float
    gate_s: float
    gated_s: float
    selected_s: float
    combine_s: float
    ended_s: float
    deselected: int
    lost: int
    trips: list[RoundTrip]


@dataclass(eq=False)
class StepTrace:
    """One forward pass, with the number of tokens and sequences of all its requests."""

    tokens: int
    sequences: int
    started_s: float = 0.0
    ended_s: float = 0.0
    layers: list[LayerTrace] = field(default_factory=list)

    @property
    def spans(self) -> int:
        """The number of its spans, with the one after it."""
        return 2 + sum(4 + 6 * len(layer.trips) for layer in self.layers)


class Record(NamedTuple):
    """The trace of a request that has ended; times are by the monotonic clock.

    `steps` has its own tokens with each step; after those, `left_out` steps were not recorded.
    `error` is why its answer is not complete; `completion_tokens` means nothing then.
    """

    arrived_s: float
    ended_s: float
    completion_tokens: int
    error: str | None
    steps: list[tuple[StepTrace, int]]
    left_out: int

    def in_answer(self) -> RequestSpans:
        """Return the trace as it is in an answer; not checked again, for speed."""
        start_unix_ns = _UNIX_ZERO_NS + _ns(self.arrived_s)
        return RequestSpans.model_construct(start_unix_ns=start_unix_ns, spans=self.spans())

    def spans(self) -> list[Span]:
        """Return all spans."""
        tree = _Tree(_ns(self.arrived_s))
        tree.add(0, "request", self.arrived_s, self.ended_s)
        before = ("queue", self.arrived_s)
        for number, (step, own_tokens) in enumerate(self.steps):
            name, since_s = before
            tree.add(1, name, since_s, step.started_s)
            sizes = {"tokens": step.tokens, "own_tokens": own_tokens, "sequences": step.sequences}
            tree.add(1, "step", step.started_s, step.ended_s, step=number, **sizes)
            for layer in step.layers:
                _add_layer(tree, layer, step.tokens)
            before = ("between", step.ended_s)
        if self.left_out:
            tree.add(1, "not_recorded", before[1], self.ended_s, steps=self.left_out)
        else:
            tree.add(1, *before, self.ended_s)
        return tree.spans


class RequestTrace:
    """A recorder of a request's steps, in the engine's thread; `on_end` is called at its end."""

    def __init__(
        self, arrived_s: float, on_end: Callable[[RequestTrace], None] = lambda trace: None
    ) -> None:
        self._arrived_s = arrived_s
        self._ended: tuple[float, int, str | None] | None = None
        self._on_end = on_end
        self._steps: list[tuple[StepTrace, int]] = []
        self._spans = 0
        self._left_out = 0

    def add(self, step: StepTrace, own_tokens: int) -> None:
        """Add a step in which the request has `own_tokens` tokens."""
        if self._left_out or self._spans + step.spans > MAX_SPANS:
            self._left_out += 1
            return
        self._spans += step.spans
        self._steps.append((step, own_tokens))

    def end(self, ended_s: float, completion_tokens: int = 0, error: str | None = None) -> None:
        """End the trace; only the first end counts."""
        if self._ended is None:
            self._ended = ended_s, completion_tokens, error
            self._on_end(self)

    def record(self) -> Record:
        """Return the trace, once it has ended."""
        assert self._ended is not None, "only once it has ended"
        return Record(self._arrived_s, *self._ended, self._steps, self._left_out)


class _Tree:
    """Spans, in nanoseconds since `zero_ns`."""

    def __init__(self, zero_ns: int) -> None:
        self._zero_ns = zero_ns
        self.spans: list[Span] = []

    def add(self, depth: int, name: str, start_s: float, end_s: float, **about: Value) -> None:
        """Add a span, by the base station's clock."""
        self.add_ns(depth, name, _ns(start_s), _ns(end_s), **about)

    def add_ns(self, depth: int, name: str, start_ns: int, end_ns: int, **about: Value) -> None:
        """Add a span, with times in nanoseconds."""
        times = start_ns - self._zero_ns, end_ns - self._zero_ns
        self.spans.append(Span(depth, name, *times, about))


def _add_layer(tree: _Tree, layer: LayerTrace, tokens: int) -> None:
    about = {"tokens": tokens, "deselected": layer.deselected, "lost": layer.lost}
    tree.add(2, "layer", layer.entered_s, layer.ended_s, layer=layer.number, **about)
    tree.add(3, "gate", layer.gate_s, layer.gated_s)
    tree.add(3, "selection", layer.gated_s, layer.selected_s)
    for trip in layer.trips:
        _add_trip(tree, trip)
    tree.add(3, "combine", layer.combine_s, layer.ended_s)


def _add_trip(tree: _Tree, trip: RoundTrip) -> None:
    about: dict[str, Value] = {
        "device": trip.device,
        "tokens": trip.tokens,
        "sent_bytes": trip.sent_bytes,
        "answer_bytes": trip.answer_bytes,
        "answered": trip.device_s is not None,
        "overrun": trip.overrun,
    }
    tree.add(3, "round_trip", trip.sent_s, trip.ended_s, **about)
    if trip.device_s is None:
        return
    sent_ns, ended_ns = _ns(trip.sent_s), _ns(trip.ended_s)
    device_ns = [_ns(time_s) for time_s in trip.device_s]
    shift_ns = shift_into((sent_ns, ended_ns), (device_ns[0], device_ns[-1]))
    within = (min(max(sent_ns, time_ns + shift_ns), ended_ns) for time_ns in device_ns)
    borders = [sent_ns, *within, ended_ns]
    for name, border in zip(_PARTS, pairwise(borders), strict=True):
        tree.add_ns(4, name, *border)


def _ns(time_s: float) -> int:
    """Return whole nanoseconds, so that differences add up exactly."""
    return round(time_s * 1e9)
