"""Traces: a span for each request and each of its calls, sent by OTLP. Imported only where traces are on.

opentelemetry-util-genai names what the conventions know, as these still change; our own attributes are `fanout.*`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache

from opentelemetry import trace
from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME
from opentelemetry.semconv.attributes.url_attributes import URL_PATH, URL_SCHEME
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.genai.environment_variables import OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.invocation import EmbeddingInvocation, InferenceInvocation
from opentelemetry.util.genai.types import ContentCapturingMode
from opentelemetry.util.genai.utils import get_content_capturing_mode
from opentelemetry.util.types import AttributeValue
from yarl import URL

from fanout.core.errors import ConfigError, Fault
from fanout.core.schema import Call
from fanout.observability.call_span import MAX_NAME_CHARACTERS, PROPAGATOR, CallSpan
from fanout.observability.log_once import LogOnce
from fanout.observability.logs import log
from fanout.observability.trace_content import clean

SCOPE = "fanout"
UNKNOWN = "_OTHER"
"""OpenTelemetry's word for what has no name of its own: here the provider of a model that nobody serves."""
CLOSE_TIMEOUT_S = 5.0
"""Time that the end of the process waits for a collector to take the last spans."""


class RequestSpan:
    """The span of a request."""

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace_id(self) -> str:
        """Id of its trace, as collectors show it."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def end(self, status: int, **attributes: AttributeValue | None) -> None:
        """End it with its HTTP status and our own attributes, of which the unknown are left out."""
        own = {f"fanout.{name}": value for name, value in attributes.items() if value is not None}
        self._span.set_attributes({HTTP_RESPONSE_STATUS_CODE: status, **own})
        if status >= 500:  # by the conventions a caller's mistake is no error of a server
            self._span.set_status(Status(StatusCode.ERROR))
            self._span.set_attribute(ERROR_TYPE, str(status))
        self._span.end()


class Tracing:
    """Maker of spans."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        # Figures are at `/metrics` and lines in the log: neither is sent once more.
        self._handler = TelemetryHandler(provider, NoOpMeterProvider(), NoOpLoggerProvider(), instrumentation_scope_name=SCOPE)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=provider)

    def start_request(self, method: str, route: str, path: str, headers: Mapping[str, str]) -> RequestSpan:
        """Begin the span of a request, in its caller's trace; spans of calls that the running task makes are within it."""
        context = PROPAGATOR.extract(headers, Context())
        attributes = {
            HTTP_REQUEST_METHOD: method,
            HTTP_ROUTE: route,
            URL_SCHEME: "http",
            URL_PATH: clean(path, MAX_NAME_CHARACTERS),
        }
        span = self._tracer.start_span(f"{method} {route}", context, SpanKind.SERVER, attributes)
        attach(trace.set_span_in_context(span, context))  # for good: a request's task ends with it
        return RequestSpan(span)

    def start_call(self, call: Call, address: str | None, *, is_streamed: bool, is_alone: bool) -> CallSpan:
        """Begin the span of a call.

        Args:
            call: the call.
            address: of its provider; `None` for a model of this process.
            is_streamed: the provider streams its answer.
            is_alone: the span begins a trace of its own.
        """
        task, target, (host, port) = call.query.task, call.target, _split_address(address)
        provider = clean(target.provider or UNKNOWN, MAX_NAME_CHARACTERS)
        model = clean(target.model or target.name, MAX_NAME_CHARACTERS)
        context = Context() if is_alone else None
        invocation: EmbeddingInvocation | InferenceInvocation
        if task == "embed":
            invocation = self._handler.embedding(
                provider, request_model=model, server_address=host, server_port=port, context=context
            )
        else:
            answer = "chat" if call.query.messages is not None else "text_completion"
            invocation = self._handler.inference(
                provider,
                request_model=model,
                server_address=host,
                server_port=port,
                operation_name=answer if task == "answer" else task,
                context=context,
            )
        invocation.suspend()  # a call may end in another task than it began in
        return CallSpan(invocation, is_streamed=is_streamed, keeps_content=self._handler.should_capture_content())


@lru_cache(maxsize=256)
def _split_address(address: str | None) -> tuple[str | None, int | None]:
    url = URL(address) if address else None
    return (url.host, url.port) if url else (None, None)


@asynccontextmanager
async def open_spans() -> AsyncGenerator[Tracing]:
    """Open the maker of spans: into the provider of the program that Fanout is part of, if it has set one, else by OTLP.

    Raises:
        ConfigError: OpenTelemetry's variables ask for what spans cannot do.
    """
    if get_content_capturing_mode() is ContentCapturingMode.EVENT_ONLY:
        sentence = "is `EVENT_ONLY`; Fanout writes spans alone: `SPAN_ONLY` puts prompts and answers into them"
        raise ConfigError("environment", [Fault(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT, sentence)])
    given = trace.get_tracer_provider()
    if isinstance(given, TracerProvider):
        yield Tracing(given)
        return
    provider = TracerProvider(resource=_name_service(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    logger, handler = logging.getLogger("opentelemetry"), _ExportLog()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield Tracing(provider)
    finally:
        await _close(provider)
        logger.propagate = True
        logger.removeHandler(handler)


def _name_service() -> Resource:
    resource = Resource.create()
    is_named = not str(resource.attributes[SERVICE_NAME]).startswith("unknown_service")
    return resource if is_named else resource.merge(Resource({SERVICE_NAME: "fanout"}))


async def _close(provider: TracerProvider) -> None:
    """Send the last spans, but do not wait for a collector that takes none."""
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def shut_down() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(closed.set)

    # A daemon, not one of our pools, whose threads the end of the process would wait for.
    threading.Thread(target=shut_down, name="traces", daemon=True).start()
    try:
        await asyncio.wait_for(closed.wait(), CLOSE_TIMEOUT_S)
    except TimeoutError:
        log.warning("traces.given_up")


class _ExportLog(logging.Handler):
    """OpenTelemetry's complaints as an event of ours."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._failed = LogOnce("traces.export_failed")

    def emit(self, record: logging.LogRecord) -> None:
        """Log that spans could not be sent."""
        self._failed.write(reason=record.getMessage()[:200])
