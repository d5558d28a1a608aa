"""One reading of the stack: what base station and orchestrator report at one time.

GET bs /metrics /healthz /requests        orchestrator /status
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.client.client import Client
from orchestrator.contracts.http import Health, Requests, Status
from orchestrator.errors import InputError, StackError, one_line
from orchestrator.top import exposition
from orchestrator.top.exposition import Numbers
from orchestrator.top.format import printable

# A service that takes longer counts as gone.
TIMEOUT_S = 3.0
# Query only these: the others are most of the page, and cost the base station time.
COUNTERS = (
    "wdmoe_request_seconds_bucket",
    "wdmoe_tokens_total",
    "wdmoe_downlink_seconds_sum",
    "wdmoe_device_wait_seconds_sum",
    "wdmoe_compute_seconds_sum",
    "wdmoe_uplink_seconds_sum",
    "wdmoe_device_messages_total",
    "wdmoe_expert_tokens_total",
    "wdmoe_expert_dropped_total",
    "wdmoe_slowest_device_total",
    "wdmoe_overruns_total",
    "wdmoe_radio_bytes_total",
)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Reading:
    """The services' reports; None where one is missing, with the reason as a line of `faults`.

    `at_s` is the monotonic time of the counters.
    """

    at_s: float
    counters: Numbers | None
    health: Health | None
    requests: Requests | None
    status: Status | None
    faults: tuple[str, ...]


class Poller:
    """Reads the stack; `client` gives up on an answer after TIMEOUT_S."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def read(self) -> Reading:
        """Read everything; errors are recorded in the reading."""
        client, bs, orchestrator = self._client, _Service(), _Service()
        counters = bs.read(self._counters)
        at_s = time.monotonic()
        return Reading(
            at_s,
            counters,
            bs.read(lambda: client.health(unwell=True)),
            bs.read(client.requests),
            orchestrator.read(client.status),
            tuple(s.fault for s in (bs, orchestrator) if s.fault is not None),
        )

    def status(self) -> Status | None:
        """Return only the orchestrator's status; None if it does not answer."""
        return _Service().read(self._client.status)

    def _counters(self) -> Numbers:
        try:
            return exposition.read(self._client.metrics(COUNTERS), COUNTERS)
        except ValueError as error:
            raise StackError(f"the base station: unexpected answer at /metrics: {error}") from None


@dataclass
class _Service:
    """A service in one reading; after its first `fault` nothing more is read from it."""

    fault: str | None = None

    def read(self, method: Callable[[], _Read]) -> _Read | None:
        if self.fault is not None:
            return None
        try:
            return method()
        except (StackError, InputError) as error:
            self.fault = one_line(printable(str(error)))
            return None
