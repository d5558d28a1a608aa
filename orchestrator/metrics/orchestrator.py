"""The metrics of the orchestrator: what it requests of links, and what is reported to it."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Info

from orchestrator.metrics.build_info import build_info

REFUSALS = ("malformed", "impostor")


@dataclass(frozen=True)
class OrchestratorMetrics:
    """The metrics of the orchestrator.

    Measured rates and errors are those that `wdmoe link verify` found for the profile in force.
    """

    build: Info
    link_requested_rate_bps: Gauge
    link_measured_rate_bps: Gauge
    link_error_ratio: Gauge
    link_error_seconds: Gauge
    link_report_age_seconds: Gauge
    link_fault: Gauge
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


def orchestrator_metrics(registry: CollectorRegistry = REGISTRY) -> OrchestratorMetrics:
    """Register the orchestrator's metrics."""
    metrics = OrchestratorMetrics(
        build=build_info(registry),
        link_requested_rate_bps=Gauge(
            "wdmoe_link_requested_rate_bps",
            "Rate the channel gives the link; absent if the link is not shaped",
            ["device", "direction"],
            registry=registry,
        ),
        link_measured_rate_bps=Gauge(
            "wdmoe_link_measured_rate_bps",
            "Rate measured with the largest messages of the last verification",
            ["device", "direction"],
            registry=registry,
        ),
        link_error_ratio=Gauge(
            "wdmoe_link_error_ratio",
            "Transmission time over the requested one, by message size, of the last verification",
            ["device", "direction", "bytes"],
            registry=registry,
        ),
        link_error_seconds=Gauge(
            "wdmoe_link_error_seconds",
            "Transmission time beyond the requested one, by message size, of the last verification",
            ["device", "direction", "bytes"],
            registry=registry,
        ),
        link_report_age_seconds=Gauge(
            "wdmoe_link_report_age_seconds",
            "Age of the device's newest report; before the first, of the orchestrator",
            ["device"],
            registry=registry,
        ),
        link_fault=Gauge(
            "wdmoe_link_fault",
            "1 while the link does not, or may not, match the state in force",
            ["device"],
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
            "wdmoe_replay_running", "1 while a replay reports its progress", registry=registry
        ),
        replay_planned_requests=Gauge(
            "wdmoe_replay_planned_requests", "Requests of the newest replay", registry=registry
        ),
        replay_done_requests=Gauge(
            "wdmoe_replay_done_requests",
            "Ended requests of the newest replay, failed ones too",
            registry=registry,
        ),
        replay_failed_requests=Gauge(
            "wdmoe_replay_failed_requests",
            "Failed requests of the newest replay",
            registry=registry,
        ),
        replay_accuracy_ratio=Gauge(
            "wdmoe_replay_accuracy_ratio",
            "Mean score of the requests that have one; NaN if none has",
            registry=registry,
        ),
    )
    for reason in REFUSALS:  # so that a rate starts at 0, not with the first event
        metrics.refused_messages_total.labels(reason)
    return metrics
