"""Starts and tokens of an account, which its own limits count from when a request has left."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fanout.config.providers_file import LimitsRow
from fanout.limits.queue import Permit
from fanout.limits.shared.rules import build_rules
from fanout.limits.shared.share import ProcessShare
from fanout.limits.starts import StartCounter, StartRamp, open_window
from fanout.limits.tokens import TokenBucket, TokenCounter, TokenWindow


class CountedCalls:
    """The starts and tokens of one account: reserved for a permit, then counted for its request, or given back."""

    def __init__(self, limits: LimitsRow, period_s: float, share: ProcessShare | None = None) -> None:
        self._limits, self._period_s, self._share = limits, period_s, share
        self.starts = list(_build_start_counters(limits, period_s, share))
        self.tokens = _build_token_counter(limits, period_s, share)
        self._open_tokens = 0
        """Reserved for calls that have not ended."""
        self._reserved = self._reserved_tokens = 0
        """Of those that have not been counted."""
        self.is_empty = not (self.starts or self.tokens)

    def configure(self, limits: LimitsRow) -> None:
        """Set other limits: starts and tokens that were counted count on, and those with permits will."""
        before, self.starts = self.starts, list(_build_start_counters(limits, self._period_s, self._share))
        for counter in self.starts:
            counter.take_over(before, self._reserved)
        if self._share:
            self._share.configure(build_rules(limits, self._period_s))
            self.tokens = _build_token_counter(limits, self._period_s, self._share)
            self._share.token_counter.take_over(self._reserved_tokens)
        elif (limits.tokens_per_minute, limits.token_bucket) != (self._limits.tokens_per_minute, self._limits.token_bucket):
            used = self.tokens.close(time.monotonic()) if self.tokens else 0
            self.tokens = _build_token_counter(limits, self._period_s, None)
            if self.tokens:
                self.tokens.reserve(self._reserved_tokens + used)
                self.tokens.count(time.monotonic(), used)
        self._limits, self.is_empty = limits, not (self.starts or self.tokens)

    def compute_start_wait_s(self, now: float, slots: int = 1) -> float:
        """Return the wait until so many more starts fit."""
        wait = 0.0
        for window in self.starts:
            if (longer := window.compute_wait_s(now, slots)) > wait:
                wait = longer
        return wait

    def compute_token_wait_s(self, now: float, tokens: int) -> float:
        """Return the wait until so many tokens fit."""
        return self.tokens.compute_wait_s(now, tokens) if self.tokens else 0.0

    def expect_token_wait_s(self, now: float, tokens: int) -> float:
        """Return the least wait until so many tokens fit: calls that have not ended may use nothing of what is reserved."""
        return self.compute_token_wait_s(now, tokens - self._open_tokens)

    def reserve(self, tokens: int) -> None:
        """Keep a place for a call that has a permit."""
        self._reserved, self._reserved_tokens = self._reserved + 1, self._reserved_tokens + tokens
        self._open_tokens += tokens
        for window in self.starts:
            window.reserve()
        if self.tokens:
            self.tokens.reserve(tokens)

    def count(self, permit: Permit) -> None:
        """Count a call from now on: its request has left."""
        if permit.is_counted:
            return
        self._end_reservation(permit)
        now = time.monotonic()
        for window in self.starts:
            window.count(now)
        if self.tokens:
            permit.counted_in = self.tokens.count(now, permit.started.tokens)

    def end(self, permit: Permit, used: int | None, *, was_sent: bool) -> None:
        """Replace the estimate of a call that has ended by its usage, where it is known; of one never sent, free the place."""
        if not permit.is_counted:
            (self.count if was_sent else self._give_back)(permit)
        self._open_tokens -= permit.started.tokens
        if self.tokens and was_sent:
            tokens = permit.started.tokens
            # Without a reported usage the estimate is kept: counting too much is cheaper than a refusal.
            self.tokens.settle(permit.counted_in, tokens, tokens if used is None else used)

    def _give_back(self, permit: Permit) -> None:
        self._end_reservation(permit)
        for window in self.starts:
            window.give_back()
        if self.tokens:
            self.tokens.give_back(permit.started.tokens)

    def _end_reservation(self, permit: Permit) -> None:
        permit.is_counted = True
        self._reserved, self._reserved_tokens = self._reserved - 1, self._reserved_tokens - permit.started.tokens


def _build_start_counters(limits: LimitsRow, period_s: float, share: ProcessShare | None) -> Iterator[StartCounter]:
    """Yield what bounds an account's starts: the whole period's window, a shorter one for `burst`, and the ramp."""
    if share:
        if limits.requests_per_minute or limits.ramp:
            yield share.start_counter
        return
    if limits.requests_per_minute:
        yield open_window(limits.requests_per_minute, period_s)
        if limits.burst:
            yield open_window(limits.burst, period_s * limits.burst / limits.requests_per_minute)
    if limits.ramp:
        yield StartRamp(limits.ramp.starts, limits.ramp.period_s)


def _build_token_counter(limits: LimitsRow, period_s: float, share: ProcessShare | None) -> TokenCounter | None:
    """Return the count of an account's tokens; `None` without a limit on them."""
    if limits.tokens_per_minute is None:
        return None
    if share:
        return share.token_counter
    return (TokenBucket if limits.token_bucket else TokenWindow)(limits.tokens_per_minute, period_s)
