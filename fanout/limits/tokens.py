"""Limits on tokens: in any period, or from a bucket that refills evenly.

Tokens are reserved when a permit is granted, counted when its request has left, and corrected by its usage.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from fanout.limits.arrivals import MARGIN_S, add_skew


class TokenCounter(Protocol):
    """A limit on tokens."""

    limit: int

    def compute_wait_s(self, now: float, tokens: int) -> float:
        """Return the wait until so many tokens fit if nobody else takes any; more than the limit wait for several periods."""
        ...

    def reserve(self, tokens: int) -> None:
        """Keep room for tokens."""
        ...

    def count(self, now: float, tokens: int) -> WindowSlice | None:
        """Count tokens that were reserved; return what `settle` needs."""
        ...

    def give_back(self, tokens: int) -> None:
        """Free the room of tokens that were never used."""
        ...

    def settle(self, part: WindowSlice | None, counted: int, used: int) -> None:
        """Replace an estimate by the real usage. Where that is more, the calls to come wait for the difference."""
        ...

    def close(self, now: float) -> int:
        """Return the tokens that still count, for the counter that takes its place."""
        ...


class TokenWindow:
    """Tokens reserved or used in the last period, in slices of it: thousands of calls a minute need no entry each."""

    SLICES = 600

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit, self.period_s, self.total = limit, add_skew(period_s), 0
        self.reserved = 0
        self._slices: deque[WindowSlice] = deque()

    def compute_wait_s(self, now: float, tokens: int) -> float:
        """See `TokenCounter.compute_wait_s`."""
        if self.total + self.reserved + tokens <= self.limit:  # also without what has become too old meanwhile
            return 0.0
        self._drop_old_slices(now)
        excess = self.total + self.reserved + min(tokens, self.limit) - self.limit
        periods = max(tokens - 1, 0) // self.limit
        # The oldest slices leave first: the wait ends when enough of them have left.
        for part in self._slices:
            if excess <= 0:
                break
            excess -= part.tokens
            if excess <= 0:
                return part.last_at - now + self.period_s * (1 + periods) + MARGIN_S
        # What is left of the excess is reserved, and leaves a period after it is sent.
        return self.period_s * (periods + (excess > 0))

    def reserve(self, tokens: int) -> None:
        """See `TokenCounter.reserve`."""
        self.reserved += tokens

    def give_back(self, tokens: int) -> None:
        """See `TokenCounter.give_back`."""
        self.reserved -= tokens

    def count(self, now: float, tokens: int) -> WindowSlice:
        """See `TokenCounter.count`."""
        self.reserved -= tokens
        if not self._slices or now - self._slices[-1].first_at > self.period_s / self.SLICES:
            self._drop_old_slices(now)
            self._slices.append(WindowSlice(now))
        part = self._slices[-1]
        part.last_at = now
        part.tokens += tokens
        self.total += tokens
        return part

    def settle(self, part: WindowSlice | None, counted: int, used: int) -> None:
        """See `TokenCounter.settle`."""
        # An expired slice has left the total; settling it would leave the difference there for ever.
        if part and not part.is_expired:
            part.tokens += used - counted
            self.total += used - counted

    def close(self, now: float) -> int:
        """See `TokenCounter.close`."""
        self._drop_old_slices(now)
        for part in self._slices:  # the usage of calls in flight would settle them in another window
            part.is_expired = True
        return self.total

    def list_starts(self) -> Iterator[tuple[float, int]]:
        """Yield the times of slices, oldest first, and what was counted in each."""
        return ((part.last_at, part.tokens) for part in self._slices)

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


class TokenBucket:
    """Tokens that come back evenly over the period, up to the limit: up to twice the limit may pass within one period."""

    def __init__(self, limit: int, period_s: float) -> None:
        self.limit = limit
        self.reserved = 0
        self._tokens_per_s = limit / add_skew(period_s)
        self._level, self._at = float(limit), -math.inf

    def compute_wait_s(self, now: float, tokens: int) -> float:
        """See `TokenCounter.compute_wait_s`."""
        self._refill(now)
        missing = tokens + self.reserved - self._level
        return missing / self._tokens_per_s + MARGIN_S if missing > 1e-6 else 0.0

    def reserve(self, tokens: int) -> None:
        """See `TokenCounter.reserve`."""
        self.reserved += tokens

    def give_back(self, tokens: int) -> None:
        """See `TokenCounter.give_back`."""
        self.reserved -= tokens

    def count(self, now: float, tokens: int) -> None:
        """See `TokenCounter.count`."""
        self._refill(now)
        self.reserved -= tokens
        self._level -= tokens

    def settle(self, part: WindowSlice | None, counted: int, used: int) -> None:
        """See `TokenCounter.settle`."""
        self._level = min(self._level + counted - used, float(self.limit))

    def close(self, now: float) -> int:
        """See `TokenCounter.close`."""
        self._refill(now)
        return round(self.limit - self._level)

    def _refill(self, now: float) -> None:
        self._level = min(self._level + self._tokens_per_s * (now - self._at), float(self.limit))
        self._at = now
