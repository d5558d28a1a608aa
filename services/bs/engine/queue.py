"""The queue of requests that wait for their turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import TypeAlias

from services.bs.engine.request import FullError, Request
from services.bs.experts.prober import ProbeSeries

MAX_WAITING = 64
Submitted: TypeAlias = Request | ProbeSeries


class RequestQueue:
    """A bounded queue, first in, first out; may be used from any thread."""

    def __init__(self) -> None:
        self._items: deque[Submitted] = deque()
        self._lock = threading.Lock()

    def put(self, item: Submitted) -> None:
        """Append an item; raises FullError."""
        with self._lock:
            if len(self._items) >= MAX_WAITING:
                raise FullError
            self._items.append(item)

    def put_back(self, item: Submitted) -> None:
        """Append a taken item again, behind all others, even to a full queue."""
        with self._lock:
            self._items.append(item)

    def requests(self) -> int:
        """Return how many requests wait, without probes."""
        with self._lock:
            return sum(isinstance(item, Request) for item in self._items)

    def first(self) -> Submitted | None:
        """Return the next item, which stays in the queue."""
        with self._lock:
            return self._items[0] if self._items else None

    def take(self) -> Submitted:
        """Remove and return the next item; IndexError if the queue is empty."""
        with self._lock:
            return self._items.popleft()

    def in_turn(self) -> list[Request]:
        """Return the waiting requests in order, without probes."""
        with self._lock:
            return [item for item in self._items if isinstance(item, Request)]

    def drop_cancelled(self) -> list[Request]:
        """Remove cancelled items; return the requests among them."""
        with self._lock:
            kept: deque[Submitted] = deque()
            dropped: list[Request] = []
            for item in self._items:
                if not item.cancelled:
                    kept.append(item)
                elif isinstance(item, Request):
                    dropped.append(item)
            self._items = kept
            return dropped
