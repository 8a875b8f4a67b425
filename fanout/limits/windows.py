"""Waits that the clock alone ends: sliding windows of starts and tokens, and pauses that an upstream has requested."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from asyncio_throttle import Throttler

from fanout.config.providers_file import LimitsRow

MAX_PAUSE_S = 60.0
MARGIN_S = 1e-4
"""Added to every wait: an entry leaves its window when it is older than the period, not as old."""


class StartWindow(Throttler):
    """asyncio-throttle's log of the last period, which computes its next opening instead of being polled every 10 ms."""

    def compute_wait_s(self, now: float, slots: int = 1) -> float:
        """Return the wait until `slots` more starts fit if nobody else starts; 0 when they fit now."""
        self.flush()  # type: ignore[no-untyped-call]  # asyncio-throttle has no annotations
        log = self._task_logs
        excess = len(log) + slots - self.rate_limit
        if excess <= 0:
            return 0.0
        # Past one period the log repeats itself: a slot that is taken now opens again one period later.
        periods, place = divmod(excess - 1, self.rate_limit)
        start = log[place] if place < len(log) else now
        return float(max(start + self.period * (1 + periods) - now, 0.0) + MARGIN_S)

    def take(self, now: float) -> None:
        """Log a start."""
        self._task_logs.append(now)


class TokenWindow:
    """Tokens reserved or used in the last period, in slices of it: thousands of calls a minute need no entry each."""

    SLICES = 600

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit, self.period_s, self.total = limit, period_s, 0
        self._slices: deque[WindowSlice] = deque()

    def compute_wait_s(self, now: float, tokens: int) -> float:
        """Return the wait until so many tokens fit if nobody else takes any; more than the limit wait for several periods."""
        self._drop_old_slices(now)
        excess = self.total + min(tokens, self.limit) - self.limit
        periods = max(tokens - 1, 0) // self.limit
        # The oldest slices leave first: the wait ends when enough of them have left.
        for part in self._slices:
            if excess <= 0:
                break
            excess -= part.tokens
            if excess <= 0:
                return part.last_at - now + self.period_s * (1 + periods) + MARGIN_S
        return self.period_s * periods

    def reserve(self, now: float, tokens: int) -> WindowSlice:
        """Count the tokens and return the slice that holds them, which `settle` needs."""
        if not self._slices or now - self._slices[-1].first_at > self.period_s / self.SLICES:
            self._slices.append(WindowSlice(now))
        part = self._slices[-1]
        part.last_at = now
        part.tokens += tokens
        self.total += tokens
        return part

    def settle(self, part: WindowSlice, reserved: int, used: int) -> None:
        """Replace a reservation by the real usage. Where that is more, the calls to come wait for the difference."""
        # An expired slice has left the total; settling it would leave the difference there for ever.
        if not part.is_expired:
            part.tokens += used - reserved
            self.total += used - reserved

    def _drop_old_slices(self, now: float) -> None:
        while self._slices and now - self._slices[0].last_at > self.period_s:
            part = self._slices.popleft()
            part.is_expired = True
            self.total -= part.tokens


class WindowSlice:
    """A short part of a window. It expires when its last entry is a period old, so that the limit is never exceeded."""

    __slots__ = ("first_at", "is_expired", "last_at", "tokens")

    def __init__(self, now: float) -> None:
        self.first_at = self.last_at = now
        self.tokens = 0
        self.is_expired = False


def build_start_windows(limits: LimitsRow, period_s: float) -> Iterator[StartWindow]:
    """Yield the windows that bound an account's starts: the whole period's, and a shorter one where `burst` smooths them."""
    if limits.requests_per_minute:
        yield StartWindow(limits.requests_per_minute, period=period_s)
        if limits.burst:
            yield StartWindow(limits.burst, period=period_s * limits.burst / limits.requests_per_minute)


@dataclass(frozen=True, slots=True)
class Hold:
    """The reason why no call of a model (`None`: of any) starts now."""

    model: str | None
    seconds: float
    reason: str


class Pauses:
    """Pauses under way, by model; `None` stands for the whole account."""

    def __init__(self) -> None:
        self.ends: dict[str | None, float] = {}
        """On `time.monotonic`."""
        self._reasons: dict[str | None, str] = {}

    def add(self, now: float, model: str | None, seconds: float, reason: str) -> None:
        """Pause a model for `seconds`, at most a minute; a longer pause that is under way stays."""
        end = max(self.ends.get(model, 0.0), now + min(seconds, MAX_PAUSE_S))
        # Callers choose the names of models: pauses that are over and never looked up again must not pile up.
        self.ends = {name: other for name, other in self.ends.items() if other > now} | {model: end}
        self._reasons = {name: self._reasons.get(name, reason) for name in self.ends} | {model: reason}

    def compute_wait_s(self, now: float, model: str | None) -> float:
        """Return the rest of the pause of exactly this entry; 0 where there is none."""
        end = self.ends.get(model)
        if end is None:
            return 0.0
        if end <= now:
            # Forgotten, so that `ends` is empty again and no call looks a pause up.
            del self.ends[model]
            return 0.0
        return end - now

    def list_holds(self, now: float) -> list[Hold]:
        """Return the pauses that are not over."""
        return [Hold(model, end - now, self._reasons[model]) for model, end in self.ends.items() if end > now]
