"""Examples of keys in the OpenAPI document."""

from __future__ import annotations

EXAMPLE_LIMITS = {
    "models": ["local/*"],
    "requests_per_minute": 60,
    "tokens_per_minute": 100000,
    "in_flight": 8,
    "queue_share": 0.25,
    "budget_day_usd": 5.0,
    "budget_month_usd": 50.0,
    "budget_total_usd": None,
    "max_files": 100,
    "max_stored_bytes": 1000000000,
    "max_rows": 100000,
    "max_running_jobs": 2,
}
EXAMPLE_KEY = {
    "id": "key_0b54b61c9df74f0f9d3b5a2d",
    "object": "key",
    "name": "nightly evaluation",
    "account_id": "team-a",
    "role": "user",
    "state": "active",
    "prefixes": ["fk-3k9x2m7qp0ab"],
    "created": "2026-11-27T20:00:00.000Z",
    "created_by": "environment:operator",
    "expires": "2027-12-01T00:00:00Z",
    "revoked": None,
    "limits": EXAMPLE_LIMITS,
}
EXAMPLE_USE = {
    **EXAMPLE_KEY,
    "used": {
        "requests_per_minute": 12,
        "tokens_per_minute": 3400,
        "in_flight": 1,
        "budget_day_usd": 0.75,
        "budget_month_usd": 12.5,
        "budget_total_usd": 40.0,
    },
    "reserved_usd": 0.25,
    "left": {
        "requests_per_minute": 48,
        "tokens_per_minute": 96600,
        "in_flight": 7,
        "budget_day_usd": 4.0,
        "budget_month_usd": 37.25,
        "budget_total_usd": None,
    },
    "renews": {"budget_day_usd": "2026-11-28T00:00:00Z", "budget_month_usd": "2026-12-01T00:00:00Z"},
}
CREATE_EXAMPLE = {
    "name": "nightly evaluation",
    "account_id": "team-a",
    "models": ["local/*"],
    "requests_per_minute": 60,
    "budget_day_usd": 5,
    "expires": "2099-12-01",
}
