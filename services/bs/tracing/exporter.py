"""The base station's trace exporter, a process of its own that is fed through its stdin.

Only the base station that started it writes there, so unpickling the input is safe.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import traceback
from typing import NamedTuple, TypeAlias

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.bs.tracing.spans import Record, Value

# Spans between two flushes; half of what the exporter's queue holds.
_AT_ONCE = 1024
_LEAST_URGENT = 19
_KINDS = {"request": SpanKind.SERVER, "round_trip": SpanKind.CLIENT}
_SCOPE = InstrumentationScope("wdmoe")


class Root(NamedTuple):
    """A request's own span, as it began; `parent` is the client's span, 0 if there is none."""

    trace: int
    span: int
    parent: int
    name: str
    start_ns: int
    attributes: dict[str, Value]

    @classmethod
    def of(cls, span: ReadableSpan) -> Root:
        """Return the root of a span that has begun."""
        parent = 0 if span.parent is None else span.parent.span_id
        attributes: dict[str, Value] = dict(span.attributes or {})  # type: ignore[arg-type]
        ids = span.context.trace_id, span.context.span_id, parent
        return cls(*ids, span.name, span.start_time or 0, attributes)


Ended: TypeAlias = tuple[Root, Record]


class Exporter:
    """An exporter that makes no more spans until those before were sent, or given up."""

    def __init__(self) -> None:
        self._resource = Resource.create({SERVICE_NAME: "wdmoe-bs"})
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self._ids = RandomIdGenerator()

    def export(self, root: Root, record: Record) -> None:
        """Export a request's spans, its own span last."""
        spans = record.spans()
        parents = [_context(root.trace, root.span)]
        for number, (depth, name, start_ns, end_ns, about) in enumerate(spans[1:], start=1):
            context = _context(root.trace, self._ids.generate_span_id())
            attributes: dict[str, Value] = {f"wdmoe.{key}": value for key, value in about.items()}
            times = root.start_ns + start_ns, root.start_ns + end_ns
            self._add(name, name, context, parents[depth - 1], attributes, times)
            parents[depth:] = [context]
            if number % _AT_ONCE == 0:
                self._processor.force_flush()
        whole = dict(root.attributes)
        if record.error is None:
            whole["gen_ai.usage.output_tokens"] = record.completion_tokens
        parent = _context(root.trace, root.parent, remote=True) if root.parent else None
        times = root.start_ns, root.start_ns + spans[0].end_ns
        self._add("request", root.name, parents[0], parent, whole, times, record.error)

    def flush(self) -> None:
        """Send the spans that wait."""
        self._processor.force_flush()

    def _add(
        self,
        what: str,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: dict[str, Value],
        times_ns: tuple[int, int],
        error: str | None = None,
    ) -> None:
        start_ns, end_ns = times_ns
        span = ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            kind=_KINDS.get(what, SpanKind.INTERNAL),
            status=Status() if error is None else Status(StatusCode.ERROR, error),
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_scope=_SCOPE,
        )
        self._processor.on_end(span)


def _context(trace: int, span: int, *, remote: bool = False) -> SpanContext:
    return SpanContext(trace, span, remote, TraceFlags(TraceFlags.SAMPLED))


def main() -> None:
    """Export until the base station ends the input, then wait a moment for the last spans."""
    os.nice(_LEAST_URGENT)
    for number in (signal.SIGINT, signal.SIGTERM):  # the base station gets them as well
        signal.signal(number, signal.SIG_IGN)
    exporter = Exporter()
    with contextlib.suppress(EOFError):
        while True:
            root, record = pickle.load(sys.stdin.buffer)
            try:
                exporter.export(root, record)
            except Exception:  # one bad trace must not stop the others
                traceback.print_exc()
    exporter.flush()
    os._exit(0)  # the SDK's threads are no longer needed


if __name__ == "__main__":
    main()
