"""What a layer's selection and its devices' answers amount to: metrics, meter, Eq. 8, estimate."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from orchestrator.latency import batched_latency_s, layer_latency_s, prompt_latency_s
from orchestrator.metrics import BsMetrics
from services.bs.estimate import LatencyEstimate
from services.bs.job import Job
from services.bs.meter import Meter
from services.bs.selector import Choice
from services.bs.serving import Serving


class Accounting:
    """Used by the engine's thread only; costs do not depend on Python loops over tokens."""

    def __init__(self, metrics: BsMetrics, estimate: LatencyEstimate) -> None:
        self._metrics = metrics
        self._estimate = estimate

    def chosen(self, layer: int, choice: Choice, serving: Serving) -> None:
        """Count what was selected and what was left out, and why.

        Meant for the time that the devices work: it takes a while, and nobody waits for it.
        """
        meter, experts = serving.meter, len(choice.reachable)
        selected = choice.selected.index.cpu().numpy()
        used = choice.used.index.cpu().numpy()
        candidates = choice.selected.candidates.cpu().numpy()
        # Less those that were brought back because the others of their token cannot be reached.
        passed = candidates[(selected == experts) & (used != candidates)]
        for q, tokens in _counted(passed, experts):
            meter.deselected[q] += tokens
            self._metrics.expert_dropped_total.labels(str(q), str(layer), "policy").inc(tokens)
        lost = selected[np.append(~choice.reachable.numpy(), False)[selected]]
        for q, tokens in _counted(lost, experts):
            gone = choice.channel is not None and not choice.channel.devices[q].reachable
            self.dropped(layer, q, tokens, "outage" if gone else "absent", meter)
        a_token = (used < experts).sum(axis=1)
        for number, tokens in _counted(a_token, experts + 1):
            self._metrics.token_experts_total.labels(str(layer), str(number)).inc(tokens)
        if choice.selected.kappa is not None:
            self._metrics.kappa.observe(str(layer), choice.selected.kappa.cpu().numpy())
        if serving.trace is not None:
            serving.trace.add(layer, choice)
        self._estimate.fit(choice.channel, time.monotonic())

    def dropped(self, layer: int, q: int, tokens: int, reason: str, meter: Meter) -> None:
        """Count tokens that lose an expert which was to be used."""
        (meter.outage if reason == "outage" else meter.dropped)[q] += tokens
        self._metrics.expert_dropped_total.labels(str(q), str(layer), reason).inc(tokens)

    def answered(self, layer: int, jobs: Sequence[Job], choice: Choice, meter: Meter) -> None:
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
            meter.used[job.device] += tokens
            meter.device_messages += 1
            meter.overruns += int(done.overrun)
            took_s = job.arrived_s - job.sent_s
            self._estimate.learn(job.device, tokens, took_s, job.arrived_s, choice.channel)
        if not answered:
            return
        job, done = max(answered, key=lambda pair: pair[0].arrived_s)
        meter.downlink_s += done.received_s - job.sent_s
        meter.wait_s += done.started_s - done.received_s
        meter.compute_s += done.finished_s - done.started_s
        meter.uplink_s += job.arrived_s - done.sent_s
        if choice.channel is not None:
            t_q = self._estimate.analytic_s(choice.channel)
            chosen = choice.used.index.cpu().numpy()[:, :, None] == np.arange(len(t_q))
            used = chosen.any(axis=1)
            meter.eq8_s += prompt_latency_s(layer_latency_s(t_q, used))
            meter.batched_s += batched_latency_s(t_q, used.sum(axis=0))


def _counted(
    numbers: np.ndarray[tuple[int, ...], np.dtype[np.int64]], most: int
) -> list[tuple[int, int]]:
    """Each number that occurs, and how often."""
    counts = np.bincount(numbers.ravel(), minlength=most)
    return [(int(number), int(counts[number])) for number in np.flatnonzero(counts)]
