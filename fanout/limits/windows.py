"""Waits that the clock alone ends: sliding windows of starts, and pauses that an upstream has requested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from asyncio_throttle import Throttler

MAX_PAUSE_S = 60.0
MARGIN_S = 1e-4
"""Added to every wait: an entry leaves its window when it is older than the period, not as old."""
MAX_ARRIVAL_SKEW_S = 0.25
"""How far apart calls may arrive upstream that were sent together: about the time of one lost packet."""
MAX_SKEW_RATIO = 0.01
"""The part of a short period that may be given up for the skew."""


def add_skew(period_s: float) -> float:
    """Return the period for which a call is counted here, so that late arrivals do not meet those of the next."""
    return period_s + min(MAX_ARRIVAL_SKEW_S, period_s * MAX_SKEW_RATIO)


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
        # The first has the longest period: what is too old for this one leaves it at once.
        if other := next((other for other in others if isinstance(other, StartWindow)), None):
            self._task_logs.extend(other._task_logs)

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

    def add(self, now: float, model: str | None, seconds: float, reason: str) -> float:
        """Pause a model for `seconds`, at most a minute; a longer pause that is under way stays. Return its end."""
        end = max(self.ends.get(model, 0.0), now + min(seconds, MAX_PAUSE_S))
        # Callers choose the names of models: pauses that are over and never looked up again must not pile up.
        self.ends = {name: other for name, other in self.ends.items() if other > now} | {model: end}
        self._reasons = {name: self._reasons.get(name, reason) for name in self.ends} | {model: reason}
        return end

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
