"""The use of a key, and what is left to it, as answers show them."""

from __future__ import annotations

import time

from fanout.core.units import to_rfc3339
from fanout.rendering.keys import KeyAmountsJson, KeyJson, KeyUseJson
from fanout.requests.keys import KeyLimits
from fanout.server.accounts.ledger import MINUTE_S, KeyCounts, find_first_day, find_next_day, find_next_month
from fanout.server.accounts.limits import DAY_S, LimitWindow


def render_use(key: KeyJson, counts: KeyCounts, limits: KeyLimits) -> KeyUseJson:
    """Return a key with what it has used and what is left."""
    now = time.time()
    minute, elapsed = int(now // MINUTE_S), now % MINUTE_S / MINUTE_S
    before, current = counts.find_minute(minute - 1), counts.find_minute(minute)
    used: KeyAmountsJson = {
        "requests_per_minute": LimitWindow(0, before.requests, current.requests, elapsed).used,
        "tokens_per_minute": LimitWindow(0, before.tokens, current.tokens, elapsed).used,
        "in_flight": counts.in_flight,
        "budget_day_usd": counts.sum_days(int(now // DAY_S)).cost_usd,
        "budget_month_usd": counts.sum_days(find_first_day(now)).cost_usd,
        "budget_total_usd": counts.sum_days(None).cost_usd,
    }
    left = {}
    for name, amount in used.items():
        limit, reserved = getattr(limits, name), counts.reserved_usd if name.startswith("budget") else 0
        left[name] = None if limit is None else max(limit - amount - reserved, 0)
    renews = {"budget_day_usd": find_next_day(now), "budget_month_usd": find_next_month(now)}
    return {
        **key,
        "used": used,
        "reserved_usd": counts.reserved_usd,
        "left": left,  # type: ignore[typeddict-item]  # the same names
        "renews": {name: to_rfc3339(at, "seconds") for name, at in renews.items()},  # type: ignore[typeddict-item]
    }
