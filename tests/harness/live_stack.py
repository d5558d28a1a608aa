"""A real orchestrator over sockets and HTTP, with devices that report, and a base station.

Devices apply the states that they receive; the base station answers under the state in force.
Commands run as separate processes, which can be sent signals.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import zmq
from fastapi import FastAPI
from fastapi.responses import Response

from orchestrator.contracts import channel_state
from orchestrator.contracts.http import Build
from orchestrator.contracts.timings import Experts
from orchestrator.control.http import create_app
from orchestrator.process.build import describe
from tests.harness import answers
from tests.harness.control_plane import Stack, eventually, report, running
from tests.harness.serving import serve

DEVICES = 2
MAIN = "from orchestrator import cli; cli.main()"


def heed_signals() -> None:
    """Restore the signals that nohup, or a shell for background jobs, ignores in its children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@dataclass
class LiveStack:
    """A running stack, its hooks, and the prompts that it received.

    Attributes:
        on_probe, on_prompt, on_use: called when a probe, a prompt or a profile arrives.
        stuck: devices that report but apply nothing.
        late_s: how late a device applies a state.
        sent: profile, policy and interval in force at the arrival of each prompt.
    """

    stack: Stack
    environment: dict[str, str]
    on_probe: Callable[[], None] = lambda: None
    on_prompt: Callable[[], None] = lambda: None
    on_use: Callable[[], None] = lambda: None
    stuck: set[int] = field(default_factory=set)
    late_s: dict[int, float] = field(default_factory=dict)
    sent: list[tuple[str, str, int]] = field(default_factory=list)
    switching: int = 0

    def in_force(self) -> dict[str, Any]:
        """Return profile, policy and interval as /status reports them."""
        status = self.stack.control.status().model_dump()
        return {key: status[key] for key in ("profile", "profile_sha256", "policy", "interval")}

    def settled(self) -> dict[str, Any]:
        """Return the same once no switch is under way."""
        eventually(lambda: not self.switching)
        return self.in_force()

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start `wdmoe` with these arguments, as a process that ignores no signal."""
        pipe = subprocess.PIPE
        options = {"stdout": pipe, "stderr": pipe, "preexec_fn": heed_signals, **options}
        command = [sys.executable, "-c", MAIN, *arguments]
        return subprocess.Popen(
            command, env={**os.environ, **self.environment}, text=True, **options
        )

    def app(self) -> FastAPI:
        """Return the base station's application."""
        app = FastAPI()
        control = self.stack.control

        @app.get("/healthz")
        def healthz() -> dict[str, Any]:
            return answers.health(build=Build(**asdict(describe()))).model_dump()

        @app.post("/probe")
        def probe(body: dict[str, Any]) -> dict[str, Any]:
            self.on_probe()
            timings = [{"measured_s": 0.01, "expected_s": 0.009}] * body["count"]
            return {"wire_bits": 9, "down": timings, "up": timings, "loopback_s": [0.001]}

        @app.post("/v1/completions")
        def completions(body: dict[str, Any]) -> Response:
            self.on_prompt()
            now = control.status()
            self.sent.append((now.profile, now.policy.name, now.interval))
            timings = answers.timings(
                experts=Experts(used={"0": 40}, dropped={}, deselected={}),
                policy=now.policy,
                profile=now.profile,
                epoch=now.epoch,
            ).model_dump()
            chunk = {"choices": [{"text": "12", "finish_reason": "stop"}], "timings": timings}
            stream = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
            return Response(stream, media_type="text/event-stream")

        return app

    def serve_devices(self, ended: threading.Event) -> None:
        """Report each state when it is due to be applied, and again at intervals."""
        heard = self.stack.connect(zmq.SUB, "device-0")
        reports = self.stack.connect(zmq.PUSH, "device-0")
        newest: dict[int, dict[str, Any]] = {}
        reported_s = 0.0
        while not ended.is_set():
            if heard.poll(20):
                wanted = channel_state.decode(heard.recv())
                time.sleep(max(0.0, wanted.apply_at_s - time.time()))
                for q in set(range(DEVICES)) - (self.stuck if newest else set()):
                    time.sleep(self.late_s.get(q, 0.0))
                    newest[q] = {"epoch": wanted.epoch, "interval": wanted.interval}
                    newest[q] |= {"apply_at_s": wanted.apply_at_s, "applied_at_s": time.time()}
            elif time.monotonic() - reported_s < 0.5:
                continue
            reported_s = time.monotonic()
            for q, fields in newest.items():
                reports.send(report(q, **fields))
        for socket in (heard, reports):
            socket.close(linger=0)


@contextmanager
def live(text: str) -> Iterator[LiveStack]:
    """Yield a stack with this profile in force and applied by both devices."""
    with ExitStack() as opened:
        stack = opened.enter_context(running(text, None))
        made = LiveStack(stack, {})
        use = stack.control.use

        def hooked(*arguments: Any, **options: Any) -> None:
            made.switching += 1
            try:
                made.on_use()
                use(*arguments, **options)
            finally:
                made.switching -= 1

        stack.control.use = hooked  # type: ignore[method-assign]
        ended = threading.Event()
        devices = threading.Thread(target=made.serve_devices, args=[ended])
        devices.start()
        opened.callback(devices.join)
        opened.callback(ended.set)
        bs_url = opened.enter_context(serve(made.app()))
        url = opened.enter_context(serve(create_app(stack.control, stack.registry)))
        made.environment = {"WDMOE_BS_URL": bs_url, "WDMOE_ORCHESTRATOR_URL": url}
        status = stack.control.status
        eventually(lambda: all(link.backend for link in status().links))
        yield made
