"""What `/metrics` shows: an observer that counts, and the Prometheus text made in a thread when somebody asks.

Names follow OpenTelemetry's semantic conventions for GenAI and HTTP where one exists, in Prometheus spelling.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fanout.limits import LimiterState
from fanout.schema import Completion, Failure, Outcome, Retry

DURATIONS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
WAITS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
MOST_SERIES = 1_000
"""Callers choose model ids: past so many label sets of one metric the rest is counted as `other`."""
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Any other is `_OTHER`, as OpenTelemetry has it: callers write methods of their own."""

Labels = tuple[str, ...]
CALL_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


class _Histogram:
    """Counts by bucket. prometheus-client's own takes a lock for every figure, 2 µs each; one thread needs none."""

    def __init__(self, name: str, text: str, labels: Labels, buckets: tuple[float, ...]) -> None:
        self.name, self.text, self.labels, self.buckets = name, text, labels, buckets
        self.series: dict[Labels, list[float]] = {}

    def observe(self, labels: Labels, value: float) -> None:
        series = self.series.get(labels)
        if series is None:
            series = self.series.setdefault(_bounded(self.series, labels), [0.0] * (len(self.buckets) + 2))
        series[bisect_left(self.buckets, value)] += 1
        series[-1] += value

    def snapshot(self) -> _Histogram:
        """As it is now; whoever reads it need not be on the event loop."""
        copy = _Histogram(self.name, self.text, self.labels, self.buckets)
        copy.series = {labels: series.copy() for labels, series in self.series.items()}
        return copy

    def family(self) -> Metric:
        family = HistogramMetricFamily(self.name, self.text, labels=self.labels)
        for labels, series in self.series.items():
            total, buckets = 0.0, []
            for bound, count in zip((*map(str, self.buckets), "+Inf"), series, strict=False):
                total += count
                buckets.append((bound, total))
            family.add_metric(labels, buckets, series[-1])
        return family


class _Counter:
    def __init__(self, name: str, text: str, labels: Labels) -> None:
        self.name, self.text, self.labels = name, text, labels
        self.series: dict[Labels, float] = {}

    def add(self, labels: Labels, value: float = 1.0) -> None:
        if labels not in self.series:
            labels = _bounded(self.series, labels)
        self.series[labels] = self.series.get(labels, 0.0) + value

    def snapshot(self) -> _Counter:
        copy = _Counter(self.name, self.text, self.labels)
        copy.series = self.series.copy()
        return copy

    def family(self) -> Metric:
        family = CounterMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in self.series.items():
            family.add_metric(labels, value)
        return family


class Metrics:
    """Counts calls (as an observer of the Dispatcher) and HTTP requests; `page` shows them."""

    def __init__(self) -> None:
        self.limiters: Callable[[], Iterable[tuple[str, LimiterState]]] = tuple
        """Where the limiters' states are read from, once a Dispatcher is open."""
        self._duration = _Histogram(
            "gen_ai_client_operation_duration_seconds",
            "A call's time, queue and retries included; error_type is empty where it was answered",
            (*CALL_LABELS, "error_type"),
            DURATIONS_S,
        )
        self._first = _Histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "From the start of a streamed call's attempt to its first content",
            CALL_LABELS,
            DURATIONS_S,
        )
        self._tokens = _Histogram("gen_ai_client_token_usage", "Tokens of a call", (*CALL_LABELS, "gen_ai_token_type"), TOKENS)
        self._queue = _Histogram("fanout_call_queue_wait_seconds", "Waiting for the limits set here", CALL_LABELS, WAITS_S)
        self._retries = _Counter(
            "fanout_call_retries", "Further attempts, by what the one before failed with", (*CALL_LABELS, "error_type")
        )
        self._cost = _Counter("fanout_call_cost_usd", "Known cost of answered calls", CALL_LABELS)
        self._requests = _Histogram(
            "http_server_request_duration_seconds",
            "HTTP requests served",
            ("http_request_method", "http_route", "http_response_status_code"),
            DURATIONS_S,
        )
        self._overhead = _Histogram(
            "fanout_request_overhead_seconds", "A request's time beyond its slowest call", ("http_route",), WAITS_S
        )
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def observe(self, event: Outcome | Retry) -> None:
        """An observer of the Dispatcher."""
        target = event.call.target
        operation = "chat" if event.call.query.messages is not None else "text_completion"
        # An unknown name has no provider: the caller's text is no label.
        labels = (operation, target.provider, target.model or "") if target.provider else (operation, "", "")
        if isinstance(event, Retry):
            self._retries.add((*labels, event.failure.kind))
            return
        result, timing = event.result, event.timing
        self._duration.observe((*labels, result.kind if isinstance(result, Failure) else ""), timing.total_s)
        if timing.attempts or timing.queued_s:
            self._queue.observe(labels, timing.queued_s)
        if timing.first_token_s is not None:
            self._first.observe(labels, timing.first_token_s)
        if isinstance(result, Completion) and result.usage:
            for kind, tokens in (("input", result.usage.input_tokens), ("output", result.usage.output_tokens)):
                if tokens is not None:
                    self._tokens.observe((*labels, kind), tokens)
        if event.cost:
            self._cost.add(labels, event.cost.usd)

    def served(self, method: str, route: str, status: int, seconds: float, overhead_s: float | None) -> None:
        """One HTTP request."""
        self._requests.observe((method if method in METHODS else "_OTHER", route, str(status)), seconds)
        if overhead_s is not None:
            self._overhead.observe((route,), overhead_s)

    async def page(self) -> bytes:
        """Prometheus' text. Made in a thread: 50 models are 4,000 lines, which take 40 ms (2026-11-20)."""
        counted = (
            self._duration,
            self._first,
            self._tokens,
            self._queue,
            self._retries,
            self._cost,
            self._requests,
            self._overhead,
        )
        figures = _Figures([figure.snapshot() for figure in counted], list(self._limiter_gauges()))
        return await asyncio.to_thread(self._text, figures)

    def _text(self, figures: _Figures) -> bytes:
        registry = CollectorRegistry()
        registry.register(figures)
        return generate_latest(registry) + generate_latest(self._process)

    def _limiter_gauges(self) -> Iterator[Metric]:
        flying = GaugeMetricFamily("fanout_calls_in_flight", "Calls upstream now", labels=["account"])
        waiting = GaugeMetricFamily("fanout_calls_waiting", "Calls waiting for limits", labels=["account", "priority"])
        paused = GaugeMetricFamily(
            "fanout_account_pause_seconds", "How long the account rests, as it asked", labels=["account"]
        )
        for account, state in self.limiters():
            flying.add_metric([account], state.in_flight)
            waiting.add_metric([account, "interactive"], state.waiting - state.waiting_batch)
            waiting.add_metric([account, "batch"], state.waiting_batch)
            paused.add_metric([account], state.paused_s)
        yield from (flying, waiting, paused)


class _Figures(Collector):
    """What prometheus-client makes its text of."""

    def __init__(self, counted: Sequence[_Histogram | _Counter], gauges: Sequence[Metric]) -> None:
        self._counted, self._gauges = counted, gauges

    def collect(self) -> Iterator[Metric]:
        yield from (figure.family() for figure in self._counted)
        yield from self._gauges


def _bounded(series: Mapping[Labels, object], labels: Labels) -> Labels:
    return labels if len(series) < MOST_SERIES else ("other",) * len(labels)
