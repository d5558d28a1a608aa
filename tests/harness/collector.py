"""An OpenTelemetry collector that receives OTLP over HTTP, as defined by `opentelemetry-proto`."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.harness.traced import Spans


@dataclass
class Trace:
    """The spans of one trace by id, and the names of the services that sent them."""

    spans: dict[bytes, Any] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)

    @property
    def root(self) -> Any:
        """The span whose parent was not received."""
        (root,) = (s for s in self.spans.values() if s.parent_span_id not in self.spans)
        return root

    def reported_spans(self) -> Spans:
        """Return the spans as the base station reports them, from the first one's start on."""
        below: dict[bytes, list[Any]] = {}
        for span in self.spans.values():
            below.setdefault(span.parent_span_id, []).append(span)
        root, spans = self.root, []

        def visit(span: Any, depth: int) -> None:
            zero = root.start_time_unix_nano
            times = span.start_time_unix_nano - zero, span.end_time_unix_nano - zero
            about = {key.removeprefix("wdmoe."): value for key, value in attributes(span).items()}
            spans.append((depth, span.name if depth else "request", *times, about))
            children = below.get(span.span_id, [])
            order = [(s.start_time_unix_nano, s.end_time_unix_nano) for s in children]
            for _, child in sorted(zip(order, children, strict=True), key=lambda pair: pair[0]):
                visit(child, depth + 1)

        visit(root, 0)
        return spans


def attributes(item: Any) -> dict[str, Any]:
    """Return the attributes of a span or a resource."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in item.attributes}


class Collector:
    """The traces that were exported to `url` so far."""

    def __init__(self) -> None:
        self.url = ""
        self._lock = threading.Lock()
        self._traces: dict[bytes, Trace] = {}

    def take(self, body: bytes) -> None:
        """Add the spans of an export request."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for resource in request.resource_spans:
                service = attributes(resource.resource)["service.name"]
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        trace = self._traces.setdefault(span.trace_id, Trace())
                        trace.spans[span.span_id] = span
                        trace.services.add(service)

    def whole(self) -> list[Trace]:
        """Return the traces whose request's span has arrived: it is sent last."""
        with self._lock:
            traces = list(self._traces.values())
        return [
            trace
            for trace in traces
            if any("gen_ai.operation.name" in attributes(s) for s in list(trace.spans.values()))
        ]


@contextmanager
def collecting(host: str = "127.0.0.1") -> Iterator[Collector]:
    """Yield a collector that listens on a port of `host`."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the library's name
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            packed = self.headers.get("Content-Encoding") == "gzip"
            collector.take(gzip.decompress(body) if packed else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer((host, 0), Handler)
    collector.url = f"http://{host}:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
