"""Metrics: an observer that counts, and the Prometheus text of `/metrics`, made in a thread on request.

Names follow OpenTelemetry's semantic conventions for GenAI and HTTP where one exists, in Prometheus spelling.
Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest

from fanout.config.catalogue import Catalogue
from fanout.core.schema import Completion, Failure, Kind, Outcome, Retry
from fanout.core.threads import run_in_thread
from fanout.limits.limiter import LimiterSnapshot
from fanout.observability.backlog import AccountBacklog
from fanout.observability.series import Exported, Labels, Metric, make_gauge

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

CALL_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


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
        self._duration = Metric("histogram", name, text, (*CALL_LABELS, "error_type"), DURATIONS_S)
        text = "From the start of a streamed call's attempt to its first content"
        name = "gen_ai_client_operation_time_to_first_chunk_seconds"
        self._first = Metric("histogram", name, text, CALL_LABELS, DURATIONS_S)
        by_type = (*CALL_LABELS, "gen_ai_token_type")
        self._tokens = Metric("histogram", "gen_ai_client_token_usage", "Tokens of a call", by_type, TOKENS)
        text = "Waiting for the limits set here"
        self._queue = Metric("histogram", "fanout_call_queue_wait_seconds", text, CALL_LABELS, WAITS_S)
        text = "A call's time in hooks, before and after it together"
        self._hooks = Metric("histogram", "fanout_call_hooks_seconds", text, CALL_LABELS, WAITS_S)
        text = "Further attempts, by what the one before failed with"
        self._retries = Metric("counter", "fanout_call_retries_total", text, (*CALL_LABELS, "error_type"))
        self._cost = Metric("counter", "fanout_call_cost_usd_total", "Known cost of answered calls", CALL_LABELS)
        by_route = ("http_request_method", "http_route", "http_response_status_code")
        name = "http_server_request_duration_seconds"
        self._requests = Metric("histogram", name, "HTTP requests served", by_route, DURATIONS_S)
        text = "A request's time beyond its slowest call"
        self._overhead = Metric("histogram", "fanout_request_overhead_seconds", text, ("http_route",), WAITS_S)
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

    def observe(self, *events: Outcome | Retry) -> None:
        """Count retries and the ends of calls, as an observer of the Dispatcher."""
        for event in events:
            target = event.call.target
            operation = "chat" if event.call.query.messages is not None else "text_completion"
            # An unknown name has no provider, and one without an entry may be anything: no text of a caller becomes a label.
            model = target.model or ""
            named = model if (target.provider, model) in self._entries else OTHER
            labels = (operation, target.provider or "", named if target.provider else "")
            if isinstance(event, Retry):
                self._retries.add((*labels, event.failure.kind))
            else:
                self._count_end(labels, event)

    def _count_end(self, labels: Labels, outcome: Outcome) -> None:
        result, timing = outcome.result, outcome.timing
        # A day in a batch says nothing of the model, and neither does a refused call's zero of how long the others waited.
        if not timing.in_batch:
            self._duration.observe((*labels, result.kind if isinstance(result, Failure) else ""), timing.total_s)
            if timing.attempts or timing.queued_s:
                self._queue.observe(labels, timing.queued_s)
        if timing.hooks_s is not None:
            self._hooks.observe(labels, timing.hooks_s)
        if timing.first_token_s is not None:
            self._first.observe(labels, timing.first_token_s)
        if isinstance(result, Completion) and (usage := result.usage) is not None:
            if usage.input_tokens is not None:
                self._tokens.observe((*labels, "input"), usage.input_tokens)
            if usage.output_tokens is not None:
                self._tokens.observe((*labels, "output"), usage.output_tokens)
        if outcome.cost is not None:
            self._cost.add(labels, outcome.cost.usd)

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

    def _read_all(self) -> list[Metric]:
        counted = [metric.snapshot() for metric in vars(self).values() if isinstance(metric, Metric)]
        return counted + self._read_gauges()

    def _render_text(self, metrics: Sequence[Metric]) -> bytes:
        return "".join(line for metric in metrics for line in metric.to_lines()).encode() + generate_latest(self._process)

    def _read_gauges(self) -> list[Metric]:
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
            make_gauge("fanout_calls_in_flight", "Calls upstream now", account, in_flight),
            make_gauge("fanout_calls_waiting", "Calls waiting for limits", ("account", "priority"), waiting),
            make_gauge("fanout_account_pause_seconds", pause_help, account, paused_s, "max"),
            make_gauge("fanout_account_open_circuits", circuits_help, account, open_circuits, "max"),
            *self._read_backlog(),
        ]

    def _read_backlog(self) -> list[Metric]:
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
        # They are of all processes together, so each of several behind one port has the same: the greatest, not the sum.
        return [
            make_gauge("fanout_backlog_units", "Units that the jobs of all processes have left", account, units, "max"),
            make_gauge("fanout_backlog_seconds", seconds_help, account, seconds, "max"),
            make_gauge("fanout_backlog_least_seconds", "Time for these at the account's limit", account, least_seconds, "max"),
            make_gauge("fanout_workers", "Processes that take its jobs", account, workers, "max"),
        ]
