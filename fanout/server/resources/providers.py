"""`GET /v1/providers`: the state of every provider's accounts."""

from __future__ import annotations

import asyncio

from aiohttp import web

from fanout.observability.account_health import WINDOW_S
from fanout.rendering.provider import ProviderListJson, render_provider
from fanout.server.lifecycle import ACCOUNT_HEALTH, DISPATCHER
from fanout.server.openapi.endpoint import Endpoint, list_lookup_answers
from fanout.server.responses import json_response


async def list_providers(request: web.Request) -> web.Response:
    """Serve `GET /v1/providers`."""
    dispatcher, recent = request.app[DISPATCHER], request.app[ACCOUNT_HEALTH]
    groups: dict[str, set[str]] = {}
    for row in dispatcher.settings.models.values():
        if row.limit_group is not None:
            # From the models: a group exists only by being named there.
            groups.setdefault(row.provider, set()).add(row.limit_group)
    answer: ProviderListJson = {"object": "list", "window_s": round(WINDOW_S), "data": []}
    for name, provider in dispatcher.settings.providers.items():
        answer["data"].append(render_provider(provider, groups.get(name, ()), dispatcher.limiters, recent))
        await asyncio.sleep(0)  # yield: summing an account's calls can take 1 ms
    return json_response(answer)


EXAMPLE_ACCOUNT = {
    "limit_group": None,
    "own_keys": None,
    "in_flight": 12,
    "concurrency": 64,
    "waiting": 3,
    "waiting_batch": 0,
    "processes": 2,
    "store_lost": False,
    "reported_limits": [
        {
            "model": "gpt-6-luna",
            "age_s": 0.31,
            "requests": {"limit": 500, "remaining": 0, "reset_s": 3.2},
            "tokens": {"limit": 200000, "remaining": 81230, "reset_s": 35.631},
        }
    ],
    "pauses": [{"model": "gpt-6-luna", "seconds_left": 3.2, "reason": "requests_left"}],
    "circuits": [],
    "recent": {
        "calls": 240,
        "answered": 237,
        "failures": {"rate_limit": 1, "cancelled": 2},
        "error_rate": 0.0042,
        "median_ms": 740,
        "p95_ms": 2210,
        "median_ttft_ms": None,
    },
}
EXAMPLE_PROVIDER = {
    "id": "openai",
    "object": "provider",
    "adapter": "openai",
    "host": "api.openai.com",
    "ready": True,
    "missing": [],
    "key_page": "https://platform.openai.com/api-keys",
    "key_header": None,
    "limits": {
        "requests_per_minute": None,
        "burst": None,
        "tokens_per_minute": None,
        "token_bucket": False,
        "concurrency": 64,
        "ramp": {"starts": 20, "period_s": 10.0},
    },
    "accounts": [EXAMPLE_ACCOUNT],
}
ENDPOINTS = (
    Endpoint(
        "GET /v1/providers",
        list_providers,
        id="providers",
        tag="Models and usage",
        summary="Providers and the state of their accounts",
        description="For each account: the limits set here, the quota left by the provider's last answer, calls in flight and "
        "waiting, holds, and the outcomes of the last minutes. Callers' own keys are shown together.",
        answers=list_lookup_answers(
            ProviderListJson,
            "Every configured provider.",
            {"one that has to wait": {"object": "list", "window_s": 300, "data": [EXAMPLE_PROVIDER]}},
        ),
    ),
)
