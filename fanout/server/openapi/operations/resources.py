"""Models, providers, usage and the server's own pages, described."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fanout.rendering.model import ModelLimitsJson
from fanout.server.openapi.operations.answers import Said
from fanout.server.openapi.operations.legacy import Operation, Operations
from fanout.server.openapi.operations.shared import failing, reading
from fanout.server.resources.usage import UsageQuery


class LimitLeft(Said):
    """One limit, as its provider told of it."""

    limit: int | None
    remaining: int | None
    """When it was told; what has started since is not in it."""
    reset_s: float | None
    """Seconds from now until all of it is there again."""


class RateLeft(Said):
    """What the headers of a provider's last answer said is left."""

    model: str | None
    """As the provider knows it; null: the models of the limit group together."""
    age_s: float
    requests: LimitLeft
    tokens: LimitLeft


class AccountPause(Said):
    """Nothing starts now."""

    model: str | None
    """As the provider knows it; null: the account, or the limit group, as a whole."""
    seconds_left: float
    reason: str
    """`requests_left`, `tokens_left`: the provider's headers say that too few are; else the code of the failure with which it
    asked to be left alone."""


class AccountRecent(Said):
    """Calls that ended in the last `window_s` seconds, the last thousand at most; null where none of them tells."""

    calls: int
    """Retries not counted."""
    answered: int
    failures: dict[str, int]
    """By kind: `rate_limit`, `timeout`, `cancelled`, …"""
    error_rate: float | None
    """0 to 1, of the calls that were not cancelled."""
    median_ms: int | None
    """Of successful attempts, start to last byte; waiting is no part of it."""
    p95_ms: int | None
    median_ttft_ms: int | None
    """Of streamed ones, start to first content."""


class Account(Said):
    """What shares limits: a provider's key, or a group of models in it; or callers' own keys, taken together."""

    limit_group: str | None
    own_keys: int | None
    """How many keys of callers' own are known here, each with limits of its own: the figures are of all; null: the server's."""
    in_flight: int
    concurrency: int | None
    """Calls in flight that are allowed; null: no limit."""
    waiting: int
    waiting_batch: int
    """Those of them that let others go first."""
    left: list[RateLeft]
    """Empty where the provider says nothing, or nobody asked it yet."""
    pauses: list[AccountPause]
    recent: AccountRecent


class Provider(Said):
    """A provider, ready or with what it lacks."""

    id: str
    object: Literal["provider"]
    adapter: str
    """The wire format it speaks."""
    host: str | None
    """null: inside Fanout, or its address is not set."""
    ready: bool
    missing: list[str]
    """Variables to set on the server before it can be called."""
    key_header: str | None
    """The header in which a caller may bring a key of his own."""
    limits: ModelLimitsJson
    accounts: list[Account]


class ProviderList(Said):
    object: Literal["list"]
    window_s: int
    """How far back `recent` goes."""
    data: list[Provider]


class UsageRow(Said):
    """The sums of one group. Only what the rows are grouped by is in them."""

    account_id: str | None = None
    """null: asked without an account."""
    model: str | None = None
    """As callers wrote it."""
    provider: str | None = None
    """null: no model has that name."""
    upstream_model: str | None = None
    day: str | None = None
    """`2026-11-20`, UTC."""
    hour: str | None = None
    """`2026-11-20T09:00:00Z`."""
    requests: int
    """Calls upstream, retries not counted: a request to three models is three."""
    answered: int
    failures: dict[str, int]
    """Calls that were not answered, by kind: `rate_limit`, `timeout`, `cancelled`, …"""
    prompt_tokens: int | None
    """Of answered calls; a provider may bill a call that timed out or was cancelled all the same."""
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    unknown_usage: int
    """Answered calls whose usage the provider did not report: they are not in the tokens."""
    cost_usd: float | None
    cost_unknown: int
    """Answered calls with no known price: they are not in the cost."""


class UsageAnswer(Said):
    """What was called, by whom, and what it cost."""

    object: Literal["list"]
    from_: str | None = Field(alias="from")
    """null: from the beginning."""
    to: str
    """Before this minute."""
    group_by: list[str]
    data: list[UsageRow]


USAGE_ROW = {
    "account_id": "team-a",
    "model": "gpt-4o-mini",
    "requests": 1250,
    "answered": 1247,
    "failures": {"rate_limit": 2, "timeout": 1},
    "prompt_tokens": 98230,
    "completion_tokens": 40112,
    "total_tokens": 138342,
    "cached_tokens": 12800,
    "unknown_usage": 0,
    "cost_usd": 0.038801,
    "cost_unknown": 0,
}
USAGE = Operation(
    id="usage",
    tag="Models and usage",
    summary="Calls, tokens, cost and failures by account",
    description="Sums over the calls that ended in a time, whichever endpoint asked for them, up to this moment. The account "
    "is Scale's `account_id`, or the header `x-selected-account-id` on any endpoint. Times are kept by the minute, in UTC.",
    query=UsageQuery,
    examples={"a month by day and model": {"from": "2026-11-01", "to": "2026-11-30", "group_by": "day,model"}},
    answers={
        **reading(
            UsageAnswer,
            "A row for each group, sorted by the group.",
            {
                "by account and model": {
                    "object": "list",
                    "from": "2026-11-01T00:00:00Z",
                    "to": "2026-12-01T00:00:00Z",
                    "group_by": ["account", "model"],
                    "data": [USAGE_ROW],
                }
            },
        ),
        **failing(400, "Wrong parameters, all of them named in `details`; or more rows than an answer may have."),
        **failing(
            503, "No usage is kept (FANOUT_STORE is `off`), or its database cannot be read now. Or the server is stopping."
        ),
    },
)
ACCOUNT = {
    "limit_group": None,
    "own_keys": None,
    "in_flight": 12,
    "concurrency": 64,
    "waiting": 3,
    "waiting_batch": 0,
    "left": [
        {
            "model": "gpt-4o-mini",
            "age_s": 0.31,
            "requests": {"limit": 500, "remaining": 0, "reset_s": 3.2},
            "tokens": {"limit": 200000, "remaining": 81230, "reset_s": 35.631},
        }
    ],
    "pauses": [{"model": "gpt-4o-mini", "seconds_left": 3.2, "reason": "requests_left"}],
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
PROVIDER = {
    "id": "openai",
    "object": "provider",
    "adapter": "openai",
    "host": "api.openai.com",
    "ready": True,
    "missing": [],
    "key_header": None,
    "limits": {"requests_per_minute": None, "burst": None, "tokens_per_minute": None, "concurrency": 64},
    "accounts": [ACCOUNT],
}
PROVIDERS = Operation(
    id="providers",
    tag="Models and usage",
    summary="Providers and their accounts, now",
    description="Where each account stands: the limits set here, what is left of the provider's own by its last answer, calls "
    "in flight and waiting, pauses, and how the last minutes' calls went. Callers' own keys are shown together.",
    answers=reading(
        ProviderList,
        "Every configured provider.",
        {"one that has to wait": {"object": "list", "window_s": 300, "data": [PROVIDER]}},
    ),
)
OPERATIONS: Operations = {
    ("GET", "/v1/providers"): PROVIDERS,
    ("GET", "/v1/usage"): USAGE,
}
