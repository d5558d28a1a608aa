"""The metrics of the base station."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info

from orchestrator.contracts import time_parts
from orchestrator.metrics.array_histogram import ArrayHistogram
from orchestrator.metrics.buckets import (
    DEVICE_SECONDS_BUCKETS,
    KAPPA_BUCKETS,
    SECONDS_BUCKETS,
    WLR_BUCKETS,
)
from orchestrator.metrics.build_info import build_info

# Label values, besides numbers of devices, layers and experts, and `down` and `up`.
PARTS = tuple(part.removesuffix("_s") for part in time_parts.PARTS)
OUTCOMES = ("ok", "error", "no_device", "cancelled", "refused")
KINDS = ("prompt", "completion")
REFUSALS = (
    *("identity", "frames", "size", "malformed", "version", "kind", "fields", "tensor"),
    *("hello", "failed", "late", "answer", "state", "policy"),
)
DROP_REASONS = ("policy", "outage", "absent", "unreachable", "lost")


@dataclass(frozen=True)
class BsMetrics:
    """The metrics of the base station; `device`, `layer`: numbers, `direction`: `down` or `up`."""

    build: Info
    model: Info
    request_seconds: Histogram
    request_part_seconds_total: Counter
    request_eq8_seconds_total: Counter
    request_batched_seconds_total: Counter
    time_to_first_token_seconds: Histogram
    requests_total: Counter
    requests_running: Gauge
    requests_waiting: Gauge
    layer_seconds: Histogram
    slowest_device_total: Counter
    downlink_seconds: Histogram
    compute_seconds: Histogram
    uplink_seconds: Histogram
    device_wait_seconds: Histogram
    tokens_total: Counter
    expert_tokens_total: Counter
    expert_dropped_total: Counter
    token_experts_total: Counter
    kappa: ArrayHistogram
    expert_wlr: ArrayHistogram
    overruns_total: Counter
    device_messages_total: Counter
    device_up: Gauge
    refused_messages_total: Counter
    radio_bytes_total: Counter


def bs_metrics(registry: CollectorRegistry = REGISTRY) -> BsMetrics:
    """Register the base station's metrics."""

    def seconds(name: str, text: str, *labels: str) -> Histogram:
        buckets = DEVICE_SECONDS_BUCKETS if labels else SECONDS_BUCKETS
        return Histogram(f"wdmoe_{name}_seconds", text, labels, buckets=buckets, registry=registry)

    def count(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"wdmoe_{name}_total", text, labels, registry=registry)

    metrics = BsMetrics(
        build=build_info(registry),
        model=Info("wdmoe_model", "The served model", registry=registry),
        request_seconds=seconds(
            "request", "From a request's arrival at the base station to its last token"
        ),
        request_part_seconds_total=count(
            "request_part_seconds",
            "Time of answered requests by part; all parts add up to wdmoe_request_seconds_sum",
            "part",
        ),
        request_eq8_seconds_total=count(
            "request_eq8_seconds", "Eq. 8 for the same selections and rates, of answered requests"
        ),
        request_batched_seconds_total=count(
            "request_batched_seconds",
            "Eq. 7 with all of a step's tokens for a device in one message, of answered requests; "
            "like the parts, a step that requests share counts for each",
        ),
        time_to_first_token_seconds=seconds(
            "time_to_first_token", "From a request's arrival to its first token"
        ),
        requests_total=count("requests", "Requests ended, or refused at once", "outcome"),
        requests_running=Gauge(
            "wdmoe_requests_running", "Requests that are being served", registry=registry
        ),
        requests_waiting=Gauge(
            "wdmoe_requests_waiting", "Requests that wait to be served", registry=registry
        ),
        layer_seconds=seconds(
            "layer", "One MoE layer of one step, from the gate to the sum of all experts' outputs"
        ),
        slowest_device_total=count(
            "slowest_device", "Layers that waited longest for this device, even in vain", "device"
        ),
        downlink_seconds=seconds("downlink", "Tokens of one layer, BS to device", "device"),
        compute_seconds=seconds("compute", "Expert computation of one layer", "device"),
        uplink_seconds=seconds("uplink", "Expert outputs of one layer, device to BS", "device"),
        device_wait_seconds=seconds(
            "device_wait",
            "From the arrival of a layer's tokens at the device to the start of their computation",
            "device",
        ),
        tokens_total=count(
            "tokens",
            "Tokens of answered requests (kind: prompt, as computed, or completion)",
            "kind",
        ),
        expert_tokens_total=count(
            "expert_tokens", "Tokens that an expert has processed", "device", "layer"
        ),
        expert_dropped_total=count(
            "expert_dropped",
            "Tokens whose expert was left out: by the policy, or because its device was not there",
            *("device", "layer", "reason"),
        ),
        token_experts_total=count(
            "token_experts", "Tokens by the number of experts each was sent to", "layer", "experts"
        ),
        kappa=ArrayHistogram(
            "wdmoe_kappa",
            "Eq. 10 of each token: least WLR / (least + greatest) of its candidates",
            "layer",
            KAPPA_BUCKETS,
            registry,
        ),
        expert_wlr=ArrayHistogram(
            "wdmoe_expert_wlr",
            "Eq. 9, weight / latency [1/s], of each token's candidates, kept or dropped",
            "decision",
            WLR_BUCKETS,
            registry,
        ),
        overruns_total=count(
            "overruns", "Replies sent later than the emulated device would have sent them", "device"
        ),
        device_messages_total=count("device_messages", "Layer messages answered", "device"),
        device_up=Gauge(
            "wdmoe_device_up", "1 while the device is admitted", ["device"], registry=registry
        ),
        refused_messages_total=count("refused_messages", "Messages refused as invalid", "reason"),
        radio_bytes_total=count(
            "radio_bytes", "Payload of answered messages and their answers", "device", "direction"
        ),
    )
    for counter, values in (
        (metrics.request_part_seconds_total, PARTS),
        (metrics.requests_total, OUTCOMES),
        (metrics.tokens_total, KINDS),
        (metrics.refused_messages_total, REFUSALS),
    ):
        for value in values:  # so that a rate starts at 0, not with the first event
            counter.labels(value)
    return metrics
