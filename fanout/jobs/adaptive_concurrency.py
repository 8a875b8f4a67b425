"""Adaptive concurrency of one account: more calls at once while all goes well, fewer when it refuses or slows down. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

INITIAL_CONCURRENCY = 4
"""Calls at once before anything is known."""
MIN_CONCURRENCY = 1.0
REFUSAL_FACTOR = 0.6
"""Share of the concurrency that remains when the account refuses for its rate."""
SLOWDOWN_FACTOR = 0.8
SLOW = 2.0
"""Multiple of the best latency from which answers count as slow."""
NO_BETTER = 0.95
"""Share of their latency that answers may still take after a decrease before they count as slow for another reason."""
MAX_ROUND_ENDS = 64
"""Answers judged together."""


@dataclass(slots=True)
class AdaptiveConcurrency:
    """Additive increase, multiplicative decrease; doubling in each round until the first decrease.

    A round is as many answers as there may be calls at once.

    Source: congestion avoidance of TCP, RFC 5681 §3.1; the delay as a sign of congestion, as in TCP Vegas
    (doi:10.1145/190809.190317).
    """

    maximum: int
    """Never exceeded; the account's own `concurrency` holds besides."""
    size: float = INITIAL_CONCURRENCY
    _doubling: bool = True
    _decreased_at: float = float("-inf")
    _best_s: float | None = None
    _before_slowdown: tuple[float, float] | None = None
    """Latency and size at the last decrease for slowness."""
    _round: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = min(self.size, self.maximum)

    @property
    def limit(self) -> int:
        """Calls at once."""
        return int(self.size)

    def record_answer(self, started: float, now: float, *, filled: bool = True) -> None:
        """Record a call that was answered now.

        Unless it was `filled`, with as many calls running as may, the concurrency has proved nothing and does not grow.
        """
        if filled:
            self.size = min(self.size + (1 if self._doubling else 1 / self.size), self.maximum)
        self._round.append(now - started)
        # Of fewer than 8 answers the median is chance.
        if len(self._round) >= min(max(self.limit, 8), MAX_ROUND_ENDS):
            self._judge_round(started, now)

    def record_refusal(self, started: float, now: float) -> None:
        """Record a call that was refused now because there were too many."""
        if started > self._decreased_at:  # one refusal of many calls that were sent together decreases once
            self._decrease(REFUSAL_FACTOR, now)

    def _judge_round(self, started: float, now: float) -> None:
        latency_s = median(self._round)
        self._round.clear()
        if self._best_s is None or latency_s < self._best_s:
            self._best_s = latency_s
        if started <= self._decreased_at:
            return  # sent at the concurrency that the decrease has ended
        slowdown = self._before_slowdown
        if latency_s <= SLOW * self._best_s:
            self._before_slowdown = None
        elif slowdown and latency_s > NO_BETTER * slowdown[0] and self.size < slowdown[1]:
            # Fewer calls did not help: the answers are longer now, and a further decrease would only waste time.
            self._best_s, self._before_slowdown = latency_s, None
        else:
            # While it doubles, the calls that have ended started at a size long left behind.
            self._before_slowdown = None if self._doubling else (latency_s, self.size)
            self._decrease(SLOWDOWN_FACTOR, now)

    def _decrease(self, factor: float, now: float) -> None:
        self.size = max(self.size * factor, MIN_CONCURRENCY)
        self._doubling = False
        self._decreased_at = now
        self._round.clear()
