"""Traces to an OpenTelemetry collector, in OTLP over HTTP, by a thread that nobody waits for.

HTTP ── begin ──► RequestTrace ── its end ──► at most MAX_WAITING ──► spans ──► BatchSpanProcessor
"""

from __future__ import annotations

import atexit
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Mapping

from opentelemetry import propagate
from opentelemetry import trace as otel
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from services.bs.tracing import RequestTrace, Value

# Requests that have ended and are not exported yet; a collector that is away makes them wait.
MAX_WAITING = 16
# Spans that are made before the exporter has to have taken them; half of what it holds.
_AT_ONCE = 1024
# The engine wants the interpreter back, while spans are made, sooner than in the usual 5 ms.
_SWITCH_S = 0.0005
_TELL_EVERY_S = 60.0
# For what is not exported yet when the base station is stopped: it has 3 s to end.
_LAST_S = 2.0
_KINDS = {"round_trip": otel.SpanKind.CLIENT}


class OtlpTraces:
    """Traces every request that its client or OTEL_TRACES_SAMPLER does not leave out.

    Where to, and all else of the exporter, is what OpenTelemetry's own variables say.
    """

    def __init__(self, model: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or "wdmoe-bs"
        resource = Resource.create({SERVICE_NAME: name})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # may wait 30 s
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("wdmoe")
        self._model = model
        self._ended: queue.Queue[_Ended] = queue.Queue(MAX_WAITING)
        self._dropped = 0
        self._told_s = 0.0
        sys.setswitchinterval(_SWITCH_S)
        threading.Thread(target=self._run, name="traces", daemon=True).start()
        atexit.register(self._flush)

    def begin(
        self, headers: Mapping[str, str], operation: str, arrived_s: float, about: dict[str, Value]
    ) -> RequestTrace | None:
        """A request has arrived; None if it is not to be traced. `about` is told of its span."""
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
        return RequestTrace(arrived_s, lambda trace: self._take((span, trace)))

    def _take(self, ended: _Ended) -> None:
        """In the engine's thread: never waits."""
        try:
            self._ended.put_nowait(ended)
        except queue.Full:
            self._dropped += 1
            if (now_s := time.monotonic()) - self._told_s > _TELL_EVERY_S:
                self._told_s = now_s
                print(
                    f"bs: traces: {self._dropped} requests' were dropped so far, as the collector "
                    "does not take them in time",
                    flush=True,
                )

    def _flush(self) -> None:
        last = threading.Thread(target=self._provider.force_flush, daemon=True)
        last.start()
        last.join(_LAST_S)

    def _run(self) -> None:
        while True:
            ended = self._ended.get()
            try:
                self._emit(*ended)
            except Exception:  # of this trace; the next one is another
                traceback.print_exc()

    def _emit(self, root: otel.Span, trace: RequestTrace) -> None:
        _, *spans = whole = trace.spans()
        start_ns: int = root.start_time  # type: ignore[attr-defined]  # the SDK's spans have it
        parents: list[Context] = [otel.set_span_in_context(root)]
        for number, (depth, name, since_ns, until_ns, about) in enumerate(spans, start=1):
            span = self._tracer.start_span(
                name,
                parents[depth - 1],
                _KINDS.get(name, otel.SpanKind.INTERNAL),
                {f"wdmoe.{key}": value for key, value in about.items()},
                start_time=start_ns + since_ns,
            )
            span.end(start_ns + until_ns)
            parents[depth:] = [otel.set_span_in_context(span)]
            if number % _AT_ONCE == 0:
                self._provider.force_flush()
        root.set_attribute("gen_ai.usage.output_tokens", trace.completion_tokens)
        if trace.error is not None:
            root.set_status(otel.Status(otel.StatusCode.ERROR, trace.error))
        root.end(start_ns + whole[0].end_ns)


_Ended = tuple[otel.Span, RequestTrace]
