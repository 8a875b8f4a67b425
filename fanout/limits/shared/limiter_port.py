"""A limiter, as the share of its process reads and drives it."""

from __future__ import annotations

import time
from typing import Protocol

from fanout.limits.pauses import Pauses
from fanout.limits.queue import Gate, Priority, Waiter, WaitingCalls
from fanout.limits.shared.share import Backlog
from fanout.limits.token_estimates import TokenEstimates


class CountingGate(Gate, Protocol):
    """A gate that knows the calls in flight."""

    in_flight: int


class LimiterPort:
    """A limiter, as its share sees it."""

    def __init__(self, gate: CountingGate, waiting: WaitingCalls, pauses: Pauses, estimates: TokenEstimates) -> None:
        self._gate, self._waiting, self._pauses, self._estimates = gate, waiting, pauses, estimates

    def measure_backlog(self) -> Backlog:
        """Return the calls that wait and could start, and those in flight."""
        now, first = time.monotonic(), None
        calls, tokens = [0 for _ in Priority], [0 for _ in Priority]
        queues = {} if self._pauses.compute_wait_s(now, None) else self._waiting.by_model
        for model, queue in queues.items():
            waiter = queue.find_first()
            # A held model's calls could not use what they would be given, and others could.
            if waiter is None or self._gate.compute_hold_s(model, waiter.size, now):
                continue
            if first is None or _rank(waiter) < _rank(first):
                first = waiter
            for priority in Priority:
                calls[priority] += len(queue.by_priority[priority])
                tokens[priority] += queue.tokens[priority]
        need = self._estimates.compute_reservation(first.size, self._gate.in_flight) if first else 0
        if first and first.tokens:  # a queue foresees the least that its calls may use; what they reserve is more
            tokens = [max(amount, round(amount * need / first.tokens)) for amount in tokens]
        return Backlog(calls[0], calls[1], tokens[0], tokens[1], need, self._gate.in_flight)

    @property
    def has_queue(self) -> bool:
        """Calls are waiting."""
        return self._waiting.total > 0

    def hold(self, model: str | None, seconds: float, reason: str) -> None:
        """Take over a pause that another process has met."""
        self._pauses.add(time.monotonic(), model, seconds, reason)

    def pump(self) -> None:
        """Start what can start now."""
        self._waiting.pump()


def _rank(waiter: Waiter) -> tuple[int, int]:
    return waiter.priority, waiter.number
