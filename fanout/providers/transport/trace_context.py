"""The trace context that an attempt's request carries, to providers whose row has `trace_context`.

Source: https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

TRACE_CONTEXT: ContextVar[Mapping[str, str] | None] = ContextVar("trace_context", default=None)
"""Headers `traceparent` and `tracestate` of the call that the current task makes; `None` unless traces are on."""
