"""`ArrayHistogram` exports the same as prometheus-client's reference histogram."""

from __future__ import annotations

import numpy as np
from prometheus_client import CollectorRegistry, Histogram

from orchestrator.metrics.array_histogram import ArrayHistogram

BOUNDS = (0.0, 0.1, 0.25, 0.5)


def test_an_array_histogram_counts_as_prometheus_clients_histogram_does() -> None:
    reference, ours = CollectorRegistry(), CollectorRegistry()
    expected = Histogram("kappa", "text", ["layer"], buckets=BOUNDS, registry=reference)
    actual = ArrayHistogram("kappa", "text", "layer", BOUNDS, ours)
    draw = np.random.default_rng(1)
    for layer in ("0", "1"):
        values = np.concatenate([draw.uniform(0, 0.6, (20, 5)).ravel(), BOUNDS])
        actual.observe(layer, values[:50])
        actual.observe(layer, values[50:])
        for value in values:
            expected.labels(layer).observe(value)
        for bound in (*map(str, BOUNDS), "+Inf"):
            labels = {"layer": layer, "le": bound}
            assert ours.get_sample_value("kappa_bucket", labels) == reference.get_sample_value(
                "kappa_bucket", labels
            )
        for suffix in ("count", "sum"):
            seen, wanted = (
                registry.get_sample_value(f"kappa_{suffix}", {"layer": layer}) or 0.0
                for registry in (ours, reference)
            )
            np.testing.assert_allclose(seen, wanted)


def test_before_the_first_value_no_series_is_exported() -> None:
    registry = CollectorRegistry()
    ArrayHistogram("kappa", "text", "layer", BOUNDS, registry)
    assert registry.get_sample_value("kappa_count", {"layer": "0"}) is None
