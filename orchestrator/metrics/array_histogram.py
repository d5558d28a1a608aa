"""A histogram that takes whole arrays, for values that are observed for every token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


class ArrayHistogram(Collector):
    """A histogram with one label that observes arrays; prometheus-client's own takes single values.

    It is exported in the same format.

    Attributes:
        label: the name of the only label.
        before_collect: called at the start of every scrape; it may observe values in bulk.
    """

    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """`buckets` are upper bounds in ascending order, without +Inf."""
        self._name = name
        self._text = text
        self.label = label
        self._buckets = np.array(buckets)
        self._counts: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self._sums: dict[str, float] = {}
        self._lock = threading.Lock()
        self.before_collect: Callable[[], None] = lambda: None
        registry.register(self)

    def observe(self, label: str, values: ArrayLike) -> None:
        """Count every value of an array of any shape, possibly empty, under one label value."""
        flat = np.ravel(values)
        places = np.searchsorted(self._buckets, flat, side="left")
        counts = np.bincount(places, minlength=len(self._buckets) + 1)
        with self._lock:
            self._counts[label] = self._counts.get(label, 0) + counts
            self._sums[label] = self._sums.get(label, 0.0) + float(flat.sum(dtype=np.float64))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the current state; Prometheus calls this for every scrape."""
        self.before_collect()
        family = HistogramMetricFamily(self._name, self._text, labels=[self.label])
        bounds = [*map(str, self._buckets.tolist()), "+Inf"]
        with self._lock:
            for label, counts in self._counts.items():
                sums = np.cumsum(counts).tolist()
                buckets = list(zip(bounds, sums, strict=True))
                family.add_metric([label], buckets, self._sums[label])
        yield family
