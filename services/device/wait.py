"""Waiting for a deadline more exactly than `time.sleep` does."""

import time
from collections.abc import Callable

_SPIN_S = 0.0001


def wait_until(deadline_s: float, clock: Callable[[], float]) -> None:
    """Sleep, then spin until `clock` shows the deadline: plain sleeping is late by up to 0.1 ms."""
    while (left := deadline_s - clock()) > 0:
        if left > _SPIN_S:
            time.sleep(left - _SPIN_S)
