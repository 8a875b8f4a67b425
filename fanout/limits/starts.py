"""Limits on starts: in any period, one by one or in slices of it, and on how fast they may rise."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Protocol

from asyncio_throttle import Throttler

from fanout.limits.arrivals import MARGIN_S, add_skew
from fanout.limits.tokens import TokenWindow

MAX_LOGGED_STARTS = 10_000
"""Of a limit above it, starts are counted in slices of the period: each entry of a log takes 32 bytes."""


class StartCounter(Protocol):
    """A limit on starts."""

    def compute_wait_s(self, now: float, slots: int = 1) -> float:
        """Return the wait until `slots` more starts fit if nobody else starts; 0 when they fit now."""

    def reserve(self) -> None:
        """Keep a place for a start."""

    def count(self, now: float) -> None:
        """Count a start that was reserved."""

    def give_back(self) -> None:
        """Free the place of a start that was never made."""

    def take_over(self, others: Iterable[StartCounter], reserved: int) -> None:
        """Count on what the account's counters have counted under other limits, and the starts that have permits."""


class StartWindow(Throttler):
    """asyncio-throttle's log of the last period, which computes its next opening instead of being polled every 10 ms.

    A start is reserved when its permit is granted, and logged when its request has left: on a new connection that is later.
    """

    def __init__(self, limit: int, period_s: float) -> None:
        super().__init__(limit, period=add_skew(period_s))
        self.reserved = 0

    def compute_wait_s(self, now: float, slots: int = 1) -> float:
        """Return the wait until `slots` more starts fit if nobody else starts; 0 when they fit now."""
        log = self._task_logs
        while log and now - log[0] > self.period:  # as `flush`, which every call would pay for
            log.popleft()
        excess = len(log) + self.reserved + slots - self.rate_limit
        if excess <= 0:
            return 0.0
        if excess <= len(log):
            return float(max(log[excess - 1] + self.period - now, 0.0) + MARGIN_S)
        # Past one period the log repeats itself: a slot that is taken now opens again one period later.
        periods, place = divmod(excess - 1, self.rate_limit)
        start = log[place] if place < len(log) else now
        return float(max(start + self.period * (1 + periods) - now, 0.0) + MARGIN_S)

    def take_over(self, others: Iterable[StartCounter], reserved: int) -> None:
        """See `StartCounter.take_over`."""
        self.reserved = reserved
        # The newest alone: whatever was counted under a limit of millions must not become an entry each.
        newest = deque(chain.from_iterable(repeat(*start) for start in list_starts(others)), maxlen=MAX_LOGGED_STARTS)
        self._task_logs.extend(newest)

    def list_starts(self) -> Iterator[tuple[float, int]]:
        """Yield the times of starts that were counted, oldest first, and how many there were."""
        return ((at, 1) for at in self._task_logs)

    def reserve(self) -> None:
        """Keep a place for a start."""
        self.reserved += 1

    def count(self, now: float) -> None:
        """Log a start that was reserved."""
        self.reserved -= 1
        self._task_logs.append(now)

    def give_back(self) -> None:
        """Free the place of a start that was never made."""
        self.reserved -= 1


class StartSlices:
    """The starts of the last period under a limit of very many, in slices of it: see `TokenWindow`."""

    def __init__(self, limit: int, period_s: float) -> None:
        self._window = TokenWindow(limit, period_s)

    def compute_wait_s(self, now: float, slots: int = 1) -> float:
        """See `StartCounter.compute_wait_s`."""
        return self._window.compute_wait_s(now, slots)

    def reserve(self) -> None:
        """See `StartCounter.reserve`."""
        self._window.reserved += 1

    def count(self, now: float) -> None:
        """See `StartCounter.count`."""
        self._window.count(now, 1)

    def give_back(self) -> None:
        """See `StartCounter.give_back`."""
        self._window.reserved -= 1

    def take_over(self, others: Iterable[StartCounter], reserved: int) -> None:
        """See `StartCounter.take_over`."""
        for at, starts in list_starts(others):
            self._window.reserve(starts)
            self._window.count(at, starts)
        self._window.reserved = reserved

    def list_starts(self) -> Iterator[tuple[float, int]]:
        """Yield the times of starts that were counted, oldest first, and how many there were."""
        return self._window.list_starts()


def list_starts(counters: Iterable[StartCounter]) -> Iterable[tuple[float, int]]:
    """Return what the first of some counters has counted in its last period, which is the longest of theirs."""
    # What is too old for a shorter one leaves it at once.
    found = next((counter for counter in counters if isinstance(counter, StartWindow | StartSlices)), None)
    return found.list_starts() if found else ()


def open_window(limit: int, period_s: float) -> StartCounter:
    """Return the counter of starts in any period."""
    return (StartWindow if limit <= MAX_LOGGED_STARTS else StartSlices)(limit, period_s)


class StartRamp:
    """A slope: in each period at most twice the starts of the one before, at least half of what was allowed then.

    Some providers refuse a sudden rise of an account whose limits are far above it.
    """

    def __init__(self, starts: int, period_s: float) -> None:
        self._least, self._period_s = starts, period_s
        self._allowed, self._started = float(starts), 0
        self._ends_at: float | None = None
        """End of the current period; `None` before the first start."""
        self.reserved = 0

    def compute_wait_s(self, now: float, slots: int = 1) -> float:
        """See `StartCounter.compute_wait_s`."""
        self._turn(now)
        allowed, excess = self._allowed, self._started + self.reserved + slots - self._allowed
        if excess <= 0:
            return 0.0
        # None has left yet: the period begins when one does.
        wait_s = (self._period_s if self._ends_at is None else self._ends_at - now) + MARGIN_S
        while (excess := excess - (allowed := 2 * allowed)) > 0:
            wait_s += self._period_s
        return wait_s

    def reserve(self) -> None:
        """See `StartCounter.reserve`."""
        self.reserved += 1

    def count(self, now: float) -> None:
        """See `StartCounter.count`."""
        self._turn(now)
        if self._ends_at is None:
            self._ends_at = now + self._period_s
        self.reserved -= 1
        self._started += 1

    def give_back(self) -> None:
        """See `StartCounter.give_back`."""
        self.reserved -= 1

    def take_over(self, others: Iterable[StartCounter], reserved: int) -> None:
        """See `StartCounter.take_over`."""
        self.reserved = reserved
        if other := next((other for other in others if isinstance(other, StartRamp)), None):
            self._allowed, self._started = max(other._allowed, self._allowed), other._started
            self._ends_at = other._ends_at

    def _turn(self, now: float) -> None:
        """Begin the period that `now` is in."""
        if self._ends_at is None or now < self._ends_at:
            return
        periods = 1 + int((now - self._ends_at) / self._period_s)
        warm = max(2 * self._started, self._allowed / 2)
        # Cooled down over the periods in which nothing started; far fewer halves than a float can hold.
        self._allowed, self._started = max(self._least, warm / 2 ** min(periods - 1, 64)), 0
        self._ends_at += periods * self._period_s
