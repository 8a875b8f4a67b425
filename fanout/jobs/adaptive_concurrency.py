"""How many calls of a batch one account gets at once: more while all goes well, fewer when it refuses or slows down. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

INITIAL_CONCURRENCY = 4
"""Calls at once before anything is known."""
MIN_CONCURRENCY = 1.0
AFTER_REFUSAL = 0.6
"""What is left of the pace when the account refuses for its rate."""
AFTER_SLOWING = 0.8
SLOW = 2.0
"""How many times as long as at their best the answers may take."""
NO_BETTER = 0.95
"""Answers that take still so much of their time with fewer calls at once are slow for another reason."""
MAX_ROUND_ENDS = 64
"""Ends that are looked at together."""


@dataclass(slots=True)
class AdaptiveConcurrency:
    """Additive increase, multiplicative decrease; doubling in each round until the first decrease.

    A round is as many ends as there may be calls at once. Only calls that started after a decrease speak for the next one:
    the others were sent at the pace that it has ended.

    Source: congestion avoidance of TCP, RFC 5681 §3.1; the delay as a sign of congestion, as in TCP Vegas
    (doi:10.1145/190809.190317).
    """

    most: int
    """Never above; the account's own `concurrency` holds besides."""
    size: float = INITIAL_CONCURRENCY
    _doubling: bool = True
    _decreased: float = float("-inf")
    """When it was decreased last."""
    _best_s: float | None = None
    _slowed: tuple[float, float] | None = None
    """What answers took when it was decreased for that, and its size before."""
    _round: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.size = min(self.size, self.most)

    @property
    def limit(self) -> int:
        """Calls at once."""
        return int(self.size)

    def record_answer(self, started: float, now: float, *, filled: bool = True) -> None:
        """A call that started then has been answered now.

        Args:
            filled: as many calls ran as may; a pace that is not made use of has proved nothing and does not grow.
        """
        if filled:
            self.size = min(self.size + (1 if self._doubling else 1 / self.size), self.most)
        self._round.append(now - started)
        if len(self._round) >= min(max(self.limit, 8), MAX_ROUND_ENDS):
            self._judge(started, now)

    def record_refusal(self, started: float, now: float) -> None:
        """A call that started then was refused now because there were too many."""
        if started > self._decreased:
            self._decrease(AFTER_REFUSAL, now)

    def _judge(self, started: float, now: float) -> None:
        took_s = median(self._round)
        self._round.clear()
        if self._best_s is None or took_s < self._best_s:
            self._best_s = took_s
        if started <= self._decreased:
            return
        if took_s <= SLOW * self._best_s:
            self._slowed = None
        elif self._slowed and took_s > NO_BETTER * self._slowed[0] and self.size < self._slowed[1]:
            self._best_s, self._slowed = took_s, None
        else:
            # While it doubles, the calls that have ended started at a size long left behind.
            self._slowed = None if self._doubling else (took_s, self.size)
            self._decrease(AFTER_SLOWING, now)

    def _decrease(self, factor: float, now: float) -> None:
        self.size = max(self.size * factor, MIN_CONCURRENCY)
        self._doubling = False
        self._decreased = now
        self._round.clear()
