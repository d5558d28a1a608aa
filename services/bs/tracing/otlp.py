"""Traces to an OpenTelemetry collector: what the base station itself does for it.

    HTTP ─ begin ─► RequestTrace ─ its end ─► at most MAX_WAITING ─► thread ═ pipe ═► exporter

Making and sending spans takes the interpreter for long, compared with serving requests: a process
of its own does it, which gives way to all others.
"""

from __future__ import annotations

import atexit
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress

from opentelemetry import propagate
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from services.bs.tracing.exporter import Ended, Root
from services.bs.tracing.spans import RequestTrace, Value

# Requests that have ended and are not handed over yet; a collector that is away makes them wait.
MAX_WAITING = 16
_TELL_EVERY_S = 60.0
# For what is not exported yet when the base station is stopped: it has 3 s to end.
_LAST_S = 2.0


class OtlpTraces:
    """Traces every request that its client does not leave out."""

    def __init__(self, model: str) -> None:
        self._tracer = TracerProvider(shutdown_on_exit=False).get_tracer("wdmoe")
        self._model = model
        self._ended: queue.Queue[Ended | None] = queue.Queue(MAX_WAITING)
        self._over = False
        self._dropped = 0
        self._told_s = -_TELL_EVERY_S
        command = [sys.executable, "-m", "services.bs.tracing.exporter"]
        self._exporter = subprocess.Popen(command, stdin=subprocess.PIPE)
        threading.Thread(target=self._run, name="traces", daemon=True).start()
        atexit.register(self.close)

    def begin(
        self, headers: Mapping[str, str], operation: str, arrived_s: float, about: dict[str, Value]
    ) -> RequestTrace | None:
        """A request has arrived; None if it is not to be traced. `about` is told of its span."""
        if self._over:
            return None
        zero_ns = time.time_ns() - time.monotonic_ns()
        span = self._tracer.start_span(
            f"{operation} {self._model}",
            propagate.extract(headers),
            otel.SpanKind.SERVER,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "wdmoe",
                "gen_ai.request.model": self._model,
                **about,
            },
            start_time=zero_ns + round(arrived_s * 1e9),
        )
        if not span.is_recording():
            return None
        assert isinstance(span, ReadableSpan), "the SDK's are"
        root = Root.of(span)
        return RequestTrace(arrived_s, lambda trace: self._take((root, trace.record())))

    def close(self) -> None:
        """Let the exporter send what there is, for a moment."""
        if self._over:
            return
        self._over = True
        deadline_s = time.monotonic() + _LAST_S
        with suppress(queue.Full):
            self._ended.put(None, timeout=_LAST_S)
        try:
            self._exporter.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._exporter.kill()
            self._exporter.wait()

    def _take(self, ended: Ended) -> None:
        """In the engine's thread: never waits."""
        if self._over:
            return
        try:
            self._ended.put_nowait(ended)
        except queue.Full:
            self._dropped += 1
            if (now_s := time.monotonic()) - self._told_s > _TELL_EVERY_S:
                self._told_s = now_s
                print(
                    f"bs: traces of {self._dropped} requests were dropped so far, as the collector "
                    "does not take them in time",
                    flush=True,
                )

    def _run(self) -> None:
        pipe = self._exporter.stdin
        assert pipe is not None, "it was asked for"
        try:
            while (ended := self._ended.get()) is not None:
                pipe.write(pickle.dumps(ended))
                pipe.flush()
            pipe.close()
        except OSError as error:
            if not self._over:
                self._over = True
                print(
                    f"bs: the exporter of traces has ended ({error}): no more traces until the "
                    "base station is started again",
                    flush=True,
                )
