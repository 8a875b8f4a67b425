"""Time limits of attempts: one timer for all of a process's, since nearly every attempt ends long before its limit."""

from __future__ import annotations

import asyncio
import math
from types import TracebackType
from typing import Protocol, Self

MIN_INTERVAL_S = 0.01
"""Between two looks at all attempts, so that thousands with ends of their own cost no look each."""


class Expiring(Protocol):
    """Whatever has a limit."""

    def expire(self) -> None:
        """End it."""


class AttemptClock:
    """Maker of the limits. `asyncio.timeout` sets a timer for each: 6 µs a call, of which this leaves one (2026-11-27)."""

    __slots__ = ("_limits", "_next_at", "_timer")

    def __init__(self) -> None:
        self._limits: dict[Expiring, float] = {}
        """When each of them ends, on the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = math.inf

    def limit(self, seconds: float) -> TimeLimit:
        """Return a context that is cancelled after so many seconds, and then raises `TimeoutError`."""
        return TimeLimit(self, seconds)

    def add(self, limit: Expiring, ends_at: float) -> None:
        """Watch a limit, which ends then, on the loop's clock."""
        self._limits[limit] = ends_at
        # Attempts of one length end in the order of their start, so the timer is seldom set anew.
        if ends_at < self._next_at:
            self._set_timer(ends_at)

    def remove(self, limit: Expiring) -> None:
        """Watch a limit no more; the timer stays and finds what is left."""
        self._limits.pop(limit, None)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._expire)

    def _expire(self) -> None:
        """Cancel what has reached its limit, and set the timer for the next."""
        now, self._timer, self._next_at = asyncio.get_running_loop().time(), None, math.inf
        for limit in [limit for limit, ends_at in self._limits.items() if ends_at <= now]:
            self.remove(limit)
            limit.expire()
        if self._limits:
            self._set_timer(max(min(self._limits.values()), now + MIN_INTERVAL_S))


class TimeLimit:
    """The limit of one attempt, as `asyncio.timeout` has it: a cancellation by anybody else stays one."""

    __slots__ = ("_cancelling", "_clock", "_seconds", "_task", "is_expired")

    def __init__(self, clock: AttemptClock, seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.is_expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._clock.add(self, asyncio.get_running_loop().time() + self._seconds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clock.remove(self)
        if self.is_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the attempt."""
        self.is_expired = True
        self._task.cancel()
