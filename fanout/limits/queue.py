"""Calls that wait at one limiter: first in, first out within each priority, in a queue for each model.

Nothing here is a task. A waiter is a future; `WaitingCalls.pump`, a plain function, grants what can be granted whenever
something has changed (an arrival, an end, a timer set for the next opening), so 10,000 waiters cost nothing while they wait.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure
from fanout.limits.circuits import Circuit
from fanout.limits.token_estimates import CallSize
from fanout.limits.tokens import WindowSlice
from fanout.limits.upstream_quota import CallStart, UpstreamQuota

MAX_GRANTS_AT_ONCE = 32
"""Then those take their turn: of 600 at once, the first would leave, and count, only when the last is encoded."""


class Priority(IntEnum):
    """Rank of a waiting call; lower ranks are served first."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(slots=True, eq=False)
class Permit:
    """The right to one attempt; given back through `Limiter.release`."""

    quota: UpstreamQuota
    started: CallStart
    size: CallSize | None = None
    """`None` where no tokens are counted."""
    is_counted: bool = False
    """Its request has left, and counts from then on."""
    probed: tuple[Circuit, ...] = ()
    """Open circuits that it probes."""
    counted_in: WindowSlice | None = None
    """The part of the token window that holds its tokens."""


@dataclass(slots=True, eq=False)
class Waiter:
    """One waiting call. `number` is its place in the order of arrival."""

    number: int
    model: str
    size: CallSize | None
    tokens: int
    """The fewest that it may need, as foreseen at its arrival."""
    priority: Priority
    granted: asyncio.Future[Permit]


class Gate(Protocol):
    """The limits on which waiters wait. Waits are in seconds; an infinite wait ends when another call ends."""

    def compute_start_wait_s(self, now: float) -> float:
        """Return the wait until any call could start."""

    def compute_hold_s(self, model: str, size: CallSize | None, now: float) -> float:
        """Return the wait of this model's calls for reasons that do not affect other models."""

    def compute_room_wait_s(self, size: CallSize | None, now: float) -> float:
        """Return the wait until a call's tokens fit, for reasons that affect all models."""

    def grant(self, model: str, size: CallSize | None, now: float) -> Permit:
        """Start a call."""


class ModelWaiters:
    """The waiters for one model, by number of arrival."""

    def __init__(self) -> None:
        # OrderedDict, because any waiter can be removed in constant time, even when thousands leave at once.
        self.by_priority: tuple[OrderedDict[int, Waiter], ...] = tuple(OrderedDict() for _ in Priority)
        self.tokens = [0 for _ in Priority]

    def find_first(self) -> Waiter | None:
        """Return the waiter to serve first."""
        return next((waiter for waiters in self.by_priority for waiter in waiters.values()), None)

    def count_ahead(self, priority: Priority) -> tuple[int, int]:
        """Return the number of waiters served before a new waiter of this priority, and their tokens."""
        return sum(len(waiters) for waiters in self.by_priority[: priority + 1]), sum(self.tokens[: priority + 1])


class WaitingCalls:
    """All waiters of one limiter."""

    def __init__(self, gate: Gate) -> None:
        self.total = 0
        self.by_priority = [0 for _ in Priority]
        self.by_model: dict[str, ModelWaiters] = {}
        self._gate = gate
        self._tokens = [0 for _ in Priority]
        self._arrivals = 0
        self._timer: asyncio.Handle | None = None

    def add(self, model: str, size: CallSize | None, tokens: int, priority: Priority) -> Waiter:
        """Append a waiter to the queue of its model and priority."""
        self._arrivals += 1
        waiter = Waiter(self._arrivals, model, size, tokens, priority, asyncio.get_running_loop().create_future())
        queue = self.by_model.setdefault(model, ModelWaiters())
        queue.by_priority[priority][waiter.number] = waiter
        queue.tokens[priority] += tokens
        self.total += 1
        self.by_priority[priority] += 1
        self._tokens[priority] += tokens
        self.pump()
        return waiter

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter from its queue, if it is still there."""
        # A cancelled waiter may be removed by the pump and by its own task, in either order.
        queue = self.by_model.get(waiter.model)
        if queue and queue.by_priority[waiter.priority].pop(waiter.number, None):
            queue.tokens[waiter.priority] -= waiter.tokens
            self.total -= 1
            self.by_priority[waiter.priority] -= 1
            self._tokens[waiter.priority] -= waiter.tokens
            if not any(queue.by_priority):
                del self.by_model[waiter.model]  # callers choose model names, so empty queues would accumulate

    def refuse_interactive(self, model: str | None, failure: Failure) -> None:
        """End the wait of interactive calls of a model (`None`: of all) with a failure; those of jobs go on waiting."""
        queues = list(self.by_model.values()) if model is None else filter(None, [self.by_model.get(model)])
        for waiter in [one for queue in queues for one in queue.by_priority[Priority.INTERACTIVE].values()]:
            self.remove(waiter)
            if not waiter.granted.done():
                waiter.granted.set_exception(ProviderError(failure))

    def count_ahead(self, priority: Priority, model: str | None = None) -> tuple[int, int]:
        """Return the number of waiters served before a new waiter of a model (`None`: any model), and their tokens."""
        if model is None:
            return sum(self.by_priority[: priority + 1]), sum(self._tokens[: priority + 1])
        queue = self.by_model.get(model)
        return queue.count_ahead(priority) if queue else (0, 0)

    def pump(self) -> None:
        """Grant every call that can start now, and set the timer for the next opening."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        granted = 0
        while self.total:
            if granted == MAX_GRANTS_AT_ONCE:
                self._timer = asyncio.get_running_loop().call_soon(self.pump)
                return
            now = time.monotonic()
            waiter, wait = None, self._gate.compute_start_wait_s(now)
            if not wait:  # while no call may start, a search of the queues is useless
                waiter, wait = self._pick_next(now)
            if waiter and not wait:
                self.remove(waiter)
                waiter.granted.set_result(self._gate.grant(waiter.model, waiter.size, now))
                granted += 1
            else:
                if wait < math.inf:
                    # One timer for all waiters: only the next opening matters, and the pump sets the one after it.
                    self._timer = asyncio.get_running_loop().call_later(wait, self.pump)
                return

    def _pick_next(self, now: float) -> tuple[Waiter | None, float]:
        """Return the next waiter, skipping held models, and the wait until it can start."""
        first, hold_s = None, math.inf
        for model, queue in list(self.by_model.items()):
            while (waiter := queue.find_first()) and waiter.granted.done():  # cancelled, but its task has not run yet
                self.remove(waiter)
            if waiter is None:
                continue
            if held := self._gate.compute_hold_s(model, waiter.size, now):
                hold_s = min(hold_s, held)
            elif first is None or (waiter.priority, waiter.number) < (first.priority, first.number):
                first = waiter
        if first is None:
            return None, hold_s
        # When a hold ends, a call of its model may be first in line, or small enough to start earlier.
        return first, min(hold_s, self._gate.compute_room_wait_s(first.size, now))
