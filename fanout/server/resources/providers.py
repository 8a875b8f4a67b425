"""`GET /v1/providers`: each account's limits, what is left of them upstream, who runs and waits, and how calls went lately."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web
from yarl import URL

from fanout.config.settings import LimitsRow, ProviderSettings, Settings
from fanout.core.schema import Remaining
from fanout.core.units import to_ms
from fanout.limits.limiter import Limiter
from fanout.limits.pauses import Hold
from fanout.limits.registry import LimiterRegistry
from fanout.limits.upstream_quota import ReportedLimits
from fanout.observability.account_health import WINDOW_S, AccountHealth, RecentCalls
from fanout.server.lifecycle import DISPATCHER
from fanout.server.responses import json_response

RECENT = web.AppKey("recent", RecentCalls)


async def list_providers(request: web.Request) -> web.Response:
    """Serves `GET /v1/providers`."""
    dispatcher, recent = request.app[DISPATCHER], request.app[RECENT]
    groups = _groups(dispatcher.settings)
    data = []
    for name, provider in dispatcher.settings.providers.items():
        data.append(render_provider(provider, groups.get(name, ()), dispatcher.limiters, recent))
        await asyncio.sleep(0)  # others have their turn: an account's thousand calls take up to a millisecond to sum
    return json_response({"object": "list", "window_s": round(WINDOW_S), "data": data})


def render_provider(
    provider: ProviderSettings, groups: Iterable[str], limiters: LimiterRegistry, recent: RecentCalls
) -> dict[str, Any]:
    """A configured provider, with its accounts."""
    return {
        "id": provider.name,
        "object": "provider",
        "adapter": provider.adapter,
        "host": _host(provider),
        "ready": not provider.lacks(),
        "missing": provider.lacks(),
        "key_header": provider.row.key_header,
        "limits": provider.row.limits.model_dump(),
        "accounts": list(_accounts(provider, sorted(groups), limiters, recent)),
    }


def _groups(settings: Settings) -> dict[str, set[str]]:
    """The limit groups that a provider's models name."""
    groups: dict[str, set[str]] = {}
    for row in settings.models.values():
        if row.limit_group is not None:
            groups.setdefault(row.provider, set()).add(row.limit_group)
    return groups


def _accounts(
    provider: ProviderSettings, groups: Sequence[str], limiters: LimiterRegistry, recent: RecentCalls
) -> Iterable[dict[str, Any]]:
    """The operator's own, and the callers' own keys as one: nobody shall be found by them."""
    name, limits = provider.name, provider.row.limits
    for group in (None, *groups):
        limiter = limiters.find(name, group)
        yield {
            "limit_group": group,
            "own_keys": None,
            **_load(limits, [limiter] if limiter else []),
            "left": [_said_json(said) for said in limiter.list_reported()] if limiter else [],
            "pauses": [_pause_json(pause) for pause in limiter.list_holds()] if limiter else [],
            "recent": _recent_json(recent.summarize([(name, group, False)])),
        }
    if provider.row.key_header:
        guests = limiters.list_caller_limiters(name)
        accounts = [(name, group, True) for group in (None, *groups)]
        yield {
            "limit_group": None,
            "own_keys": len(guests),
            **_load(limits, guests),
            "left": [],
            "pauses": [],
            "recent": _recent_json(recent.summarize(accounts)),
        }


def _load(limits: LimitsRow, limiters: Sequence[Limiter]) -> dict[str, Any]:
    states = [limiter.snapshot() for limiter in limiters]
    allowed = sum(limiter.concurrency for limiter in limiters) if limiters else limits.concurrency or math.inf
    return {
        "in_flight": sum(state.in_flight for state in states),
        "concurrency": None if allowed == math.inf else int(allowed),
        "waiting": sum(state.waiting for state in states),
        "waiting_batch": sum(state.waiting_batch for state in states),
    }


def _said_json(said: ReportedLimits) -> dict[str, Any]:
    return {
        "model": said.model,
        "age_s": round(said.age_s, 3),
        "requests": _left_json(said.requests, said.age_s),
        "tokens": _left_json(said.tokens, said.age_s),
    }


def _left_json(left: Remaining, age_s: float) -> dict[str, Any]:
    reset_s = None if left.reset_s is None else round(max(left.reset_s - age_s, 0.0), 3)
    return {"limit": left.limit, "remaining": left.remaining, "reset_s": reset_s}


def _pause_json(pause: Hold) -> dict[str, Any]:
    return {"model": pause.model, "seconds_left": round(pause.seconds, 3), "reason": pause.reason}


def _recent_json(lately: AccountHealth) -> dict[str, Any]:
    return {
        "calls": lately.calls,
        "answered": lately.answered,
        "failures": lately.failures,
        "error_rate": lately.error_rate,
        "median_ms": to_ms(lately.median_s),
        "p95_ms": to_ms(lately.p95_s),
        "median_ttft_ms": to_ms(lately.median_first_token_s),
    }


def _host(provider: ProviderSettings) -> str | None:
    """Where calls go, and nothing else of the address: there may be a key in the rest."""
    try:
        url = URL(provider.base_url or "")
    except ValueError:
        return None
    return url.host_port_subcomponent
