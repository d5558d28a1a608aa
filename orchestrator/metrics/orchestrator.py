"""What the orchestrator asks for, and is told."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Info

from orchestrator.metrics.build_info import build_info

REFUSALS = ("malformed", "impostor")


@dataclass(frozen=True)
class OrchestratorMetrics:
    """What the orchestrator asks for; what `wdmoe link verify` found of the profile in force."""

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
            "Transmission time against what was asked, by message size, of the last verification",
            ["device", "direction", "bytes"],
            registry=registry,
        ),
        link_error_seconds=Gauge(
            "wdmoe_link_error_seconds",
            "Transmission time beyond what was asked, by message size, of the last verification",
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
            "1 while the link is not, or may not be, as the state in force says",
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
    for reason in REFUSALS:  # a rate begins at 0, not with the first event
        metrics.refused_messages_total.labels(reason)
    return metrics
