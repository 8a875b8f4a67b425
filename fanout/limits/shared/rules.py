"""Limits as the processes tell them each other, and the times by which they share them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fanout.config.providers_file import LimitsRow
from fanout.limits.arrivals import add_skew

LEASE_S = 12.0
"""A process that was not heard of for so long is taken for dead: what it held is free again."""
BEAT_S = 4.0
"""A process that holds something is heard of at least so often."""
SILENT_S = 5.0
"""After an outage of the store, the other processes have so long to report what they have used in it."""
ALONE_S = 1.0
"""So long after an ask that failed, a process may go on by itself; then it has to find out if the store is back."""
ASKING_S = 2.5
"""The same for an ask that was not answered yet."""
SLICE_ASKS = 4
"""A slice ends when so many asks could have been answered: one that is late, because the machine is busy, costs nothing."""
ASKS_PER_PERIOD = 240
MIN_ASK_S, MAX_ASK_S = 0.02, 0.25
MAX_ASKS_PER_S = 100.0
"""Of one account, over all processes: the more there are, the larger their slices."""


class Window(NamedTuple):
    """At most so much in any span of so many seconds."""

    limit: int
    length_s: float


class SharedRules(NamedTuple):
    """The limits of one account, as one process is configured. What is `None` does not apply."""

    period_s: float
    requests: int | None = None
    burst: int | None = None
    tokens: int | None = None
    has_bucket: bool = False
    concurrency: int | None = None
    ramp_starts: int | None = None
    ramp_s: float = 0.0

    @property
    def has_limits(self) -> bool:
        """Something is limited."""
        return any(limit is not None for limit in (self.requests, self.tokens, self.concurrency, self.ramp_starts))

    def list_start_windows(self) -> list[Window]:
        """Return the windows of starts."""
        if self.requests is None:
            return []
        windows = [Window(self.requests, add_skew(self.period_s))]
        if self.burst is not None:
            windows.append(Window(self.burst, add_skew(self.period_s * self.burst / self.requests)))
        return windows

    def list_token_windows(self) -> list[Window]:
        """Return the windows of tokens: none for a bucket."""
        return [] if self.tokens is None or self.has_bucket else [Window(self.tokens, add_skew(self.period_s))]

    @property
    def ask_s(self) -> float:
        """The time between two asks of a process with demand."""
        # Of a burst's short window a place must not lie idle for long.
        shortest = min((window.length_s for window in self.list_start_windows()), default=self.period_s)
        return max(min(self.period_s / ASKS_PER_PERIOD, MAX_ASK_S, max(shortest / 8, MAX_ASK_S / 5)), MIN_ASK_S)

    @property
    def lost_s(self) -> float:
        """The time without the store after which a process goes on by itself."""
        return 4 * self.ask_s


def build_rules(limits: LimitsRow, period_s: float) -> SharedRules:
    """Return the rules of an account's limits."""
    ramp = limits.ramp
    return SharedRules(
        period_s=period_s,
        requests=limits.requests_per_minute,
        burst=limits.burst if limits.requests_per_minute else None,
        tokens=limits.tokens_per_minute,
        has_bucket=limits.token_bucket,
        concurrency=limits.concurrency,
        ramp_starts=ramp.starts if ramp else None,
        ramp_s=ramp.period_s if ramp else 0.0,
    )


def combine(every: Iterable[SharedRules]) -> SharedRules:
    """Return the smallest of each limit: while processes with different ones live, nobody's is exceeded."""
    rules = list(every)

    def find_least(*limits: int | None) -> int | None:
        return min((limit for limit in limits if limit is not None), default=None)

    return SharedRules(
        period_s=max(one.period_s for one in rules),
        requests=find_least(*(one.requests for one in rules)),
        burst=find_least(*(one.burst for one in rules)),
        tokens=find_least(*(one.tokens for one in rules)),
        has_bucket=all(one.has_bucket for one in rules if one.tokens is not None),
        concurrency=find_least(*(one.concurrency for one in rules)),
        ramp_starts=find_least(*(one.ramp_starts for one in rules)),
        ramp_s=max(one.ramp_s for one in rules),
    )
