"""Requests that wait for their turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import TypeAlias

from services.bs.engine.request import FullError, Request
from services.bs.experts.prober import ProbeRequest

MAX_WAITING = 64
Asked: TypeAlias = Request | ProbeRequest


class RequestQueue:
    """A bounded queue, first in, first out; may be used from any thread."""

    def __init__(self) -> None:
        self._asked: deque[Asked] = deque()
        self._lock = threading.Lock()

    def put(self, asked: Asked) -> None:
        """Queue it; raises FullError."""
        with self._lock:
            if len(self._asked) >= MAX_WAITING:
                raise FullError
            self._asked.append(asked)

    def put_back(self, asked: Asked) -> None:
        """Queue what was taken once more, behind all others, full or not."""
        with self._lock:
            self._asked.append(asked)

    def requests(self) -> int:
        """How many of those that wait are requests."""
        with self._lock:
            return sum(isinstance(asked, Request) for asked in self._asked)

    def first(self) -> Asked | None:
        """The one whose turn it is; it stays."""
        with self._lock:
            return self._asked[0] if self._asked else None

    def take(self) -> Asked:
        """The one whose turn it is; IndexError if there is none."""
        with self._lock:
            return self._asked.popleft()

    def in_turn(self) -> list[Request]:
        """Those that are to be completed, in the order of their turns; probes are none."""
        with self._lock:
            return [asked for asked in self._asked if isinstance(asked, Request)]

    def drop_cancelled(self) -> list[Request]:
        """Take out those that nobody waits for any more; which requests."""
        with self._lock:
            kept: deque[Asked] = deque()
            dropped: list[Request] = []
            for asked in self._asked:
                if not asked.cancelled:
                    kept.append(asked)
                elif isinstance(asked, Request):
                    dropped.append(asked)
            self._asked = kept
            return dropped
