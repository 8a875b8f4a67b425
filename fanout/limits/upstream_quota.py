"""Quotas that an upstream reports in the headers of its answers, kept up to date between the answers.

Every answer's headers are a reading: when the upstream took that call, so much was left. Since then other calls have started,
and calls overlap, so a reading is seldom what is left now. It gives two bounds: no more is left than it reports, and no less
than that without the calls that it may not include, which are all those that ran at any time beside its own. Our own count
stays between the two, and every start takes its part from it. So answers that arrive out of order can neither let too many
calls start nor hold any call for longer than the newest reading would.

At its reset a quota is full again. Where the figures show that it refills gradually (OpenAI, Anthropic, Groq: their reset is
the time until the limit is *full* again), the count does so too. Nothing is held for more than a minute: then one call is let
through to find out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fanout.core.rate_limits import RateLimitStatus, Remaining
from fanout.limits.arrivals import MAX_ARRIVAL_SKEW_S
from fanout.limits.pauses import Hold

NOT_REPORTED = Remaining()
MAX_HOLD_S = 60.0
MAX_QUOTAS = 128
"""Callers choose the names of models: of more, the oldest is forgotten."""
REFILL_PERIODS_S = (60.0, 86400.0)
"""The times in which a whole limit refills, where it refills gradually."""
REFILL_TOLERANCE_RATIO = 0.1
"""Relative difference that is allowed between a reported reset and the one computed from the rest."""
MAX_ROUNDING_S = 2.0
"""A reset that differs by more than this has not been rounded: the quota does not refill gradually."""


@dataclass(slots=True, eq=False)
class CallStart:
    """One call's start, as the reading in its answer needs it."""

    at: float
    requests_confirmed: int
    tokens_confirmed: int
    tokens: int
    is_confirmed: bool = False


