"""The limits of a key at a moment: what is left of them, and when there is more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fanout.core.units import to_rfc3339
from fanout.rendering.errors import ErrorReply, render_error
from fanout.requests.keys import KeyLimits
from fanout.server.accounts.ledger import MINUTE_S, KeyCounts, find_first_day, find_next_day, find_next_month

DAY_S = 86_400
BUSY_WAIT_S = 0.1
"""Time after which a job looks again whether another call of its key has ended."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The needs of a request, or of a call of a job, before it is sent."""

    tokens: int = 0
    cost_usd: float = 0.0
    at: float = 0.0
    """Unix seconds in whose minute the tokens are counted."""


@dataclass(frozen=True, slots=True)
class LimitWindow:
    """The use of a limit by the minute, over the last sixty seconds.

    Of the minute before this one, the share counts that lies within them, as if it had been used evenly: two numbers
    survive a restart and are shared by servers, a list of times would not.
    """

    limit: int
    before: int
    current: int
    elapsed: float
    """Part of the current minute that is over, 0 to 1."""

    @property
    def used(self) -> int:
        return math.ceil(self.before * (1 - self.elapsed) + self.current)

    def compute_wait_s(self, needed: int) -> float:
        """Return the time until so much is left; infinite if it is more than the whole limit."""
        room = self.limit - needed
        if room < 0:
            return math.inf
        if self.used <= room:
            return 0.0
        if self.current <= room:  # enough of the minute before leaves within this one
            return (1 - (room - self.current) / self.before - self.elapsed) * MINUTE_S
        return (1 - self.elapsed + 1 - room / self.current) * MINUTE_S

    def compute_reset_s(self) -> float:
        """Return the time until all of the limit is left."""
        return ((2 if self.current else 1 if self.before else 0) - self.elapsed if self.used else 0.0) * MINUTE_S


def list_windows(counts: KeyCounts, limits: KeyLimits, now: float) -> Mapping[str, LimitWindow]:
    """Return the limits by the minute that a key has: `requests` and `tokens`."""
    minute, elapsed = int(now // MINUTE_S), now % MINUTE_S / MINUTE_S
    before, current = counts.find_minute(minute - 1), counts.find_minute(minute)
    found = {}
    if limits.requests_per_minute is not None:
        found["requests"] = LimitWindow(limits.requests_per_minute, before.requests, current.requests, elapsed)
    if limits.tokens_per_minute is not None:
        found["tokens"] = LimitWindow(limits.tokens_per_minute, before.tokens, current.tokens, elapsed)
    return found


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget, and what is spent of it."""

    period: str
    """`day`, `month` or `total`."""
    limit_usd: float
    spent_usd: float
    renews: float | None
    """Unix seconds; `None`: never."""


def list_budgets(counts: KeyCounts, limits: KeyLimits, now: float) -> list[BudgetState]:
    """Return the budgets that a key has, the one that renews last at the end."""
    periods = (
        ("day", limits.budget_day_usd, int(now // DAY_S), find_next_day(now)),
        ("month", limits.budget_month_usd, find_first_day(now), find_next_month(now)),
        ("total", limits.budget_total_usd, None, None),
    )
    return [
        BudgetState(period, limit, counts.sum_days(first_day).cost_usd, renews)
        for period, limit, first_day, renews in periods
        if limit is not None
    ]


def find_spent_budget(counts: KeyCounts, limits: KeyLimits, now: float, cost_usd: float) -> BudgetState | None:
    """Return the budget that a cost does not fit into, of several the one that renews last."""
    if not cost_usd:  # what is free takes no money that is not there
        return None
    over = [
        budget
        for budget in list_budgets(counts, limits, now)
        if budget.spent_usd + counts.reserved_usd + cost_usd > budget.limit_usd
    ]
    return over[-1] if over else None


def explain_budget(budget: BudgetState, counts: KeyCounts, cost_usd: float) -> str:
    """Return the sentence about a budget that a cost does not fit into."""
    per = {"day": " a day", "month": " a month", "total": " in total"}[budget.period]
    renews = f"it renews at {to_rfc3339(budget.renews, 'seconds')}" if budget.renews else "it does not renew"
    reserved = f", {counts.reserved_usd:.6g} reserved for calls in flight" if counts.reserved_usd else ""
    return (
        f"this key's budget is {budget.limit_usd:g} USD{per}: {budget.spent_usd:.6g} are spent{reserved}, and this could cost "
        f"{cost_usd:.6g}; {renews}"
    )


def refuse(counts: KeyCounts, limits: KeyLimits, now: float, demand: Demand) -> ErrorReply | None:
    """Return the answer to a request that the limits of its key do not allow now; `None`: they do."""
    if budget := find_spent_budget(counts, limits, now, demand.cost_usd):
        wait = {"Retry-After": str(math.ceil(budget.renews - now))} if budget.renews else {}
        sentence, headers = explain_budget(budget, counts, demand.cost_usd), {**wait, "x-should-retry": "false"}
        return render_error(402, sentence, type_="insufficient_quota", code="budget_spent", headers=headers)
    windows = list_windows(counts, limits, now)
    headers = build_rate_headers(windows)
    if limits.in_flight is not None and counts.in_flight >= limits.in_flight:
        sentence = f"this key may have {limits.in_flight} requests in flight at once, and has as many"
        return _refuse_rate(sentence, {**headers, "Retry-After": "1"})
    needed = {"requests": 1, "tokens": demand.tokens}
    waits = {name: window.compute_wait_s(needed[name]) for name, window in windows.items()}
    name = max(waits, key=lambda one: waits[one], default=None)
    if name is None or not waits[name]:
        return None
    sentence = f"this key may use {windows[name].limit} {name} a minute, has used {windows[name].used}, needs {needed[name]}"
    if waits[name] == math.inf:
        return _refuse_rate(f"{sentence}: it would never fit; ask for less, such as fewer `max_tokens`", headers | NEVER)
    return _refuse_rate(sentence, {**headers, "Retry-After": str(math.ceil(waits[name]))})


def compute_wait_s(counts: KeyCounts, limits: KeyLimits, now: float, demand: Demand) -> float:
    """Return the time until a call of a job may start by the limits of its key, money aside; infinite: it never may."""
    if limits.in_flight is not None and counts.in_flight >= limits.in_flight:
        return BUSY_WAIT_S
    needed = {"requests": 1, "tokens": demand.tokens}
    return max((window.compute_wait_s(needed[name]) for name, window in list_windows(counts, limits, now).items()), default=0.0)


NEVER = {"x-should-retry": "false"}


def _refuse_rate(sentence: str, headers: Mapping[str, str]) -> ErrorReply:
    return render_error(429, sentence, type_="rate_limit_error", code="rate_limit_exceeded", headers=headers)


def build_rate_headers(windows: Mapping[str, LimitWindow]) -> dict[str, str]:
    """Return the headers that tell a caller what is left.

    Source: https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
    """
    headers = {}
    for name, window in windows.items():
        headers[f"x-ratelimit-limit-{name}"] = str(window.limit)
        headers[f"x-ratelimit-remaining-{name}"] = str(max(window.limit - window.used, 0))
        minutes, seconds = divmod(math.ceil(window.compute_reset_s()), 60)
        headers[f"x-ratelimit-reset-{name}"] = f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
    return headers
