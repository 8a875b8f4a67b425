"""Metrics: an observer that counts, and the Prometheus text of `/metrics`, made in a thread on request.

Names follow OpenTelemetry's semantic conventions for GenAI and HTTP where one exists, in Prometheus spelling.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from typing_extensions import TypedDict

from fanout.config.catalogue import Catalogue
from fanout.core.schema import Completion, Failure, Kind, Outcome, Retry
from fanout.core.threads import run_in_thread
from fanout.limits.limiter import LimiterSnapshot
from fanout.observability.backlog import AccountBacklog

DURATIONS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
WAITS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
OTHER = "other"
"""Label of all of a provider's models without an entry: callers invent names, and some servers answer to every one."""
OPERATIONS: Mapping[Kind, tuple[str, ...]] = {
    "chat": ("chat",),
    "text": ("text_completion",),
    "both": ("chat", "text_completion"),
}
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""HTTP methods that have a label; any other is `_OTHER`, as in OpenTelemetry, for callers may invent methods."""

IDLE = LimiterSnapshot(0, 0, 0, 0.0, (), 0)
"""Of an account that has not been called yet."""

Labels = tuple[str, ...]
CALL_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


Merge = Literal["sum", "max"]
"""How the values of several processes become one."""


class ExportedMetric(TypedDict):
    """One metric as another process reads it."""

    kind: str
    name: str
    help: str
    labels: list[str]
    buckets: list[float]
    merge: Merge
    series: list[tuple[list[str], list[float]]]


class Exported(TypedDict):
    """All metrics of a process."""

    metrics: list[ExportedMetric]


@dataclass(slots=True)
class _Metric:
    """One metric."""

    # Prometheus-client's own takes a lock for every value, 2 µs each, and 9 µs to write a line; this one takes 0.5.

    kind: str
    name: str
    help: str
    labels: Labels
    buckets: tuple[float, ...] = ()
    series: dict[Labels, list[float]] = field(default_factory=dict)
    """By labels: the value of a counter or gauge; of a histogram the counts of the buckets, of those beyond, and the sum."""
    merge: Merge = "sum"

    def add(self, labels: Labels, value: float = 1.0) -> None:
        """Add to a counter."""
        (self.series.get(labels) or self._start_series(labels))[0] += value

    def observe(self, labels: Labels, value: float) -> None:
        """Count a value in its bucket."""
        series = self.series.get(labels) or self._start_series(labels)
        series[bisect_left(self.buckets, value)] += 1
        series[-1] += value

    def snapshot(self) -> _Metric:
        """Return a copy that may be read outside the event loop."""
        return replace(self, series={labels: series.copy() for labels, series in self.series.items()})

    def to_lines(self) -> Iterator[str]:
        """Yield the metric in the text format."""
        # Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
        yield f"# HELP {self.name} {self.help}\n# TYPE {self.name} {self.kind}\n"
        for labels, series in self.series.items():
            given = ",".join(f'{name}="{_escape(value)}"' for name, value in zip(self.labels, labels, strict=True))
            if not self.buckets:
                yield f"{self.name}{{{given}}} {series[0]}\n"
                continue
            total = 0.0
            for bound, count in zip((*self.buckets, "+Inf"), series, strict=False):
                total += count
                yield f'{self.name}_bucket{{{given},le="{bound}"}} {total}\n'
            yield f"{self.name}_count{{{given}}} {total}\n{self.name}_sum{{{given}}} {series[-1]}\n"

    def start(self, labels: Labels) -> None:
        """Show a series before anything is counted in it."""
        self._start_series(labels)

    def _start_series(self, labels: Labels) -> list[float]:
        return self.series.setdefault(labels, [0.0] * (len(self.buckets) + 2 if self.buckets else 1))

    def export(self) -> ExportedMetric:
        """Return the metric for another process."""
        return {
            "kind": self.kind,
            "name": self.name,
            "help": self.help,
            "labels": [*self.labels],
            "buckets": [*self.buckets],
            "merge": self.merge,
            "series": [([*labels], series) for labels, series in self.series.items()],
        }

    def take(self, exported: ExportedMetric) -> None:
        """Add the values of another process."""
        for given, values in exported["series"]:
            labels = tuple(given)
            series = self.series.get(labels) or self._start_series(labels)
            join = max if self.merge == "max" else float.__add__
            series[:] = [join(float(own), float(other)) for own, other in zip(series, values, strict=True)]


def merge(processes: Sequence[Exported]) -> Exported:
    """Return the metrics of several processes as those of one."""
    merged: dict[str, _Metric] = {}
    for process in processes:
        for one in process["metrics"]:
            if one["name"] not in merged:
                start = _Metric(one["kind"], one["name"], one["help"], tuple(one["labels"]), tuple(one["buckets"]))
                start.merge = one["merge"]
                merged[one["name"]] = start
            merged[one["name"]].take(one)
    return {"metrics": [metric.export() for metric in merged.values()]}


def render_lines(process: Exported) -> Iterator[str]:
    """Yield metrics in the text format."""
    for one in process["metrics"]:
        metric = _Metric(one["kind"], one["name"], one["help"], tuple(one["labels"]), tuple(one["buckets"]))
        metric.take(one)
        yield from metric.to_lines()


def _gauge(name: str, text: str, labels: Labels, values: Mapping[Labels, float], merge: Merge = "sum") -> _Metric:
    return _Metric("gauge", name, text, labels, series={given: [value] for given, value in values.items()}, merge=merge)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def name_method(method: str) -> str:
    """Return the label of an HTTP method."""
    return method if method in METHODS else "_OTHER"


class Metrics:
    """Counts of calls, made as an observer of the Dispatcher, and of HTTP requests."""

    def __init__(self) -> None:
        self.limiters: Callable[[], Iterable[tuple[str, LimiterSnapshot]]] = tuple
        """Source of the limiters' states, set once a Dispatcher is open."""
        self.backlog: Callable[[], Mapping[str, AccountBacklog]] = dict
        """Source of each account's backlog, set where processes share a store."""
        self._accounts: tuple[str, ...] = ()
        self._entries: frozenset[tuple[str, str]] = frozenset()
        text = "A call's time, queue and retries included; error_type is empty where it was answered"
        name = "gen_ai_client_operation_duration_seconds"
        self._duration = _Metric("histogram", name, text, (*CALL_LABELS, "error_type"), DURATIONS_S)
        text = "From the start of a streamed call's attempt to its first content"
        name = "gen_ai_client_operation_time_to_first_chunk_seconds"
        self._first = _Metric("histogram", name, text, CALL_LABELS, DURATIONS_S)
        by_type = (*CALL_LABELS, "gen_ai_token_type")
        self._tokens = _Metric("histogram", "gen_ai_client_token_usage", "Tokens of a call", by_type, TOKENS)
        text = "Waiting for the limits set here"
        self._queue = _Metric("histogram", "fanout_call_queue_wait_seconds", text, CALL_LABELS, WAITS_S)
        text = "A call's time in hooks, before and after it together"
        self._hooks = _Metric("histogram", "fanout_call_hooks_seconds", text, CALL_LABELS, WAITS_S)
        text = "Further attempts, by what the one before failed with"
        self._retries = _Metric("counter", "fanout_call_retries_total", text, (*CALL_LABELS, "error_type"))
        self._cost = _Metric("counter", "fanout_call_cost_usd_total", "Known cost of answered calls", CALL_LABELS)
        by_route = ("http_request_method", "http_route", "http_response_status_code")
        name = "http_server_request_duration_seconds"
        self._requests = _Metric("histogram", name, "HTTP requests served", by_route, DURATIONS_S)
        text = "A request's time beyond its slowest call"
        self._overhead = _Metric("histogram", "fanout_request_overhead_seconds", text, ("http_route",), WAITS_S)
        # A registry of our own: the global one would mix in what other libraries register.
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def expect(self, catalogue: Catalogue) -> None:
        """Give the models of the configuration their labels, and show those that can be called before their first call."""
        self._entries = frozenset((model.provider, model.id) for model in catalogue)
        ready = [model for model in catalogue if not catalogue.lacks(model)]
        self._accounts = tuple(dict.fromkeys(model.provider for model in ready))
        for model in ready:
            for operation in OPERATIONS[model.kind]:
                self._duration.start((operation, model.provider, model.id, ""))

    def observe(self, event: Outcome | Retry) -> None:
        """Count a retry or the end of a call, as an observer of the Dispatcher."""
        target = event.call.target
        operation = "chat" if event.call.query.messages is not None else "text_completion"
        # An unknown name has no provider, and one without an entry may be anything: no text of a caller becomes a label.
        model = target.model or ""
        named = model if (target.provider, model) in self._entries else OTHER
        labels = (operation, target.provider or "", named if target.provider else "")
        if isinstance(event, Retry):
            self._retries.add((*labels, event.failure.kind))
            return
        result, timing = event.result, event.timing
        # A day in a batch says nothing of the model, and neither does a refused call's zero of how long the others waited.
        if not timing.in_batch:
            self._duration.observe((*labels, result.kind if isinstance(result, Failure) else ""), timing.total_s)
        if (timing.attempts or timing.queued_s) and not timing.in_batch:
            self._queue.observe(labels, timing.queued_s)
        if timing.hooks_s is not None:
            self._hooks.observe(labels, timing.hooks_s)
        if timing.first_token_s is not None:
            self._first.observe(labels, timing.first_token_s)
        if isinstance(result, Completion) and result.usage:
            for kind, tokens in (("input", result.usage.input_tokens), ("output", result.usage.output_tokens)):
                if tokens is not None:
                    self._tokens.observe((*labels, kind), tokens)
        if event.cost:
            self._cost.add(labels, event.cost.usd)

    def record_request(self, method: str, route: str, status: int, seconds: float, overhead_s: float | None) -> None:
        """Count an HTTP request."""
        self._requests.observe((name_method(method), route, str(status)), seconds)
        if overhead_s is not None:
            self._overhead.observe((route,), overhead_s)

    async def render(self) -> bytes:
        """Return the page."""
        # In a thread, of copies: for 500 models the page has 40,000 lines, which would hold up every call.
        return await run_in_thread("figures", self._render_text, self._read_all())

    def export(self) -> Exported:
        """Return all metrics as they are now, for another process."""
        return {"metrics": [metric.export() for metric in self._read_all()]}

    def _read_all(self) -> list[_Metric]:
        counted = [metric.snapshot() for metric in vars(self).values() if isinstance(metric, _Metric)]
        return counted + self._read_gauges()

    def _render_text(self, metrics: Sequence[_Metric]) -> bytes:
        return "".join(line for metric in metrics for line in metric.to_lines()).encode() + generate_latest(self._process)

    def _read_gauges(self) -> list[_Metric]:
        states = list(self.limiters())
        called = {name for name, _ in states}
        states += [(name, IDLE) for name in self._accounts if name not in called]
        waiting: dict[Labels, float] = {(name, "interactive"): state.waiting - state.waiting_batch for name, state in states}
        waiting |= {(name, "batch"): state.waiting_batch for name, state in states}
        account = ("account",)
        in_flight: dict[Labels, float] = {(name,): state.in_flight for name, state in states}
        paused_s: dict[Labels, float] = {(name,): state.paused_s for name, state in states}
        open_circuits: dict[Labels, float] = {(name,): state.open_circuits for name, state in states}
        circuits_help = "Models, or the whole account, that are not called because their calls keep failing"
        pause_help = "Time until the account may be called again, as it requested"
        return [
            _gauge("fanout_calls_in_flight", "Calls upstream now", account, in_flight),
            _gauge("fanout_calls_waiting", "Calls waiting for limits", ("account", "priority"), waiting),
            _gauge("fanout_account_pause_seconds", pause_help, account, paused_s, "max"),
            _gauge("fanout_account_open_circuits", circuits_help, account, open_circuits, "max"),
            *self._read_backlog(),
        ]

    def _read_backlog(self) -> list[_Metric]:
        units: dict[Labels, float] = {}
        seconds: dict[Labels, float] = {}
        least_seconds: dict[Labels, float] = {}
        workers: dict[Labels, float] = {}
        for name, backlog in self.backlog().items():
            units[(name,)], workers[(name,)] = backlog.units, backlog.workers
            if backlog.seconds is not None:
                seconds[(name,)] = backlog.seconds
            if backlog.least_seconds is not None:
                least_seconds[(name,)] = backlog.least_seconds
        account, seconds_help = ("account",), "Time for these at their recent rate, or without one at the account's limit"
        return [
            _gauge("fanout_backlog_units", "Units that the jobs of all processes have left", account, units, "max"),
            _gauge("fanout_backlog_seconds", seconds_help, account, seconds, "max"),
            _gauge("fanout_backlog_least_seconds", "Time for these at the account's limit", account, least_seconds, "max"),
            _gauge("fanout_workers", "Processes that take its jobs", account, workers, "max"),
        ]
