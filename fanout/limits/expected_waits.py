"""Waits that calls have to expect at one limiter, so that one which would wait in vain is refused at once."""

from __future__ import annotations

from fanout.limits.counted_calls import CountedCalls
from fanout.limits.pauses import Pauses
from fanout.limits.queue import Gate, Priority, WaitingCalls
from fanout.limits.token_estimates import CallSize
from fanout.limits.upstream_quota import QuotaTable


class ExpectedWaits:
    """The waits, by the rates alone: the durations of calls in flight are unknown."""

    def __init__(
        self,
        gate: Gate,
        pauses: Pauses,
        quotas: QuotaTable,
        counted: CountedCalls,
        waiting: WaitingCalls,
        max_waiting: int,
    ) -> None:
        self._gate, self._pauses, self._quotas, self._counted = gate, pauses, quotas, counted
        self._waiting, self._max_waiting = waiting, max_waiting

    def find_refusal(
        self, model: str, tokens: int, priority: Priority, now: float, deadline: float
    ) -> tuple[str, float, bool] | None:
        """Return why a call must not wait, its wait in seconds, and whether the upstream has requested that wait."""
        expected_s = self.expect_wait_s(model, tokens, priority, now)
        if self._waiting.total >= self._max_waiting:
            return f"{self._max_waiting} calls are already waiting", expected_s, False
        if now + expected_s > deadline:
            is_held = expected_s <= self._expect_hold_s(model, tokens, priority, now)
            return f"the deadline is {max(deadline - now, 0):.3g} s away", expected_s, is_held
        return None

    def expect_wait_s(self, model: str, tokens: int, priority: Priority, now: float) -> float:
        """Return the minimum wait of this call."""
        ahead, tokens_ahead = self._waiting.count_ahead(priority)
        for name in {*self._pauses.ends, *(self._quotas.by_model if self._quotas.has_readings else ())}:
            # The waiters of a held model are skipped, so they are not ahead of other models' waiters.
            if name in self._waiting.by_model and name != model and self._gate.compute_hold_s(name, CallSize(0, 1), now):
                waiters, waiting_tokens = self._waiting.count_ahead(priority, name)
                ahead, tokens_ahead = ahead - waiters, tokens_ahead - waiting_tokens
        return max(
            self._expect_hold_s(model, tokens, priority, now),
            self._counted.expect_token_wait_s(now, tokens_ahead + tokens),
            self._counted.compute_start_wait_s(now, ahead + 1),
        )

    def _expect_hold_s(self, model: str, tokens: int, priority: Priority, now: float) -> float:
        """Return the minimum wait of this call that the upstream has requested."""
        paused_s = max(self._pauses.compute_wait_s(now, None), self._pauses.compute_wait_s(now, model))
        key = None if self._quotas.is_group else model
        quota = self._quotas.find(key)
        quota_s = quota.compute_wait_s(now, tokens, *self._waiting.count_ahead(priority, key)) if quota else 0.0
        return max(paused_s, quota_s)
