"""The poller of the stack's services, and the view it gives, also if they are gone or wrong."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CollectorRegistry, generate_latest

from orchestrator.client.client import Client
from orchestrator.client.service import MAX_BYTES
from orchestrator.control.http import create_app
from orchestrator.metrics import BsMetrics, bs_metrics
from orchestrator.top.history import History
from orchestrator.top.poller import Poller
from orchestrator.top.view import DeviceRow, View, view
from tests.harness import answers
from tests.harness.control_plane import STILL, running
from tests.harness.serving import serve

UP = "; is the stack up? (wdmoe up)"
NOWHERE = "http://127.0.0.1:9"
HEALTH = answers.health(
    devices={
        "0": answers.device(last_seen_age_s=0.5),
        "1": answers.device(admitted=False, last_seen_age_s=9.5),
    }
).model_dump()


class BaseStation:
    """A base station with metrics and health that the test sets."""

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
        """Reset the metrics, as a restart does."""
        self.registry = CollectorRegistry()
        self.metrics: BsMetrics = bs_metrics(self.registry)

    def work(self, messages: int) -> None:
        """Count device 0's answers, 3 tokens each: 100 ms down, 20 ms at the device, 80 ms up."""
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


def poller(bs_url: str, orchestrator_url: str, timeout_s: float = 3.0) -> Poller:
    return Poller(Client(bs_url, orchestrator_url, timeout_s))


def seen(source: Poller, history: History) -> View:
    reading = source.read()
    history.add(reading)
    return view(reading, history)


def row(shown: View, device: int) -> DeviceRow:
    return next(row for row in shown.devices if row.device == device)


def test_rates_are_of_the_time_between_two_readings() -> None:
    station, history = BaseStation(), History()
    with serve(station.app) as url:
        source = poller(url, NOWHERE)
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


def test_counts_continue_when_a_base_station_comes_back() -> None:
    station, history = BaseStation(), History()
    with serve(station.app) as url:
        source = poller(url, NOWHERE)
        seen(source, history)
        station.work(4)
        assert row(seen(source, history), 0).message_s is not None
    gone = seen(source, history)
    assert gone.faults == [
        f"the base station does not answer at {url}{UP}",
        f"the orchestrator does not answer at {NOWHERE}{UP}",
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


def test_a_stopped_engine_is_reported_beside_the_known_facts() -> None:
    station = BaseStation()
    station.health = HEALTH | {"status": "engine stopped"}
    with serve(station.app) as url:
        shown = seen(poller(url, NOWHERE), History())
    assert "the base station: engine stopped" in shown.faults
    assert shown.model == "tiny (4 layers, 2 experts, top 2)"


def test_the_orchestrator_provides_the_requested_rates() -> None:
    with running(STILL, None) as stack, serve(create_app(stack.control, stack.registry)) as url:
        shown = seen(poller(NOWHERE, url), History())
    assert (shown.profile, shown.policy, shown.replay) == ("p", "topk", None)
    assert [device.state for device in shown.devices] == ["unknown", "unknown"]
    assert row(shown, 1).asked_up_bps == 5e6
    assert row(shown, 1).asked_down_bps is None
    assert row(shown, 0).link_fault == "nothing was reported of it yet"
    assert row(shown, 0).marks == "E"


def test_another_service_at_the_address_is_a_one_line_fault() -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: Response("wdmoe_tokens_total three"))
    other.get("/status")(lambda: {"status": "fine"})
    with serve(other) as url:
        faults = seen(poller(url, url), History()).faults
    assert faults[0].startswith("the base station: unexpected answer at /metrics: ")
    assert faults[1] == "the orchestrator: unexpected answer at /status: profile: Field required"
    with serve(FastAPI()) as url:
        assert seen(poller(url, url), History()).faults == [
            "the base station: HTTP 404 at /metrics: Not Found",
            "the orchestrator: HTTP 404 at /status: Not Found",
        ]
    for address in ("http://[", "ftp://x", "nonsense"):
        assert len(seen(poller(address, address), History()).faults) == 2


def test_an_endless_answer_is_reported_too() -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: StreamingResponse(itertools.repeat(b"#" * 65536)))
    other.get("/status")(lambda: StreamingResponse(_drops()))
    with serve(other) as url:
        faults = seen(poller(url, url, timeout_s=5.0), History()).faults
    assert faults == [
        f"the base station: unexpected answer at /metrics: larger than {MAX_BYTES} bytes",
        f"the orchestrator does not answer at {url}{UP}",
    ]


def _drops() -> Iterator[bytes]:
    """Yield bytes often enough that the socket never times out; no test waits for the end."""
    for _ in range(600):
        yield b" "
        time.sleep(0.05)


def test_a_fault_is_one_printable_line() -> None:
    other = FastAPI()
    other.get("/metrics")(lambda: Response('wdmoe_tokens_total{a="\x1b[2J\x85b"} x\x1b]0;'))
    with serve(other) as url:
        (fault, _) = seen(poller(url, NOWHERE), History()).faults
    assert fault.startswith("the base station: unexpected answer at /metrics: ")
    assert fault.isprintable()


def test_who_accepts_and_never_answers_is_gone_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        faults = seen(poller(url, NOWHERE, timeout_s=0.2), History()).faults
    assert faults[0] == f"the base station does not answer at {url}{UP}"
