"""Backoff from a full base station: it answers 429 with the time after which to retry."""

from __future__ import annotations

import re
import time

import httpx

# Far longer than a full queue takes; a base station that refuses for longer has another fault.
PATIENCE_S = 1800.0
# For a refusal without a time.
DEFAULT_S = 1.0
LEAST_S = 0.1

_SECONDS = re.compile(r"[0-9]{1,9}")


class Backoff:
    """The backoff of all senders together: else those not refused would take every free place."""

    def __init__(self) -> None:
        self._reopens_s = 0.0

    def wait(self) -> bool:
        """Wait until the base station may have room; return whether that took any time."""
        waited = False
        while (left_s := self._reopens_s - time.monotonic()) > 0:
            waited = True
            time.sleep(left_s)
        return waited

    def again(self, refusal: httpx.Response, waited_s: float) -> bool:
        """Return whether to retry after a refusal; until its time has come, all senders wait.

        `waited_s`: how long the request has been waiting already.
        """
        text = refusal.headers.get("retry-after", "")
        after_s = max(float(text), LEAST_S) if _SECONDS.fullmatch(text) else DEFAULT_S
        if waited_s + after_s > PATIENCE_S:
            return False
        self._reopens_s = max(self._reopens_s, time.monotonic() + after_s)
        return True
