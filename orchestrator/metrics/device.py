"""The metrics of a device: its own link and expert weights."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info

from orchestrator.metrics.buckets import LATENESS_BUCKETS
from orchestrator.metrics.build_info import build_info


@dataclass(frozen=True)
class DeviceMetrics:
    """The metrics of a device."""

    build: Info
    link_applied_rate_bps: Gauge
    link_backend: Info
    link_queue_backlog_bytes: Gauge
    link_queue_drops_total: Counter
    interval_lateness_seconds: Histogram
    expert_weight_bytes: Gauge
    link_errors_total: Counter


def device_metrics(registry: CollectorRegistry = REGISTRY) -> DeviceMetrics:
    """Register a device's metrics."""
    return DeviceMetrics(
        build=build_info(registry),
        link_applied_rate_bps=Gauge(
            "wdmoe_link_applied_rate_bps",
            "Rate read back from the kernel; absent if the link is not shaped",
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
            "Packets dropped while no loss was configured: the queue was too short",
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
            "wdmoe_link_errors_total",
            "States that could not be applied, or that something else had changed",
            registry=registry,
        ),
    )