class QuotaEstimate:
    """An estimate of what is left of one limit. Times are on `time.monotonic`, amounts are requests or tokens."""

    def __init__(self) -> None:
        self.reported, self.reported_at = NOT_REPORTED, -math.inf
        """The newest reading, unchanged, and the time of its arrival."""
        self.unconfirmed = 0
        """Amount taken by calls whose headers have not arrived."""
        self._level: float | None = None
        """Amount left at `_at`; `None` while nothing is known that could hold a call."""
        self._at = self._newest_start = self._renewed_at = -math.inf
        self._held_since = -math.inf
        """Time of the last reading or start: a hold ends `MAX_HOLD_S` after it."""
        self._recently_taken, self._recent_since = 0.0, -math.inf
        """Amount taken since that time, which is restarted every `MAX_ARRIVAL_SKEW_S`."""
        self._limit: int | None = None
        self._full_at = math.inf
        self._refill_per_s = 0.0
        """0 where everything comes back at the reset."""
        self._refills_at_once = False
        """A reading has shown that the quota does not refill gradually."""

    def compute_wait_s(self, now: float, amount: float, ahead: float = 0.0) -> float:
        """Return the wait until `amount` may be taken after what stands `ahead` in the queue."""
        self._renew(now)
        if self._level is None:
            return 0.0
        missing = ahead + (amount if self._limit is None else min(amount, self._limit)) - self._level
        # A gradual refill is waited for a little longer, unless all is there: requests overtake each other on their way.
        if self._refill_per_s and self._level < (self._limit or 0):
            missing += self._refill_per_s * MAX_ARRIVAL_SKEW_S
        if missing <= 1e-6:
            return 0.0
        wait = self._full_at - now
        if self._refill_per_s:
            wait = missing / self._refill_per_s if wait <= 0 else min(missing / self._refill_per_s, wait)
        return wait if ahead else max(min(wait, self._held_since + MAX_HOLD_S - now), 0.0)

    def take(self, now: float, amount: float) -> None:
        """Count a call that starts; `compute_wait_s` has just brought the level up to date."""
        if self._level is not None:
            if now - self._recent_since > MAX_ARRIVAL_SKEW_S:
                self._recently_taken, self._recent_since = 0.0, now
            self._recently_taken += amount
            self._level = max(self._level - amount, 0.0)
            self._held_since = now  # a call that was let through to find out gets the time to answer

    def read(self, now: float, left: Remaining, started: float, uncounted: float) -> None:
        """Take in a reading from the answer to a call that `started` then.

        `uncounted` is the amount taken by the calls beside that one, which the reading may not include.
        """
        is_newest = started >= self._newest_start
        if is_newest:
            self.reported, self.reported_at, self._newest_start = left, now, started
        self._renew(now)
        if left.remaining is None or left.reset_s is None or started < self._renewed_at:
            return  # without a reset it would hold for ever; from before the last reset it tells nothing about now
        if is_newest or self._level is None:
            self._limit = left.limit
            self._refill_per_s = self._detect_refill_per_s(left)
            self._full_at = now + min(left.reset_s, MAX_HOLD_S)
        lowest, highest = max(left.remaining - uncounted, 0.0), left.remaining + self._refill_per_s * (now - started)
        if self._level is None or (is_newest and self._level < lowest):
            self._level = lowest
        # An older reading may only lower the level: what started after it is in our count alone.
        self._level = min(self._level, highest)
        self._at = self._held_since = now

    def _renew(self, now: float) -> None:
        """Add what has come back since the last look."""
        if self._level is None:
            return
        if self._refill_per_s:
            self._level = min(self._level + self._refill_per_s * (now - self._at), self._limit or math.inf)
            self._at = now
        elif now >= self._full_at:
            # Calls that started just before the reset arrive after it, and are taken from the new period.
            is_recent = now - self._recent_since <= 2 * MAX_ARRIVAL_SKEW_S
            arriving = min(self._recently_taken, self.unconfirmed) if is_recent else 0.0
            self._level = None if self._limit is None else max(self._limit - arriving, 0.0)
            self._renewed_at, self._full_at = self._recent_since if arriving else now, now + MAX_HOLD_S

    def _detect_refill_per_s(self, left: Remaining) -> float:
        """Return the rate of a gradual refill; 0 where everything comes back at the reset.

        In a gradual refill, the amount used and the time until the reset match a limit of a whole minute or day; otherwise the
        reset is as far away however little is used. The rest may be rounded to whole requests, the reset to seconds, and so
        may the upstream's clock: a short reset proves nothing, and is then obeyed, which costs little.
        """
        if not left.limit or not left.reset_s or left.remaining is None or left.remaining >= left.limit:
            return self._refill_per_s if left.limit else 0.0
        used, reset_s = left.limit - left.remaining, left.reset_s
        periods = ((_compute_deviation_s(reset_s, left.limit, used, period_s), period_s) for period_s in REFILL_PERIODS_S)
        deviation_s, period_s = min(periods)
        if deviation_s > MAX_ROUNDING_S:
            self._refills_at_once = True
        return left.limit / period_s if deviation_s <= 0 and not self._refills_at_once else 0.0


def _compute_deviation_s(reset_s: float, limit: int, used: int, period_s: float) -> float:
    """Return how far a reset is outside the range that a gradual refill in `period_s` allows; at most 0 within it."""
    latest_s = period_s * used / limit
    earliest_s = max(period_s * (used - 1) / limit, latest_s / 2)
    return max(earliest_s * (1 - REFILL_TOLERANCE_RATIO) - reset_s, reset_s - latest_s * (1 + REFILL_TOLERANCE_RATIO))


