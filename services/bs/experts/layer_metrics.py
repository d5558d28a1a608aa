"""What a layer's selection and its devices' answers amount to: metrics, meters, Eq. 8, estimate."""

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
from services.bs.experts.latency_estimator import LatencyEstimator
from services.bs.experts.wlr_metrics import WlrMetrics


@dataclass(frozen=True)
class _Device:
    """One device's metrics; the last two by layer. Looked up once: that takes as long as to count.

    Counters that are looked up begin at 0.
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
        """Device q's."""
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
    """Used by the engine's thread only; costs do not depend on Python loops over tokens.

    Metrics are of the layer, whosesoever its tokens are; a step's counts are by request.
    """

    def __init__(self, metrics: BsMetrics, estimate: LatencyEstimator, info: ModelInfo) -> None:
        self._estimate = estimate
        self._devices = [_Device.of(metrics, q, info.layers) for q in range(info.experts)]
        self._token_experts = [
            [metrics.token_experts_total.labels(str(layer), str(n)) for n in range(info.top_k + 1)]
            for layer in range(info.layers)
        ]
        self.worth = WlrMetrics(metrics, info.layers)

    def chosen(self, layer: int, choices: Sequence[RoutingDecision], step: ForwardBatch) -> None:
        """Count what was selected and what was left out, and why.

        Meant for the time that the devices work: it takes a while, and nobody waits for it.
        """
        for group, choice in zip(step.groups, choices, strict=True):
            self._chosen(layer, choice, step.owner[group.rows], step)
            for trace, rows in group.traces:
                trace.add(layer, choice, rows)
        self._estimate.fit(choices[0].channel, time.monotonic())

    def _chosen(
        self, layer: int, choice: RoutingDecision, owner: Counts, step: ForwardBatch
    ) -> None:
        """Of one group's tokens, each of the request that `owner` (n,) has for it."""
        experts = len(choice.reachable)
        selected = choice.selected.index.cpu().numpy()
        used = choice.used.index.cpu().numpy()
        candidates = choice.selected.candidates.cpu().numpy()
        # Less those that were brought back because the others of their token cannot be reached.
        passed = (selected == experts) & (used != candidates)
        for q, counts in _by_expert(candidates, passed, owner, step):
            step.deselected[:, q] += counts
            self._devices[q].dropped[layer]["policy"].inc(int(counts.sum()))
        lost = np.append(~choice.reachable.numpy(), False)[selected]
        for q, counts in _by_expert(selected, lost, owner, step):
            gone = choice.channel is not None and not choice.channel.devices[q].reachable
            self._dropped(layer, q, counts, "outage" if gone else "absent", step)
        a_token = np.bincount((used < experts).sum(axis=1))
        for number in np.flatnonzero(a_token).tolist():
            self._token_experts[layer][number].inc(int(a_token[number]))
        self.worth.add(layer, choice)

    def dropped(self, layer: int, job: ExpertCall, reason: str, step: ForwardBatch) -> None:
        """Count tokens that lose an expert which was to be used."""
        self._dropped(layer, job.device, _by_request(job, step), reason, step)

    def _dropped(self, layer: int, q: int, counts: Counts, reason: str, step: ForwardBatch) -> None:
        (step.outage if reason == "outage" else step.dropped)[:, q] += counts
        self._devices[q].dropped[layer][reason].inc(int(counts.sum()))

    def answered(
        self,
        layer: int,
        jobs: Sequence[ExpertCall],
        choices: Sequence[RoutingDecision],
        step: ForwardBatch,
    ) -> None:
        """Metrics of every answer, the split of the slowest, and what Eq. 8 has for this layer.

        The slowest device may be one that was given up. Where its time went nobody knows.
        """
        answered = [(job, job.done) for job in jobs if job.done is not None]
        bare = np.concatenate([choice.wanted() for choice in choices])
        for job, _ in answered:
            bare[job.rows.numpy()] = False
        if bare.any():
            step.untouched(layer, bare)
        for job, done in answered:
            device, tokens = self._devices[job.device], len(job.rows)
            device.downlink.observe(done.received_s - job.sent_s)
            device.wait.observe(done.started_s - done.received_s)
            device.compute.observe(done.finished_s - done.started_s)
            device.uplink.observe(job.ended_s - done.sent_s)
            device.sent_bytes.inc(job.sent_bytes)
            device.answer_bytes.inc(job.answer_bytes)
            device.tokens[layer].inc(tokens)
            device.messages.inc()
            device.overruns.inc(int(done.overrun))
            counts = _by_request(job, step)
            step.used[:, job.device] += counts
            concerned = counts > 0
            step.device_messages += concerned
            if done.overrun:
                step.overruns += concerned
            took_s = job.ended_s - job.sent_s
            self._estimate.learn(job.device, tokens, took_s, job.ended_s, choices[0].channel)
        if jobs:
            slowest = max(jobs, key=lambda job: job.ended_s)
            self._devices[slowest.device].slowest.inc()
        if not answered:
            return
        job, done = max(answered, key=lambda pair: pair[0].ended_s)
        step.times.downlink_s += done.received_s - job.sent_s
        step.times.wait_s += done.started_s - done.received_s
        step.times.compute_s += done.finished_s - done.started_s
        step.times.uplink_s += job.ended_s - done.sent_s
        self._equations(choices, step)

    def _equations(self, choices: Sequence[RoutingDecision], step: ForwardBatch) -> None:
        """Eq. 8 of each request's tokens, and the time of the layer's messages by Eq. 6 and 7."""
        channel = choices[0].channel
        if channel is None:
            return
        t_q = self._estimate.analytic_s(channel)
        tokens = np.zeros(len(t_q), np.int64)
        for group, choice in zip(step.groups, choices, strict=True):
            chosen = choice.used.index.cpu().numpy()[:, :, None] == np.arange(len(t_q))
            used = chosen.any(axis=1)
            tokens += used.sum(axis=0)
            token_s, owner = layer_latency_s(t_q, used), step.owner[group.rows]
            step.eq8_s += np.bincount(owner, token_s, minlength=len(step.eq8_s))
        step.times.batched_s += batched_latency_s(t_q, tokens)


def _by_request(job: ExpertCall, step: ForwardBatch) -> Counts:
    """How many of a device's tokens are of each request."""
    requests = len(step.servings)
    if requests == 1:
        return np.array([len(job.rows)])
    return np.bincount(step.owner[job.rows.numpy()], minlength=requests)


def _by_expert(
    experts: NDArray[np.int64], which: NDArray[np.bool_], owner: Counts, step: ForwardBatch
) -> list[tuple[int, Counts]]:
    """Each expert that occurs in `which` slots (n × k), and how often for each request."""
    if not which.any():
        return []
    row, _ = np.nonzero(which)
    requests, columns = step.used.shape
    flat = np.bincount(owner[row] * columns + experts[which], minlength=requests * columns)
    counts = flat.reshape(requests, columns)
    return [(q, counts[:, q]) for q in np.flatnonzero(counts.any(axis=0)).tolist()]
