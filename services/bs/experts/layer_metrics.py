"""The account of a layer: its selection and its devices' answers, in metrics and batch counts.

RoutingDecision, ExpertCall ─► LayerMetrics ─┬─► Prometheus, by device and layer
                                             ├─► ForwardBatch, by request (Eq. 8 too)
                                             └─► LatencyEstimator ─► Selector
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

from orchestrator.metrics import BsMetrics
from orchestrator.metrics.bs import DROP_REASONS
from orchestrator.moe.checkpoint import ModelInfo
from orchestrator.moe.latency_model import batched_latency_s, layer_latency_s
from services.bs.batch.batch import Counts, ForwardBatch
from services.bs.batch.decision import RoutingDecision
from services.bs.batch.expert_call import ExpertCall
from services.bs.batch.layer_record import LayerRecord
from services.bs.experts.latency_estimator import LatencyEstimator
from services.bs.experts.wlr_metrics import WlrMetrics


@dataclass(frozen=True)
class _Device:
    """One device's metrics; the last two by layer.

    Looked up once, because a look-up takes as long as counting; a counter then begins at 0.
    """

    downlink: Histogram
    wait: Histogram
    compute: Histogram
    uplink: Histogram
    sent_bytes: Counter
    answer_bytes: Counter
    messages: Counter
    overruns: Counter
    slowest: Counter
    tokens: list[Counter]
    dropped: list[dict[str, Counter]]

    @classmethod
    def of(cls, metrics: BsMetrics, q: int, layers: int) -> _Device:
        """Return the metrics of device q."""
        name, by_layer = str(q), [str(layer) for layer in range(layers)]
        dropped = metrics.expert_dropped_total
        return cls(
            downlink=metrics.downlink_seconds.labels(name),
            wait=metrics.device_wait_seconds.labels(name),
            compute=metrics.compute_seconds.labels(name),
            uplink=metrics.uplink_seconds.labels(name),
            sent_bytes=metrics.radio_bytes_total.labels(name, "down"),
            answer_bytes=metrics.radio_bytes_total.labels(name, "up"),
            messages=metrics.device_messages_total.labels(name),
            overruns=metrics.overruns_total.labels(name),
            slowest=metrics.slowest_device_total.labels(name),
            tokens=[metrics.expert_tokens_total.labels(name, layer) for layer in by_layer],
            dropped=[
                {reason: dropped.labels(name, layer, reason) for reason in DROP_REASONS}
                for layer in by_layer
            ],
        )


class LayerMetrics:
    """The counters of layers; for the engine's thread only, without Python loops over tokens.

    Metrics count all tokens of a layer; the batch's counts are by request.
    """

    def __init__(self, metrics: BsMetrics, estimate: LatencyEstimator, info: ModelInfo) -> None:
        self._estimate = estimate
        self._devices = [_Device.of(metrics, q, info.layers) for q in range(info.experts)]
        self._token_experts = [
            [metrics.token_experts_total.labels(str(layer), str(n)) for n in range(info.top_k + 1)]
            for layer in range(info.layers)
        ]
        self.wlr = WlrMetrics(metrics, info.layers)

    def book_selection(self, record: LayerRecord, batch: ForwardBatch) -> None:
        """Count what was selected and what was left out, and why.

        Called while the devices compute: it takes time that no request waits for.
        """
        layer = record.number
        for group, decision in zip(batch.groups, record.decisions, strict=True):
            self._count(layer, decision, batch.owner[group.rows], batch)
            for trace, rows in group.traces:
                trace.add(layer, decision, rows)
        for call in record.unsent:
            self._drop(layer, call.device, _by_request(call, batch), "unreachable", batch)
        self._estimate.fit(record.decisions[0].channel, time.monotonic())

    def _count(
        self, layer: int, decision: RoutingDecision, owner: Counts, batch: ForwardBatch
    ) -> None:
        """Count one group's tokens; `owner` (n,) is the request of each."""
        experts = len(decision.reachable)
        selected = decision.selected.index.cpu().numpy()
        used = decision.used.index.cpu().numpy()
        candidates = decision.selected.candidates.cpu().numpy()
        # Without those that were brought back because their token's others are unreachable.
        passed = (selected == experts) & (used != candidates)
        for q, counts in _by_expert(candidates, passed, owner, batch):
            batch.deselected[:, q] += counts
            self._devices[q].dropped[layer]["policy"].inc(int(counts.sum()))
        lost = np.append(~decision.reachable.numpy(), False)[selected]
        for q, counts in _by_expert(selected, lost, owner, batch):
            gone = decision.channel is not None and not decision.channel.devices[q].reachable
            self._drop(layer, q, counts, "outage" if gone else "absent", batch)
        a_token = np.bincount((used < experts).sum(axis=1))
        for number in np.flatnonzero(a_token).tolist():
            self._token_experts[layer][number].inc(int(a_token[number]))
        self.wlr.add(layer, decision)

    def _drop(self, layer: int, q: int, counts: Counts, reason: str, batch: ForwardBatch) -> None:
        (batch.outage if reason == "outage" else batch.dropped)[:, q] += counts
        self._devices[q].dropped[layer][reason].inc(int(counts.sum()))

    def book_answers(self, record: LayerRecord, batch: ForwardBatch) -> None:
        """Count every answer, the time parts of the slowest, and Eq. 8 of this layer.

        The slowest device may be one that was given up: its time has no known parts.
        """
        layer, calls, decisions = record.number, record.calls, record.decisions
        for call in calls:
            if call.output is None:
                self._drop(layer, call.device, _by_request(call, batch), "lost", batch)
        answered = [(call, call.done) for call in calls if call.done is not None]
        whole = all(decision.used is decision.selected for decision in decisions)
        if not whole or record.unsent or len(answered) < len(calls):
            bare = np.concatenate([decision.wanted() for decision in decisions])
            for call, _ in answered:
                bare[call.rows.numpy()] = False
            if bare.any():
                batch.untouched(layer, bare)
        for call, done in answered:
            device, tokens = self._devices[call.device], len(call.rows)
            device.downlink.observe(done.received_s - call.sent_s)
            device.wait.observe(done.started_s - done.received_s)
            device.compute.observe(done.finished_s - done.started_s)
            device.uplink.observe(call.ended_s - done.sent_s)
            device.sent_bytes.inc(call.sent_bytes)
            device.answer_bytes.inc(call.answer_bytes)
            device.tokens[layer].inc(tokens)
            device.messages.inc()
            device.overruns.inc(int(done.overrun))
            counts = _by_request(call, batch)
            batch.used[:, call.device] += counts
            concerned = counts > 0
            batch.device_messages += concerned
            if done.overrun:
                batch.overruns += concerned
            took_s = call.ended_s - call.sent_s
            self._estimate.learn(call.device, tokens, took_s, call.ended_s, decisions[0].channel)
        if calls:
            slowest = max(calls, key=lambda call: call.ended_s)
            self._devices[slowest.device].slowest.inc()
        if not answered:
            return
        call, done = max(answered, key=lambda pair: pair[0].ended_s)
        batch.times.downlink_s += done.received_s - call.sent_s
        batch.times.wait_s += done.started_s - done.received_s
        batch.times.compute_s += done.finished_s - done.started_s
        batch.times.uplink_s += call.ended_s - done.sent_s
        self._equations(decisions, batch)

    def _equations(self, decisions: Sequence[RoutingDecision], batch: ForwardBatch) -> None:
        """Add Eq. 8 of each request's tokens, and the batched time by Eq. 6 and 7."""
        channel = decisions[0].channel
        if channel is None:
            return
        t_q = self._estimate.analytic_s(channel)
        tokens = np.zeros(len(t_q), np.int64)
        for group, decision in zip(batch.groups, decisions, strict=True):
            chosen = decision.used.index.cpu().numpy()[:, :, None] == np.arange(len(t_q))
            used = chosen.any(axis=1)
            tokens += used.sum(axis=0)
            token_s, owner = layer_latency_s(t_q, used), batch.owner[group.rows]
            batch.eq8_s += np.bincount(owner, token_s, minlength=len(batch.eq8_s))
        batch.times.batched_s += batched_latency_s(t_q, tokens)


def _by_request(call: ExpertCall, batch: ForwardBatch) -> Counts:
    """Return how many of a device's tokens belong to each request."""
    requests = len(batch.servings)
    if requests == 1:
        return np.array([len(call.rows)])
    return np.bincount(batch.owner[call.rows.numpy()], minlength=requests)


def _by_expert(
    experts: NDArray[np.int64], mask: NDArray[np.bool_], owner: Counts, batch: ForwardBatch
) -> list[tuple[int, Counts]]:
    """Return each expert in the slots of `mask` (n × k), and its count for each request."""
    if not mask.any():
        return []
    row, _ = np.nonzero(mask)
    requests, columns = batch.used.shape
    flat = np.bincount(owner[row] * columns + experts[mask], minlength=requests * columns)
    counts = flat.reshape(requests, columns)
    return [(q, counts[:, q]) for q in np.flatnonzero(counts.any(axis=0)).tolist()]