@dataclass(slots=True, eq=False)
class UpstreamQuota:
    """The quotas of one model of an account, or of a group of models. Small until the upstream reports one."""

    requests: QuotaEstimate | None = None
    tokens: QuotaEstimate | None = None
    _requests_taken: int = 0
    _tokens_taken: int = 0
    _requests_confirmed: int = 0
    """Requests among those taken whose headers have arrived, or that have ended without headers."""
    _tokens_confirmed: int = 0

    @property
    def reported_at(self) -> float:
        """Time of the last reading; minus infinity before the first."""
        return max((known.reported_at for known in (self.requests, self.tokens) if known), default=-math.inf)

    def compute_wait_s(self, now: float, tokens: int, requests_ahead: int = 0, tokens_ahead: int = 0) -> float:
        """Return the wait until a call for so many tokens may start."""
        wait = self.requests.compute_wait_s(now, 1, requests_ahead) if self.requests else 0.0
        return max(wait, self.tokens.compute_wait_s(now, tokens, tokens_ahead)) if self.tokens else wait

    def start(self, now: float, tokens: int) -> CallStart:
        """Count a call that starts."""
        started = CallStart(now, self._requests_confirmed, self._tokens_confirmed, tokens)
        self._requests_taken += 1
        self._tokens_taken += tokens
        if self.requests:
            self.requests.take(now, 1)
        if self.tokens:
            self.tokens.take(now, tokens)
        if self.requests or self.tokens:
            self._recount_open_calls()
        return started

    def confirm(self, started: CallStart) -> None:
        """Note that a call's headers have arrived, or that it has ended: the upstream has counted what it took."""
        if not started.is_confirmed:
            started.is_confirmed = True
            self._requests_confirmed += 1
            self._tokens_confirmed += started.tokens
            if self.requests or self.tokens:
                self._recount_open_calls()

    def read(self, now: float, rate: RateLimitStatus, started: CallStart) -> None:
        """Take in the headers of a call's answer."""
        if rate.requests != NOT_REPORTED:
            self.requests = self.requests or QuotaEstimate()
            beside = self._requests_taken - started.requests_confirmed - 1
            self.requests.read(now, rate.requests, started.at, beside)
        if rate.tokens != NOT_REPORTED:
            self.tokens = self.tokens or QuotaEstimate()
            beside = self._tokens_taken - started.tokens_confirmed - started.tokens
            self.tokens.read(now, rate.tokens, started.at, beside)
        self.confirm(started)

    def report(self, model: str | None, now: float) -> LimitReport:
        """Return the last reading, unchanged, and its age."""
        requests, tokens = (known.reported if known else NOT_REPORTED for known in (self.requests, self.tokens))
        return LimitReport(model, requests, tokens, now - self.reported_at)

    def _recount_open_calls(self) -> None:
        if self.requests:
            self.requests.unconfirmed = self._requests_taken - self._requests_confirmed
        if self.tokens:
            self.tokens.unconfirmed = self._tokens_taken - self._tokens_confirmed


@dataclass(frozen=True, slots=True)
class LimitReport:
    """The last reading of a quota."""

    model: str | None
    requests: Remaining
    tokens: Remaining
    age_s: float


class QuotaTable:
    """The quotas of one limiter: one for each model, as most upstreams count, or a single one for the models of a group."""

    def __init__(self, *, is_group: bool) -> None:
        self.is_group = is_group
        self.has_readings = False
        self.by_model: dict[str | None, UpstreamQuota] = {}

    def get(self, model: str) -> UpstreamQuota:
        """Return the quota that counts the calls of a model, made at first use."""
        key = None if self.is_group else model
        quota = self.by_model.get(key)
        if quota is None:
            quota = self.by_model[key] = UpstreamQuota()
            # A permit keeps its quota, so that forgetting one disturbs no call in flight.
            if len(self.by_model) > MAX_QUOTAS:
                del self.by_model[next(iter(self.by_model))]
        return quota

    def find(self, model: str | None) -> UpstreamQuota | None:
        """Return the quota of a model, or with `None` of the group; `None` while the upstream has reported nothing at all."""
        return self.by_model.get(model) if self.has_readings else None

    def list_reports(self, now: float) -> list[LimitReport]:
        """Return the last reading of every quota that has one."""
        return [quota.report(model, now) for model, quota in self.by_model.items() if quota.reported_at > -math.inf]

    def list_holds(self, now: float) -> list[Hold]:
        """Return the holds of calls that would exceed what the upstream reports as left."""
        return [
            Hold(model, wait_s, reason)
            for model, quota in self.by_model.items()
            for reason, estimate in (("requests_left", quota.requests), ("tokens_left", quota.tokens))
            if estimate and (wait_s := estimate.compute_wait_s(now, 1))
        ]
