"""Counters of starts and tokens over all processes, in the place of those that a single process keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from fanout.limits.shared.holding import Holding
from fanout.limits.starts import StartCounter
from fanout.limits.tokens import WindowSlice


class SliceOwner(Protocol):
    """Whoever asks for more."""

    wake: Callable[[], None]
    ask_s: float


class SharedStarts:
    """Starts from a shared slice; see `StartCounter`."""

    def __init__(self, owner: SliceOwner, holding: Holding) -> None:
        self._owner, self._holding = owner, holding

    def compute_wait_s(self, now: float, slots: int = 1) -> float:
        """See `StartCounter.compute_wait_s`."""
        wait_s = self._holding.compute_wait_s(now, slots, self._owner.ask_s)
        if wait_s:
            self._owner.wake()
        return wait_s

    def reserve(self) -> None:
        """See `StartCounter.reserve`."""
        self._holding.reserve(1)

    def count(self, now: float) -> None:
        """See `StartCounter.count`."""
        self._holding.count(now, 1)
        self._holding.report(now, 1, 1)

    def give_back(self) -> None:
        """See `StartCounter.give_back`."""
        self._holding.give_back(1)

    def take_over(self, others: Iterable[StartCounter], reserved: int) -> None:
        """See `StartCounter.take_over`."""
        # Permits of the time in which nothing was limited are counted when their requests leave.
        self._holding.open = reserved


class SharedTokens:
    """Tokens from a shared slice; see `TokenCounter`. What a call has used is reported when it ends, by when it was sent."""

    def __init__(self, owner: SliceOwner, holding: Holding) -> None:
        self._owner, self._holding = owner, holding
        self.limit = 1
        self._parts: deque[WindowSlice] = deque()
        """Of calls under way, in the order in which they were sent."""

    def compute_wait_s(self, now: float, tokens: int) -> float:
        """See `TokenCounter.compute_wait_s`."""
        wait_s = self._holding.compute_wait_s(now, tokens, self._owner.ask_s)
        if wait_s:
            self._owner.wake()
        return wait_s

    def reserve(self, tokens: int) -> None:
        """See `TokenCounter.reserve`."""
        self._holding.reserve(tokens)

    def give_back(self, tokens: int) -> None:
        """See `TokenCounter.give_back`."""
        self._holding.give_back(tokens)

    def count(self, now: float, tokens: int) -> WindowSlice:
        """See `TokenCounter.count`."""
        part = WindowSlice(now)
        part.tokens = tokens
        self._parts.append(part)
        self._holding.count(now, tokens)
        return part

    def settle(self, part: WindowSlice | None, counted: int, used: int) -> None:
        """See `TokenCounter.settle`."""
        if part and not part.is_expired:
            part.is_expired = True
            self._holding.report(part.first_at, counted, used)
            # More than was reserved counts here at once, and for the others with the next ask.
            self._holding.count(part.first_at, used - counted)

    def close(self, now: float) -> int:
        """See `TokenCounter.close`."""
        return 0

    def take_over(self, reserved: int) -> None:
        """Count on the calls under way, and those that have permits."""
        self._holding.open = reserved + sum(part.tokens for part in self._parts if not part.is_expired)

    def expire(self, now: float) -> None:
        """Let the tokens of calls that were sent longer than a period ago no longer count."""
        oldest = now - self._holding.span_s
        while self._parts and (self._parts[0].is_expired or self._parts[0].first_at <= oldest):
            part = self._parts.popleft()
            if not part.is_expired:
                part.is_expired = True
                self._holding.report(part.first_at, part.tokens, 0)
