"""Metrics follow Prometheus' naming conventions, have help texts, and labels with few values."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from orchestrator.metrics import bs_metrics, device_metrics, orchestrator_metrics
from orchestrator.metrics.array_histogram import ArrayHistogram
from orchestrator.metrics.bs import KINDS, OUTCOMES, PARTS, REFUSALS
from orchestrator.metrics.buckets import DEVICE_SECONDS_BUCKETS, SECONDS_BUCKETS

ROLES: dict[str, Callable[[CollectorRegistry], Any]] = {
    "bs": bs_metrics,
    "orchestrator": orchestrator_metrics,
    "device": device_metrics,
}
UNITS = ("seconds", "bytes", "bps", "ratio")
# Counts of things, which have no unit, and quantities that are pure numbers by definition.
NUMBERS = {
    *("wdmoe_requests", "wdmoe_requests_running", "wdmoe_requests_waiting", "wdmoe_tokens"),
    *("wdmoe_expert_tokens", "wdmoe_expert_dropped", "wdmoe_token_experts", "wdmoe_overruns"),
    *("wdmoe_device_messages", "wdmoe_refused_messages", "wdmoe_slowest_device"),
    *("wdmoe_device_up", "wdmoe_link_fault", "wdmoe_interval"),
    *("wdmoe_kappa", "wdmoe_expert_wlr"),
    *("wdmoe_link_queue_drops", "wdmoe_link_errors", "wdmoe_replay_running"),
    *("wdmoe_replay_planned_requests", "wdmoe_replay_done_requests"),
    "wdmoe_replay_failed_requests",
}
LABELS = {
    *("device", "direction", "layer", "experts", "bytes", "part", "kind", "outcome", "reason"),
    "decision",
}


@pytest.fixture(params=ROLES)
def families(request: pytest.FixtureRequest) -> list[Metric]:
    """Return what a role's registry exports at the start."""
    registry = CollectorRegistry()
    ROLES[request.param](registry)
    return list(registry.collect())


def test_every_metric_has_the_prefix_and_a_help_text_of_its_own(families: list[Metric]) -> None:
    texts = [family.documentation for family in families]
    assert all(family.name.startswith("wdmoe_") for family in families)
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_every_metric_has_its_base_unit_or_is_a_number(families: list[Metric]) -> None:
    for family in families:
        if family.type != "info":
            assert family.name.endswith(UNITS) != (family.name in NUMBERS), family.name


def test_histograms_of_times_extend_beyond_the_longest_time(families: list[Metric]) -> None:
    for family in families:
        if family.type != "histogram" or not family.name.endswith("_seconds"):
            continue
        bounds = {float(s.labels["le"]) for s in family.samples if "le" in s.labels}
        # No bounds until something is observed, if the metric has labels.
        longest_s = max(bounds - {math.inf}, default=math.inf)
        assert longest_s >= (30 if "lateness" in family.name else 900), family.name


def test_buckets_resolve_quantiles_of_long_requests() -> None:
    for buckets, step in ((SECONDS_BUCKETS, 2), (DEVICE_SECONDS_BUCKETS, 2.5)):
        assert max(upper / lower for lower, upper in pairwise(buckets)) <= step
        assert buckets[-1] >= 1000


def test_every_label_is_in_a_fixed_list() -> None:
    for role in ROLES.values():
        for metric in vars(role(CollectorRegistry())).values():
            if isinstance(metric, ArrayHistogram):
                assert metric.label in LABELS
            else:
                assert set(metric._labelnames) <= LABELS


def test_counters_with_known_labels_begin_at_zero() -> None:
    registry = CollectorRegistry()
    bs_metrics(registry)
    for name, label, values in (
        ("request_part_seconds", "part", PARTS),
        ("requests", "outcome", OUTCOMES),
        ("tokens", "kind", KINDS),
        ("refused_messages", "reason", REFUSALS),
    ):
        for value in values:
            assert registry.get_sample_value(f"wdmoe_{name}_total", {label: value}) == 0


def test_all_roles_of_one_source_export_the_same_build() -> None:
    builds = []
    for role in ROLES.values():
        registry = CollectorRegistry()
        role(registry)
        (build,) = (family for family in registry.collect() if family.name == "wdmoe_build")
        builds.append(build.samples[0].labels)
    assert builds[0] == builds[1] == builds[2]
    assert len(builds[0]["source"]) == 12
