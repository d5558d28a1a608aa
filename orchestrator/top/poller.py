"""One reading of the stack: what base station and orchestrator say at a time.

GET bs /metrics /healthz /requests        orchestrator /status
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ValidationError

from orchestrator.client.sse import one_line
from orchestrator.files.json_file import first_fault
from orchestrator.top import exposition
from orchestrator.top.answers import Health, Requests, Status
from orchestrator.top.exposition import Numbers
from orchestrator.top.format import printable

# Whoever takes longer is as good as gone, to those who watch.
TIMEOUT_S = 3.0
# Many times what the largest models' metrics take.
MAX_BYTES = 8 << 20
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
# The others are most of the page, and take the base station's time.
_BY_NAME = f"?{urlencode([('name[]', name) for name in COUNTERS])}"

_Answer = TypeVar("_Answer", bound=BaseModel)
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Reading:
    """What was there to read; None: it did not answer, which `faults` tells in a line each.

    `at_s` is monotonic, and the time of the counters.
    """

    at_s: float
    counters: Numbers | None
    health: Health | None
    requests: Requests | None
    status: Status | None
    faults: tuple[str, ...]


class Source:
    """Where the stack is read; for one thread."""

    def __init__(self, bs_url: str, orchestrator_url: str) -> None:
        # Not through the environment's proxies: the stack is on this host, or named outright.
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._bs = _Service("the base station", bs_url.rstrip("/"))
        self._orchestrator = _Service("the orchestrator", orchestrator_url.rstrip("/"))

    def read(self) -> Reading:
        """Ask for everything; whatever is wrong with the answers is in the reading."""
        self._bs.fault = None
        counters = self._get(self._bs, "/metrics", self._numbers, _BY_NAME)
        at_s = time.monotonic()
        return Reading(
            at_s,
            counters,
            self._get(self._bs, "/healthz", _of(Health)),
            self._get(self._bs, "/requests", _of(Requests)),
            self.status(),
            tuple(s.fault for s in (self._bs, self._orchestrator) if s.fault is not None),
        )

    def status(self) -> Status | None:
        """What the orchestrator alone says; None if it does not."""
        self._orchestrator.fault = None
        return self._get(self._orchestrator, "/status", _of(Status))

    @staticmethod
    def _numbers(response: httpx.Response, content: bytes) -> Numbers:
        response.raise_for_status()
        return exposition.read(content.decode(errors="replace"), COUNTERS)

    def _get(
        self,
        service: _Service,
        path: str,
        take: Callable[[httpx.Response, bytes], _Read],
        query: str = "",
    ) -> _Read | None:
        """An answer; None if there is none, or none was given to the question before."""
        if service.fault is not None:
            return None
        try:
            until_s = time.monotonic() + TIMEOUT_S
            with self._http.stream("GET", service.url + path + query) as response:
                content = _content(response, until_s)
            return take(response, content)
        except httpx.HTTPStatusError as error:
            fault = f"{service.name}: HTTP {error.response.status_code} at {path}"
        except httpx.HTTPError:
            fault = f"{service.name} does not answer at {service.url}"
        except ValidationError as error:
            fault = f"{service.name}: unexpected answer at {path}: {first_fault(error)}"
        except (ValueError, httpx.InvalidURL) as error:
            fault = f"{service.name}: unexpected answer at {path}: {error}"
        service.fault = one_line(printable(fault))
        return None


@dataclass
class _Service:
    """`fault`: what was wrong with it in this reading."""

    name: str
    url: str
    fault: str | None = None


def _content(response: httpx.Response, until_s: float) -> bytes:
    """All of it; ReadTimeout if there is more at that time, ValueError if it is too large."""
    data = bytearray()
    for block in response.iter_bytes():
        data += block
        if len(data) > MAX_BYTES:
            raise ValueError(f"larger than {MAX_BYTES} bytes")
        if time.monotonic() > until_s:
            raise httpx.ReadTimeout("too slow", request=response.request)
    return bytes(data)


def _of(kind: type[_Answer]) -> Callable[[httpx.Response, bytes], _Answer]:
    def take(response: httpx.Response, content: bytes) -> _Answer:
        # An engine that has stopped is told with a 503, and all the rest with it.
        if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            response.raise_for_status()
        return kind.model_validate_json(content)

    return take
