"""The spans of calls, where traces are on; nothing of OpenTelemetry is imported otherwise."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, Fault, explain_missing_extra
from fanout.dispatch.in_flight import InFlightCall
from fanout.limits.queue import Priority
from fanout.providers.transport.trace_context import TRACE_CONTEXT

if TYPE_CHECKING:
    from fanout.observability.tracing import Tracing


@asynccontextmanager
async def open_tracing(*, is_on: bool) -> AsyncGenerator[Tracing | None]:
    """Open the maker of spans, whose last ones are exported at the end.

    Raises:
        ConfigError: a package is missing, or OpenTelemetry's variables cannot be followed.
    """
    if not is_on:
        yield None
        return
    try:
        from fanout.observability.tracing import open_spans
    except ImportError as error:
        sentence = f"needs {explain_missing_extra('opentelemetry-util-genai', 'otel')}"
        raise ConfigError("environment", [Fault("FANOUT_TRACES", sentence)]) from error
    async with open_spans() as tracing:
        yield tracing


def begin_span(running: InFlightCall, tracing: Tracing, settings: Settings) -> None:
    """Begin a call's span, within the span of its request; a job's calls have none, since its request has long ended."""
    provider = settings.providers.get(running.call.target.provider or "")
    running.span = tracing.start_call(
        running.call,
        provider.base_url if provider else None,
        is_streamed=running.inbox is not None,
        is_alone=running.priority is Priority.BATCH,
    )
    TRACE_CONTEXT.set(running.span.headers)
