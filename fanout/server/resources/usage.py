"""`GET /v1/usage`: calls, tokens, cost and failures, by account, model and time."""

from __future__ import annotations

import time
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.core.suggestions import did_you_mean
from fanout.core.units import LAST_MINUTE, parse_time, to_rfc3339
from fanout.rendering.usage import UsageAnswerJson, render_usage_head, render_usage_row
from fanout.server.lifecycle import STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import Endpoint, list_store_answers
from fanout.server.resources.listing import DAY_S, list_response, read_query, time_schema
from fanout.server.resources.storage import store_failed_response, store_off_response
from fanout.store.usage import UsageFilter

MINUTE_S = 60
GROUPS = {name: name for name in ("model", "provider", "upstream_model", "day", "hour")} | {"account": "account_id"}
"""Name in `group_by` → name in the answer and in the store."""
MAX_ROWS = 10_000


def _parse_from(text: str) -> int:
    return _to_minute(parse_time(text)[0] // MINUTE_S)


def _parse_to(text: str) -> int:
    # The first minute that lies wholly after it: usage is kept by the minute, and a date stands for its whole day.
    moment, is_date = parse_time(text)
    return _to_minute((moment + DAY_S) // MINUTE_S if is_date else -(-moment // MINUTE_S))


def _to_minute(number: float) -> int:
    # Clamped, not refused: "since the year 1" is a plain way to ask for everything.
    return min(max(int(number) * MINUTE_S, 0), LAST_MINUTE)


def _parse_groups(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if name not in GROUPS]
    if wrong:
        hints = "; ".join(f"`{name[:40]}` is not allowed{did_you_mean(name, GROUPS)}" for name in wrong[:8])
        raise ValueError(f"{hints}; allowed: {', '.join(GROUPS)}, separated by commas")
    # A dimension named twice would be selected twice, and clash in the row.
    return tuple(dict.fromkeys(names))


GROUP_BY_SCHEMA = {"type": "string", "pattern": f"^(({'|'.join(GROUPS)})(,({'|'.join(GROUPS)}))*)?$", "examples": ["day,model"]}


class PeriodQuery(BaseModel):
    """The time and account of a report."""

    model_config = ConfigDict(extra="forbid")

    account_id: str | None = Field(None, max_length=256)
    """Only this account's calls; empty: only those without an account; absent: the key's own; without keys by
    the header `x-selected-account-id`, else all."""
    from_: Annotated[int | None, BeforeValidator(_parse_from), time_schema("2026-11-01")] = Field(None, alias="from")
    """Start: a date or an RFC 3339 time, rounded down to its minute; absent: from the beginning."""
    to: Annotated[int | None, BeforeValidator(_parse_to), time_schema("2026-11-20T09:30:00Z")] = None
    """End: a date, whose whole day is included, or an RFC 3339 time, rounded up to its minute; absent: now."""

    @field_validator("to")
    @classmethod
    def _check_order(cls, value: int | None, info: ValidationInfo) -> int | None:
        since = info.data.get("from_")
        if value is not None and since is not None and value < since:
            raise ValueError(f"{to_rfc3339(value, 'seconds')} is before `from`, {to_rfc3339(since, 'seconds')}")
        return value

    @property
    def until(self) -> int:
        """The end in Unix seconds; without `to` that of the current minute, so that calls that have just ended are in it."""
        return int(time.time()) // MINUTE_S * MINUTE_S + MINUTE_S if self.to is None else self.to


class UsageQuery(PeriodQuery):
    """The time, account and groups of a usage report."""

    group_by: Annotated[tuple[str, ...], BeforeValidator(_parse_groups), WithJsonSchema(GROUP_BY_SCHEMA)] = Field(
        ("account", "model"), json_schema_extra={"default": "account,model"}
    )
    """Dimensions of the rows: names out of `model`, `account`, `provider`, `upstream_model`, `day` and `hour` (UTC), separated
    by commas. Empty: one row for all."""

    def to_filter(self, account_id: str | None) -> UsageFilter:
        """Return the query as the store takes it, for one account or all."""
        return UsageFilter(
            since=self.from_ or 0,
            until=self.until,
            account_id=account_id,
            group_by=tuple(GROUPS[name] for name in self.group_by),
            # One more than an answer may have, to see that there are too many.
            limit=MAX_ROWS + 1,
        )


async def get_usage(request: web.Request) -> web.Response:
    """Serve `GET /v1/usage`."""
    query = read_query(request, UsageQuery, joined=("group_by",))
    if STORE not in request.app:
        return store_off_response(request, "no usage is kept")
    filter_ = query.to_filter(auth.choose_account(request, query.account_id))
    try:
        sums = await request.app[STORE].usage.report(filter_)
    except StoreError as error:
        return store_failed_response(request, error, "usage.read_failed", "usage cannot be read now")
    # Refused and not cut: sums over an unknown part would look like sums over all.
    if len(sums) > MAX_ROWS:
        raise RequestError([Fault("group_by", f"makes more than {MAX_ROWS} rows: group by less, or ask for less")])
    return await list_response(sums, render_usage_row, render_usage_head(filter_.since, filter_.until, query.group_by))


EXAMPLE_ROW = {
    "account_id": "team-a",
    "model": "gpt-6-luna",
    "requests": 1250,
    "answered": 1247,
    "failures": {"rate_limit": 2, "timeout": 1},
    "prompt_tokens": 98230,
    "completion_tokens": 40112,
    "total_tokens": 138342,
    "cached_tokens": 12800,
    "unknown_usage": 0,
    "cost_usd": 0.028727,
    "cost_unknown": 0,
}
EXAMPLE = {
    "object": "list",
    "from": "2026-11-01T00:00:00Z",
    "to": "2026-12-01T00:00:00Z",
    "group_by": ["account", "model"],
    "data": [EXAMPLE_ROW],
}
ENDPOINTS = (
    Endpoint(
        "GET /v1/usage",
        get_usage,
        id="usage",
        tag="Models and usage",
        summary="Calls, tokens, cost and failures by account",
        description="Sums over the calls that ended in a time, through whichever endpoint, up to this moment. The account is "
        "the key's; without keys Scale's `account_id`, or the header `x-selected-account-id` on any endpoint. Times are kept "
        "by the minute, in UTC.",
        query=UsageQuery,
        examples={"a month by day and model": {"from": "2026-11-01", "to": "2026-11-30", "group_by": "day,model"}},
        answers=list_store_answers(
            UsageAnswerJson,
            "A row for each group, sorted by group.",
            {"by account and model": EXAMPLE},
            invalid="Wrong parameters, all of them named in `details`; or more rows than an answer may have.",
        ),
    ),
)
