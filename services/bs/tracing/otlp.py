"""Traces for an OpenTelemetry collector: the part that runs in the base station.

    HTTP ─ begin ─► RequestTrace ─ its end ─► at most MAX_WAITING ─► thread ═ pipe ═► exporter

Making and sending spans would hold the interpreter for long, compared with serving requests, so a
process of its own does it, at the lowest priority.
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

# Ended requests that were not handed over yet; they wait while the collector is away.
MAX_WAITING = 16
_LOG_EVERY_S = 60.0
# For the last traces when the base station is stopped, which has 3 s to end.
_LAST_S = 2.0


class OtlpTraces:
    """The traces of all requests, except those that their client marks as not sampled."""

    def __init__(self, model: str) -> None:
        self._tracer = TracerProvider(shutdown_on_exit=False).get_tracer("wdmoe")
        self._model = model
        self._ended: queue.Queue[Ended | None] = queue.Queue(MAX_WAITING)
        self._over = False
        self._dropped = 0
        self._logged_s = -_LOG_EVERY_S
        command = [sys.executable, "-m", "services.bs.tracing.exporter"]
        self._exporter = subprocess.Popen(command, stdin=subprocess.PIPE)
        threading.Thread(target=self._run, name="traces", daemon=True).start()
        atexit.register(self.close)

    def begin(
        self, headers: Mapping[str, str], operation: str, arrived_s: float, about: dict[str, Value]
    ) -> RequestTrace | None:
        """Begin a request's trace; None if it is not sampled. `about` are its span's attributes."""
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
        """Let the exporter send the last traces, for a moment."""
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
        """Queue an ended trace; called in the engine's thread, and never waits."""
        if self._over:
            return
        try:
            self._ended.put_nowait(ended)
        except queue.Full:
            self._dropped += 1
            if (now_s := time.monotonic()) - self._logged_s > _LOG_EVERY_S:
                self._logged_s = now_s
                print(
                    f"bs: traces of {self._dropped} requests were dropped so far, as the collector "
                    "does not accept them in time",
                    flush=True,
                )

    def _run(self) -> None:
        pipe = self._exporter.stdin
        assert pipe is not None, "the process was started with a pipe"
        try:
            while (ended := self._ended.get()) is not None:
                pipe.write(pickle.dumps(ended))
                pipe.flush()
            pipe.close()
        except OSError as error:
            if not self._over:
                self._over = True
                print(
                    f"bs: the trace exporter has ended ({error}): no more traces until the "
                    "base station is started again",
                    flush=True,
                )
