"""Every metric of the testbed, by name; a process exports those of its own role only.

Each role is a dataclass of metric objects that its factory registers in the registry it is given.
An attribute is called as the metric is, without `wdmoe_` (and, of an Info, without `_info`). Only
prometheus-client and numpy: devices import it.
"""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info

from orchestrator.array_histogram import ArrayHistogram

# 1 ms … 60 s. The steps grow by at most 2, so a quantile read from a histogram is that close.
SECONDS_BUCKETS = (
    *(0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5),
    *(10.0, 15.0, 20.0, 30.0, 45.0, 60.0),
)
# A device applies a state within a fraction of a millisecond, or something is wrong.
LATENESS_BUCKETS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
# κ of Eq. 10 lies between 0 and 1/2; a bound that is a θ tells how many tokens that θ would affect.
KAPPA_BUCKETS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


@dataclass(frozen=True)
class BsMetrics:
    """What the base station measures; `direction` is `down` or `up`, `device`, `layer` numbers."""

    request_seconds: Histogram
    time_to_first_token_seconds: Histogram
    requests_total: Counter
    downlink_seconds: Histogram
    compute_seconds: Histogram
    uplink_seconds: Histogram
    device_wait_seconds: Histogram
    tokens_total: Counter
    expert_tokens_total: Counter
    expert_dropped_total: Counter
    token_experts_total: Counter
    kappa: ArrayHistogram
    overruns_total: Counter
    device_messages_total: Counter
    device_up: Gauge
    refused_messages_total: Counter
    radio_bytes_total: Counter


@dataclass(frozen=True)
class OrchestratorMetrics:
    """What the orchestrator asks for, and what `wdmoe link verify` found last."""

    link_requested_rate_bps: Gauge
    link_measured_rate_bps: Gauge
    link_error_ratio: Gauge
    profile: Info
    policy: Info
    interval: Gauge
    refused_messages_total: Counter
    replay: Info
    replay_running: Gauge
    replay_planned_requests: Gauge
    replay_done_requests: Gauge
    replay_failed_requests: Gauge
    replay_accuracy_ratio: Gauge


@dataclass(frozen=True)
class DeviceMetrics:
    """What a device does with its own link."""

    link_applied_rate_bps: Gauge
    link_backend: Info
    link_queue_backlog_bytes: Gauge
    link_queue_drops_total: Counter
    interval_lateness_seconds: Histogram
    expert_weight_bytes: Gauge
    link_errors_total: Counter


def bs_metrics(registry: CollectorRegistry = REGISTRY) -> BsMetrics:
    """Register the base station's metrics."""

    def seconds(name: str, text: str, *labels: str) -> Histogram:
        return Histogram(
            f"wdmoe_{name}_seconds", text, labels, buckets=SECONDS_BUCKETS, registry=registry
        )

    def count(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"wdmoe_{name}_total", text, labels, registry=registry)

    return BsMetrics(
        request_seconds=seconds("request", "End-to-end time of one request"),
        time_to_first_token_seconds=seconds(
            "time_to_first_token", "From a request's arrival to its first token"
        ),
        requests_total=count("requests", "Requests ended", "outcome"),
        downlink_seconds=seconds("downlink", "Tokens of one layer, BS to device", "device"),
        compute_seconds=seconds("compute", "Expert computation of one layer", "device"),
        uplink_seconds=seconds("uplink", "Expert outputs of one layer, device to BS", "device"),
        device_wait_seconds=seconds(
            "device_wait",
            "From a layer's tokens being at the device to its beginning with them",
            "device",
        ),
        tokens_total=count("tokens", "Tokens processed (kind: prompt, completion)", "kind"),
        expert_tokens_total=count("expert_tokens", "Tokens sent to an expert", "device", "layer"),
        expert_dropped_total=count(
            "expert_dropped",
            "Tokens whose expert was left out: by the policy, or because the device was not there",
            *("device", "layer", "reason"),
        ),
        token_experts_total=count(
            "token_experts", "Tokens by how many experts each was sent to", "layer", "experts"
        ),
        kappa=ArrayHistogram(
            "wdmoe_kappa",
            "Eq. 10 of each token: least WLR / (least + greatest) of its candidates",
            "layer",
            KAPPA_BUCKETS,
            registry,
        ),
        overruns_total=count(
            "overruns", "Replies later than the emulated device's would be", "device"
        ),
        device_messages_total=count("device_messages", "Layer messages answered", "device"),
        device_up=Gauge(
            "wdmoe_device_up", "1 while the device is admitted", ["device"], registry=registry
        ),
        refused_messages_total=count("refused_messages", "Messages refused as invalid", "reason"),
        radio_bytes_total=count("radio_bytes", "Payload over the radio", "device", "direction"),
    )


