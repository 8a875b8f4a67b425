"""What has started and been used in the last period, and when there is room again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from asyncio_throttle import Throttler

from fanout.config.settings import LimitsRow


class Window(Throttler):
    """asyncio-throttle's log of the last period, asked when it opens instead of being polled every 10 ms."""

    def opens_in_s(self, now: float, slots: int = 1) -> float:
        """How long until `slots` more starts fit, if nobody else starts; 0 when they fit now."""
        self.flush()  # type: ignore[no-untyped-call]  # asyncio-throttle leaves it without annotations
        log = self._task_logs
        excess = len(log) + slots - self.rate_limit
        if excess <= 0:
            return 0.0
        # Past one period the log repeats itself: the slot taken now opens again one period later.
        periods, place = divmod(excess - 1, self.rate_limit)
        start = log[place] if place < len(log) else now
        # `flush` frees a slot when it is older than the period, not as old.
        return float(max(start + self.period * (1 + periods) - now, 0.0) + 1e-4)

    def take(self, now: float) -> None:
        self._task_logs.append(now)


class TokenWindow:
    """Tokens reserved or used in the last period, in slices of it: thousands of calls a minute need no entry each."""

    SLICES = 600

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit, self.period_s, self.total = limit, period_s, 0
        self._log: deque[Slice] = deque()

    def opens_in_s(self, now: float, tokens: int) -> float:
        self._flush(now)
        excess = self.total + min(tokens, self.limit) - self.limit
        periods = max(tokens - 1, 0) // self.limit
        for part in self._log:
            if excess <= 0:
                break
            excess -= part.tokens
            if excess <= 0:
                return part.ended - now + self.period_s * (1 + periods) + 1e-4
        return self.period_s * periods

    def take(self, now: float, tokens: int) -> Slice:
        """The slice in which the tokens stand; `settle` wants it back."""
        if not self._log or now - self._log[-1].began > self.period_s / self.SLICES:
            self._log.append(Slice(now))
        part = self._log[-1]
        part.ended = now
        part.tokens += tokens
        self.total += tokens
        return part

    def settle(self, part: Slice, reserved: int, used: int) -> None:
        """What was reserved becomes what was used; more than reserved is owed, and the next ones wait for it."""
        if not part.over:
            part.tokens += used - reserved
            self.total += used - reserved

    def _flush(self, now: float) -> None:
        while self._log and now - self._log[0].ended > self.period_s:
            part = self._log.popleft()
            part.over = True
            self.total -= part.tokens


class Slice:
    """A moment of a window: over when its last entry is a period old, so that no limit is ever exceeded."""

    __slots__ = ("began", "ended", "over", "tokens")

    def __init__(self, now: float) -> None:
        self.began = self.ended = now
        self.tokens = 0
        self.over = False


def windows(limits: LimitsRow, period_s: float) -> Iterator[Window]:
    if limits.requests_per_minute:
        yield Window(limits.requests_per_minute, period=period_s)
        if limits.burst:
            yield Window(limits.burst, period=period_s * limits.burst / limits.requests_per_minute)
