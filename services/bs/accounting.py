"""What a layer's selection and its devices' answers amount to: metrics, meters, Eq. 8, estimate."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.latency import batched_latency_s, layer_latency_s
from orchestrator.metrics import BsMetrics
from services.bs.estimate import LatencyEstimate
from services.bs.job import Job
from services.bs.selector import Choice
from services.bs.step import Counts, Step


class Accounting:
    """Used by the engine's thread only; costs do not depend on Python loops over tokens.

    Metrics are of the layer, whosesoever its tokens are; a step's counts are by request.
    """

    def __init__(self, metrics: BsMetrics, estimate: LatencyEstimate) -> None:
        self._metrics = metrics
        self._estimate = estimate

    def chosen(self, layer: int, choices: Sequence[Choice], step: Step) -> None:
        """Count what was selected and what was left out, and why.

        Meant for the time that the devices work: it takes a while, and nobody waits for it.
        """
        for group, choice in zip(step.groups, choices, strict=True):
            self._chosen(layer, choice, step.owner[group.rows], step)
            for trace, rows in group.traces:
                trace.add(layer, choice, rows)
        self._estimate.fit(choices[0].channel, time.monotonic())

    def _chosen(self, layer: int, choice: Choice, owner: Counts, step: Step) -> None:
        """Of one group's tokens, each of the request that `owner` (n,) has for it."""
        experts = len(choice.reachable)
        selected = choice.selected.index.cpu().numpy()
        used = choice.used.index.cpu().numpy()
        candidates = choice.selected.candidates.cpu().numpy()
        # Less those that were brought back because the others of their token cannot be reached.
        passed = (selected == experts) & (used != candidates)
        for q, counts in _by_expert(candidates, passed, owner, step):
            step.deselected[:, q] += counts
            label = self._metrics.expert_dropped_total.labels(str(q), str(layer), "policy")
            label.inc(int(counts.sum()))
        lost = np.append(~choice.reachable.numpy(), False)[selected]
        for q, counts in _by_expert(selected, lost, owner, step):
            gone = choice.channel is not None and not choice.channel.devices[q].reachable
            self._dropped(layer, q, counts, "outage" if gone else "absent", step)
        a_token = np.bincount((used < experts).sum(axis=1))
        for number in np.flatnonzero(a_token).tolist():
            label = self._metrics.token_experts_total.labels(str(layer), str(number))
            label.inc(int(a_token[number]))
        if choice.selected.kappa is not None:
            self._metrics.kappa.observe(str(layer), choice.selected.kappa.cpu().numpy())

    def dropped(self, layer: int, job: Job, reason: str, step: Step) -> None:
        """Count tokens that lose an expert which was to be used."""
        self._dropped(layer, job.device, _by_request(job, step), reason, step)

    def _dropped(self, layer: int, q: int, counts: Counts, reason: str, step: Step) -> None:
        (step.outage if reason == "outage" else step.dropped)[:, q] += counts
        label = self._metrics.expert_dropped_total.labels(str(q), str(layer), reason)
        label.inc(int(counts.sum()))

    def answered(
        self, layer: int, jobs: Sequence[Job], choices: Sequence[Choice], step: Step
    ) -> None:
        """Metrics of every answer, the split of the slowest, and what Eq. 8 has for this layer."""
        answered = [(job, job.done) for job in jobs if job.done is not None]
        for job, done in answered:
            label, tokens = str(job.device), len(job.rows)
            self._metrics.downlink_seconds.labels(label).observe(done.received_s - job.sent_s)
            self._metrics.device_wait_seconds.labels(label).observe(
                done.started_s - done.received_s
            )
            self._metrics.compute_seconds.labels(label).observe(done.finished_s - done.started_s)
            self._metrics.uplink_seconds.labels(label).observe(job.arrived_s - done.sent_s)
            self._metrics.expert_tokens_total.labels(label, str(layer)).inc(tokens)
            self._metrics.device_messages_total.labels(label).inc()
            self._metrics.overruns_total.labels(label).inc(int(done.overrun))
            counts = _by_request(job, step)
            step.used[:, job.device] += counts
            concerned = counts > 0
            step.device_messages += concerned
            if done.overrun:
                step.overruns += concerned
            took_s = job.arrived_s - job.sent_s
            self._estimate.learn(job.device, tokens, took_s, job.arrived_s, choices[0].channel)
        if not answered:
            return
        job, done = max(answered, key=lambda pair: pair[0].arrived_s)
        step.times.downlink_s += done.received_s - job.sent_s
        step.times.wait_s += done.started_s - done.received_s
        step.times.compute_s += done.finished_s - done.started_s
        step.times.uplink_s += job.arrived_s - done.sent_s
        self._equations(choices, step)

    def _equations(self, choices: Sequence[Choice], step: Step) -> None:
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


def _by_request(job: Job, step: Step) -> Counts:
    """How many of a device's tokens are of each request."""
    requests = len(step.servings)
    if requests == 1:
        return np.array([len(job.rows)])
    return np.bincount(step.owner[job.rows.numpy()], minlength=requests)


def _by_expert(
    experts: NDArray[np.int64], which: NDArray[np.bool_], owner: Counts, step: Step
) -> list[tuple[int, Counts]]:
    """Each expert that occurs in `which` slots (n × k), and how often for each request."""
    if not which.any():
        return []
    row, _ = np.nonzero(which)
    requests, columns = step.used.shape
    flat = np.bincount(owner[row] * columns + experts[which], minlength=requests * columns)
    counts = flat.reshape(requests, columns)
    return [(q, counts[:, q]) for q in np.flatnonzero(counts.any(axis=0)).tolist()]
