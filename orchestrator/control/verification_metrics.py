"""The newest verification of links, as Prometheus shows it."""

from __future__ import annotations

from orchestrator.contracts.verification import Verification
from orchestrator.metrics import OrchestratorMetrics


def export(verification: Verification, metrics: OrchestratorMetrics) -> None:
    """Show the newest verification to Prometheus, and nothing of the one before."""
    withdraw(metrics)
    largest = max((item.size_bytes for item in verification.series), default=0)
    for item in verification.series:
        if item.error is None:
            continue
        where = (str(item.device), item.direction)
        metrics.link_error_ratio.labels(*where, str(item.size_bytes)).set(item.error)
        metrics.link_error_seconds.labels(*where, str(item.size_bytes)).set(item.error_s)
        if item.size_bytes == largest and item.rate_bps is not None:
            metrics.link_measured_rate_bps.labels(*where).set(item.rate_bps)


def withdraw(metrics: OrchestratorMetrics) -> None:
    """Show Prometheus no verification: the links are not those that were verified."""
    for gauge in (
        metrics.link_error_ratio,
        metrics.link_error_seconds,
        metrics.link_measured_rate_bps,
    ):
        gauge.clear()
