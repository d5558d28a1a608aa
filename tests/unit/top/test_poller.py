"""Reading the stack's services, and what they amount to: also when they are gone, or others."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest

from orchestrator.control.http import create_app
from orchestrator.metrics import BsMetrics, bs_metrics
from orchestrator.top.history import History
from orchestrator.top.poller import MAX_BYTES, Source
from orchestrator.top.view import DeviceRow, View, view
from tests.harness.control_plane import STILL, running
from tests.harness.serving import serve

NOWHERE = "http://127.0.0.1:9"
HEALTH: dict[str, Any] = {
    "status": "ok",
    "model": {"name": "tiny", "layers": 4, "experts": 2, "top_k": 2, "fingerprint": "ab"},
    "devices": {
        "0": {"admitted": True, "refused": None, "last_seen_age_s": 0.5},
        "1": {"admitted": False, "refused": None, "last_seen_age_s": 9.5},
    },
}


class BaseStation:
    """Answers with metrics and a health that the test sets."""

    def __init__(self) -> None:
        self.health = HEALTH
        self.restart()
        self.app = FastAPI()
        self.app.get("/metrics")(lambda: Response(generate_latest(self.registry)))
        self.app.get("/healthz")(
            lambda: JSONResponse(self.health, 200 if self.health["status"] == "ok" else 503)
        )
        self.app.get("/requests")(lambda: {"running": [], "waiting": []})

    def restart(self) -> None:
        """Count from 0."""
        self.registry = CollectorRegistry()
        self.metrics: BsMetrics = bs_metrics(self.registry)

    def work(self, messages: int) -> None:
        """Device 0 answers messages of 3 tokens: 100 ms down, 20 ms at it, 80 ms up."""
        made = self.metrics
        for _ in range(messages):
            made.downlink_seconds.labels("0").observe(0.1)
            made.device_wait_seconds.labels("0").observe(0.005)
            made.compute_seconds.labels("0").observe(0.015)
            made.uplink_seconds.labels("0").observe(0.08)
            made.device_messages_total.labels("0").inc()
            made.expert_tokens_total.labels("0", "2").inc(3)
            made.radio_bytes_total.labels("0", "down").inc(1000)
        made.expert_dropped_total.labels("0", "1", "policy").inc(messages)
        made.expert_dropped_total.labels("1", "1", "absent").inc(2 * messages)


def seen(source: Source, history: History) -> View:
    reading = source.read()
    history.add(reading)
    return view(reading, history)


def row(shown: View, device: int) -> DeviceRow:
    return next(row for row in shown.devices if row.device == device)


def test_what_devices_did_between_two_readings() -> None:
    station, history = BaseStation(), History()
    with serve(station.app) as url:
        source = Source(url, NOWHERE)
        station.work(50)
        first = seen(source, history)
        assert row(first, 0).tokens_per_s is None
        station.work(10)
        shown = seen(source, history)
    took_s, _ = history.over(60, [])
    busy, silent = row(shown, 0), row(shown, 1)
    assert (busy.state, silent.state) == ("admitted", "silent")
    assert busy.airtime_down is not None
    assert abs(busy.airtime_down - 10 * 0.1 / took_s) < 1e-6 / took_s
    assert busy.compute is not None
    assert abs(busy.compute - 10 * 0.015 / took_s) < 1e-6 / took_s
    assert busy.message_s is not None
    assert abs(busy.message_s - 0.2) < 1e-9
    assert busy.messages_s == [busy.message_s]
    assert busy.got_down_bps is not None
    assert round(busy.got_down_bps) == 8 * 1000 / 0.1
    assert busy.tokens_per_s is not None
    assert silent.lost_per_s is not None
    assert round(busy.tokens_per_s * took_s) == 30
    assert round(silent.lost_per_s * took_s) == 20
    assert silent.message_s is None


def test_a_base_station_that_went_away_counts_on_when_it_is_back() -> None:
    station, history = BaseStation(), History()
    with serve(station.app) as url:
        source = Source(url, NOWHERE)
        seen(source, history)
        station.work(4)
        assert row(seen(source, history), 0).message_s is not None
    gone = seen(source, history)
    assert gone.faults == [
        f"the base station does not answer at {url}",
        f"the orchestrator does not answer at {NOWHERE}",
    ]
    assert (gone.devices, gone.model, gone.ended, gone.running) == ([], None, None, None)
    station.restart()
    station.work(1)
    with serve(station.app, int(url.rpartition(":")[2])):
        back = row(seen(source, history), 0)
    _, numbers = history.over(60, ["wdmoe_device_messages_total"])
    assert numbers["wdmoe_device_messages_total"][frozenset({("device", "0")})] == 5
    assert back.messages_s[1:-1] == [None]
    assert back.messages_s[-1] is not None


def test_an_engine_that_stopped_is_told_beside_what_is_known() -> None:
    station = BaseStation()
    station.health = HEALTH | {"status": "engine stopped"}
    with serve(station.app) as url:
        shown = seen(Source(url, NOWHERE), History())
    assert "the base station: engine stopped" in shown.faults
    assert shown.model == "tiny (4 layers, 2 experts, top 2)"


def test_an_orchestrator_says_what_is_asked_of_links() -> None:
    with running(STILL, None) as stack, serve(create_app(stack.control, stack.registry)) as url:
        shown = seen(Source(NOWHERE, url), History())
    assert (shown.profile, shown.policy, shown.replay) == ("p", "topk", None)
    assert [device.state for device in shown.devices] == ["unknown", "unknown"]
    assert row(shown, 1).asked_up_bps == 5e6
    assert row(shown, 1).asked_down_bps is None
    assert row(shown, 0).link_fault == "nothing was reported of it yet"
    assert row(shown, 0).marks == "E"


def test_another_service_at_the_address_is_told_in_a_line() -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: Response("wdmoe_tokens_total three"))
    other.get("/status")(lambda: {"status": "fine"})
    with serve(other) as url:
        faults = seen(Source(url, url), History()).faults
    assert faults[0].startswith("the base station: unexpected answer at /metrics: ")
    assert faults[1] == "the orchestrator: unexpected answer at /status: profile: Field required"
    with serve(FastAPI()) as url:
        assert seen(Source(url, url), History()).faults == [
            "the base station: HTTP 404 at /metrics",
            "the orchestrator: HTTP 404 at /status",
        ]
    for address in ("http://[", "ftp://x", "nonsense"):
        assert len(seen(Source(address, address), History()).faults) == 2


def test_an_answer_without_an_end_is_told_too(monkeypatch: Any) -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: StreamingResponse(itertools.repeat(b"#" * 65536)))
    other.get("/status")(lambda: StreamingResponse(_drops()))
    monkeypatch.setattr("orchestrator.top.poller.TIMEOUT_S", 1.0)
    with serve(other) as url:
        faults = seen(Source(url, url), History()).faults
    assert faults == [
        f"the base station: unexpected answer at /metrics: larger than {MAX_BYTES} bytes",
        f"the orchestrator does not answer at {url}",
    ]


def _drops() -> Iterator[bytes]:
    """Never long enough nothing for a socket to time out; no test waits for its end."""
    for _ in range(600):
        yield b" "
        time.sleep(0.05)


def test_a_fault_is_one_printable_line() -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: Response('wdmoe_tokens_total{a="\x1b[2J\x85b"} x\x1b]0;'))
    with serve(other) as url:
        (fault, _) = seen(Source(url, NOWHERE), History()).faults
    assert fault.startswith("the base station: unexpected answer at /metrics: ")
    assert fault.isprintable()


def test_who_accepts_and_never_answers_is_gone_too(monkeypatch: Any) -> None:
    monkeypatch.setattr("orchestrator.top.poller.TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        faults = seen(Source(url, NOWHERE), History()).faults
    assert faults[0] == f"the base station does not answer at {url}"
