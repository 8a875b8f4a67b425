"""What an upstream says is left of its limits, kept up to date between its answers: who may start before it would refuse.

Every answer's headers are a reading: at the moment the upstream took that call, so much was left. Since then other calls have
started, and calls overlap, so a reading is seldom what is left now. It is two bounds: no more is left than it says, and no
less than that without all the calls that it may not have counted yet, which are those that ran at any time beside its own.
Between the two our own count stands, of which every start takes its part. So answers that come out of order can neither let
too many start nor hold anybody for longer than the newest would.

All comes back at the reset. Where the figures show that it comes back bit by bit (OpenAI, Anthropic, Groq: their reset is when
a limit is *full* again), it does so here. Nothing is held for more than a minute: then one call is let through to ask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fanout.core.schema import Left, Rate

NOT_REPORTED = Left()
MAX_HOLD_S = 60.0
MAX_ARRIVAL_SKEW_S = 0.25
"""By how much calls may arrive apart that start at once: one that started shortly before a reset may count behind it."""
REFILL_PERIODS_S = (60.0, 86400.0)
"""The times in which a whole limit comes back bit by bit, where one does."""
FITS = 0.1
"""By how much a reset may differ from what follows from it."""
ROUNDED_S = 2.0
"""A reset that differs by more is no rounded one."""


@dataclass(slots=True, eq=False)
class CallStart:
    """One call, as a reading in its answer needs to know it."""

    at: float
    requests_told: int
    tokens_told: int
    tokens: int
    told: bool = False


class QuotaEstimate:
    """What is left of one limit. Times are on `time.monotonic`, amounts are requests or tokens."""

    __slots__ = (
        "_at",
        "_at_once",
        "_heard",
        "_lately",
        "_lately_since",
        "_level",
        "_limit",
        "_newest",
        "_per_s",
        "_renewed",
        "_until",
        "open",
        "said",
        "said_at",
    )

    def __init__(self) -> None:
        self.said, self.said_at = NOT_REPORTED, -math.inf
        """The newest reading, as it was, and when it came."""
        self.open = 0
        """What the calls have taken whose headers have not come."""
        self._level: float | None = None
        """What is left by our count, at `_at`; `None`: nothing that could hold anybody is known."""
        self._at = self._heard = self._newest = self._renewed = -math.inf
        self._lately, self._lately_since = 0.0, -math.inf
        """What was taken since then: at most for `MAX_ARRIVAL_SKEW_S`, and then from anew."""
        self._limit: int | None = None
        self._until = math.inf
        """When all of it is there again."""
        self._per_s = 0.0
        self._at_once = False
        """A reading has shown that it does not come back bit by bit."""

    def opens_in_s(self, now: float, amount: float, ahead: float = 0.0) -> float:
        """How long until `amount` may be taken, after what stands `ahead`; 0: now."""
        self._renew(now)
        if self._level is None:
            return 0.0
        missing = ahead + (amount if self._limit is None else min(amount, self._limit)) - self._level
        # What comes back bit by bit is waited for a little longer, unless all is there: requests overtake each other.
        if self._per_s and self._level < (self._limit or 0):
            missing += self._per_s * MAX_ARRIVAL_SKEW_S
        if missing <= 1e-6:
            return 0.0
        wait = self._until - now
        if self._per_s:
            wait = missing / self._per_s if wait <= 0 else min(missing / self._per_s, wait)
        return wait if ahead else max(min(wait, self._heard + MAX_HOLD_S - now), 0.0)

    def take(self, now: float, amount: float) -> None:
        """A call has started."""
        if self._level is not None:  # brought up to date by `opens_in_s`, which has just been asked
            if now - self._lately_since > MAX_ARRIVAL_SKEW_S:
                self._lately, self._lately_since = 0.0, now
            self._lately += amount
            self._level = max(self._level - amount, 0.0)
            self._heard = now  # whoever was let through to ask is given time to answer

    def read(self, now: float, left: Left, started: float, unsure: float) -> None:
        """Takes up a reading.

        Args:
            started: when the call started whose answer it came with.
            unsure: what the calls beside that one have taken, of which it may not know.
        """
        newest = started >= self._newest
        if newest:
            self.said, self.said_at, self._newest = left, now, started
        self._renew(now)
        if left.remaining is None or left.reset_s is None or started < self._renewed:
            return  # without a reset it would hold for ever; from before the last reset it says nothing about now
        if newest or self._level is None:
            self._limit = left.limit
            self._per_s = self._refill_per_s(left)
            self._until = now + min(left.reset_s, MAX_HOLD_S)
        lowest, highest = max(left.remaining - unsure, 0.0), left.remaining + self._per_s * (now - started)
        if self._level is None or (newest and self._level < lowest):
            self._level = lowest
        self._level = min(self._level, highest)
        self._at = self._heard = now

    def _renew(self, now: float) -> None:
        """What has come back since."""
        if self._level is None:
            return
        if self._per_s:
            self._level = min(self._level + self._per_s * (now - self._at), self._limit or math.inf)
            self._at = now
        elif now >= self._until:
            underway = min(self._lately, self.open) if now - self._lately_since <= 2 * MAX_ARRIVAL_SKEW_S else 0.0
            self._level = None if self._limit is None else max(self._limit - underway, 0.0)
            self._renewed, self._until = self._lately_since if underway else now, now + MAX_HOLD_S

    def _refill_per_s(self, left: Left) -> float:
        """How fast it comes back, where that is bit by bit; 0: at once, at the reset.

        Bit by bit, what is gone and how long it takes to come back fit a whole minute's or day's limit; at once, the reset is
        as far away however little is gone. What remains may be rounded to whole requests, the reset to seconds, and so may
        the clock that it is counted from: a short one proves nothing, and is then held to, which is short too.
        """
        if not left.limit or not left.reset_s or left.remaining is None or left.remaining >= left.limit:
            return self._per_s if left.limit else 0.0
        off_s, period_s = min(
            (_off_s(left.reset_s, left.limit, left.limit - left.remaining, whole_s), whole_s) for whole_s in REFILL_PERIODS_S
        )
        if off_s > ROUNDED_S:
            self._at_once = True
        return left.limit / period_s if off_s <= 0 and not self._at_once else 0.0


def _off_s(reset_s: float, limit: int, gone: int, whole_s: float) -> float:
    """By how much a reset differs from that of a limit which comes back bit by bit in `whole_s`; at most 0: not at all."""
    latest_s = whole_s * gone / limit
    earliest_s = max(whole_s * (gone - 1) / limit, latest_s / 2)
    return max(earliest_s * (1 - FITS) - reset_s, reset_s - latest_s * (1 + FITS))


@dataclass(slots=True, eq=False)
class UpstreamQuota:
    """What an upstream says is left for one model of an account, or for a group of them. Small until it says something."""

    requests: QuotaEstimate | None = None
    tokens: QuotaEstimate | None = None
    _requests_taken: int = 0
    _tokens_taken: int = 0
    _requests_told: int = 0
    """Of those taken: what calls whose headers have come, or that have ended without, had taken."""
    _tokens_told: int = 0

    @property
    def said_at(self) -> float:
        """When a reading came last; minus infinity: none did."""
        return max((known.said_at for known in (self.requests, self.tokens) if known), default=-math.inf)

    def opens_in_s(self, now: float, tokens: int, requests_ahead: int = 0, tokens_ahead: int = 0) -> float:
        """How long until a call for so many tokens may start."""
        wait = self.requests.opens_in_s(now, 1, requests_ahead) if self.requests else 0.0
        return max(wait, self.tokens.opens_in_s(now, tokens, tokens_ahead)) if self.tokens else wait

    def start(self, now: float, tokens: int) -> CallStart:
        """A call starts."""
        started = CallStart(now, self._requests_told, self._tokens_told, tokens)
        self._requests_taken += 1
        self._tokens_taken += tokens
        if self.requests:
            self.requests.take(now, 1)
        if self.tokens:
            self.tokens.take(now, tokens)
        self._count_open()
        return started

    def end(self, started: CallStart) -> None:
        """Its answer has ended, or its headers have come: what it took is counted wherever it is."""
        if not started.told:
            started.told = True
            self._requests_told += 1
            self._tokens_told += started.tokens
            self._count_open()

    def read(self, now: float, rate: Rate, started: CallStart) -> None:
        """Takes up what the headers of its answer say."""
        if rate.requests != NOT_REPORTED:
            self.requests = self.requests or QuotaEstimate()
            beside = self._requests_taken - started.requests_told - 1
            self.requests.read(now, rate.requests, started.at, beside)
        if rate.tokens != NOT_REPORTED:
            self.tokens = self.tokens or QuotaEstimate()
            beside = self._tokens_taken - started.tokens_told - started.tokens
            self.tokens.read(now, rate.tokens, started.at, beside)
        self.end(started)

    def _count_open(self) -> None:
        if self.requests:
            self.requests.open = self._requests_taken - self._requests_told
        if self.tokens:
            self.tokens.open = self._tokens_taken - self._tokens_told