def orchestrator_metrics(registry: CollectorRegistry = REGISTRY) -> OrchestratorMetrics:
    """Register the orchestrator's metrics."""
    return OrchestratorMetrics(
        link_requested_rate_bps=Gauge(
            "wdmoe_link_requested_rate_bps",
            "Rate the channel gives the link; absent: not shaped",
            ["device", "direction"],
            registry=registry,
        ),
        link_measured_rate_bps=Gauge(
            "wdmoe_link_measured_rate_bps",
            "Rate that the largest messages of the last verification amount to",
            ["device", "direction"],
            registry=registry,
        ),
        link_error_ratio=Gauge(
            "wdmoe_link_error_ratio",
            "Transmission time of the last verification against what was asked, by message size",
            ["device", "direction", "bytes"],
            registry=registry,
        ),
        profile=Info("wdmoe_profile", "Profile in force", registry=registry),
        policy=Info("wdmoe_policy", "Selection policy in force", registry=registry),
        interval=Gauge("wdmoe_interval", "Coherence interval last announced", registry=registry),
        refused_messages_total=Counter(
            "wdmoe_refused_messages_total",
            "Messages refused as invalid",
            ["reason"],
            registry=registry,
        ),
        replay=Info("wdmoe_replay", "Prompt set of the newest replay", registry=registry),
        replay_running=Gauge(
            "wdmoe_replay_running", "1 while a replay tells how far it is", registry=registry
        ),
        replay_planned_requests=Gauge(
            "wdmoe_replay_planned_requests", "Requests of the newest replay", registry=registry
        ),
        replay_done_requests=Gauge(
            "wdmoe_replay_done_requests", "Those that ended, failed ones too", registry=registry
        ),
        replay_failed_requests=Gauge(
            "wdmoe_replay_failed_requests", "Those that failed", registry=registry
        ),
        replay_accuracy_ratio=Gauge(
            "wdmoe_replay_accuracy_ratio",
            "Mean score of those that have one; NaN: none has",
            registry=registry,
        ),
    )


def device_metrics(registry: CollectorRegistry = REGISTRY) -> DeviceMetrics:
    """Register a device's metrics."""
    return DeviceMetrics(
        link_applied_rate_bps=Gauge(
            "wdmoe_link_applied_rate_bps",
            "Rate read back from the kernel; absent: not shaped",
            ["direction"],
            registry=registry,
        ),
        link_backend=Info("wdmoe_link_backend", "How links are shaped", registry=registry),
        link_queue_backlog_bytes=Gauge(
            "wdmoe_link_queue_backlog_bytes",
            "Bytes waiting in the link's queue",
            ["direction"],
            registry=registry,
        ),
        link_queue_drops_total=Counter(
            "wdmoe_link_queue_drops_total",
            "Packets dropped while no loss was asked for: the queue was too short",
            ["direction"],
            registry=registry,
        ),
        interval_lateness_seconds=Histogram(
            "wdmoe_interval_lateness_seconds",
            "From the time a state was due to the time it was applied",
            buckets=LATENESS_BUCKETS,
            registry=registry,
        ),
        expert_weight_bytes=Gauge(
            "wdmoe_expert_weight_bytes", "Expert weights held", registry=registry
        ),
        link_errors_total=Counter(
            "wdmoe_link_errors_total", "States that could not be applied", registry=registry
        ),
    )
