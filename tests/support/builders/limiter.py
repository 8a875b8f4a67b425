"""Limiters, and calls that wait for them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fanout.config.providers_file import LimitsRow
from fanout.core.rate_limits import RateLimitStatus
from fanout.limits.limiter import InFlightCap, Limiter
from fanout.limits.queue import Permit, Priority
from fanout.limits.token_estimates import CallSize

FAR = 3600.0


def build_limiter(period_s: float = 0.2, cap: InFlightCap | None = None, max_waiting: int = 20_000, **limits: int) -> Limiter:
    return Limiter("account", LimitsRow(**limits), cap, max_waiting=max_waiting, period_s=period_s)


async def acquire(
    limits: Limiter,
    model: str = "m",
    priority: Priority = Priority.INTERACTIVE,
    max_tokens: int | None = None,
    within_s: float = FAR,
) -> Permit:
    size = CallSize(0, max_tokens) if limits.counts_tokens else None
    return await limits.acquire(model, size, priority=priority, deadline=time.monotonic() + within_s)


async def start_call(limits: Limiter, **options: Any) -> Permit:
    """Acquire a permit, whose request leaves at once; options as for `acquire`."""
    permit = await acquire(limits, **options)
    limits.counted.count(permit)
    return permit


async def wait_for_waiters(limits: Limiter, count: int) -> None:
    while limits.snapshot().waiting < count:
        await asyncio.sleep(0)


async def report_limits(limits: Limiter, rate: RateLimitStatus, model: str = "m") -> None:
    """Make one call whose answer reports these limits."""
    permit = await acquire(limits, model)
    limits.record_headers(permit, rate)
    limits.release(permit)
