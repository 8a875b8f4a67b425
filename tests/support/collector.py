"""A collector of traces on this machine: OTLP over HTTP, decoded by OpenTelemetry's own protobuf classes.

It is not OpenTelemetry's own: Debian has no package of that, and PyPI one without a receiver of OTLP (2026-11). It takes what
the protocol prescribes, `POST /v1/traces`, and refuses all else.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class CollectedSpan:
    """A span as it arrived."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    status: str
    attributes: Mapping[str, Any]
    events: tuple[tuple[str, Mapping[str, Any]], ...]
    resource: Mapping[str, Any]

    @property
    def traceparent(self) -> str:
        """The header by which another's span becomes a child of this one, without its flags."""
        return f"00-{self.trace_id}-{self.span_id}-"


@dataclass
class Collector:
    """A running collector."""

    url: str = ""
    spans: list[CollectedSpan] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The variables by which a server sends its traces here."""
        return {"FANOUT_TRACES": "on", "OTEL_EXPORTER_OTLP_ENDPOINT": self.url}

    def find(self, name: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.name == name]

    def find_children(self, span: CollectedSpan) -> list[CollectedSpan]:
        return [other for other in self.spans if other.parent_id == span.span_id]

    async def receive(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        message = ExportTraceServiceRequest.FromString(
            gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
        )
        self.bodies.append(message.SerializeToString())
        for group in message.resource_spans:
            resource = _read_attributes(group.resource.attributes)
            self.spans += [_read_span(span, resource) for scope in group.scope_spans for span in scope.spans]
        return web.Response(body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf")


@asynccontextmanager
async def run_collector() -> AsyncGenerator[Collector]:
    """Run a collector while the context is open."""
    collector, app = Collector(), web.Application(client_max_size=2**26)
    app.router.add_post("/v1/traces", collector.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        await runner.cleanup()


def _read_span(span: Span, resource: Mapping[str, Any]) -> CollectedSpan:
    return CollectedSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        status=["unset", "ok", "error"][span.status.code],
        attributes=_read_attributes(span.attributes),
        events=tuple((event.name, _read_attributes(event.attributes)) for event in span.events),
        resource=resource,
    )


def _read_attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _read_value(pair.value) for pair in pairs}


def _read_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    assert kind is not None
    return [_read_value(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)
