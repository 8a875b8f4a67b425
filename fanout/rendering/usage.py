"""Usage as `/v1/usage` shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import Field
from typing_extensions import Doc, TypedDict

from fanout.core.units import to_rfc3339
from fanout.rendering.shared import CostTotalsJson, TokenCountsJson, render_token_counts
from fanout.store.usage import GroupUsage


class UsageGroupJson(TypedDict):
    account_id: Annotated[NotRequired[str | None], Doc("Account that the callers named; null: none.")]
    model: Annotated[NotRequired[str | None], Doc("Model; null: failed calls to names without an entry in the configuration.")]
    provider: Annotated[NotRequired[str | None], Doc("Provider that was called; null: no model has that name.")]
    upstream_model: Annotated[NotRequired[str | None], Doc("Name that the provider knows.")]
    day: Annotated[NotRequired[str | None], Doc("Day in UTC: `2026-11-20`.")]
    hour: Annotated[NotRequired[str | None], Doc("Start of the hour in UTC: `2026-11-20T09:00:00Z`.")]


class UsageRowJson(UsageGroupJson, TokenCountsJson, CostTotalsJson):
    """Sums of one group, with those of the fields `account_id` to `hour` by which the rows are grouped.

    Failed calls are not in the tokens, though a provider may bill some of them.
    """

    requests: Annotated[int, Doc("Upstream calls, retries not counted: a request to three models is three.")]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failures: Annotated[dict[str, int], Doc("Calls that failed, by kind: `rate_limit`, `timeout`, `cancelled`, …")]
    unknown_usage: Annotated[int, Doc("Answered calls whose usage the provider did not report: they are not in the tokens.")]


UsageHeadJson = TypedDict(
    "UsageHeadJson",
    {
        "object": Annotated[Literal["list"], Field(description="Always `list`.")],
        "from": Annotated[str | None, Field(description="Start of the time; null: from the beginning.")],
        "to": Annotated[str, Field(description="End of the time: this minute is no longer in it.")],
        "group_by": Annotated[Sequence[str], Field(description="Names by which the rows are grouped.")],
    },
)
# Not a class, because `from` is a keyword of Python.


class UsageAnswerJson(UsageHeadJson):
    """Calls, tokens, cost and failures by group."""

    data: Annotated[list[UsageRowJson], Doc("Rows, sorted by group.")]


def render_usage_head(since: int, until: int, group_by: Sequence[str]) -> UsageHeadJson:
    """Return the answer without its rows; times are Unix seconds, and a `since` of 0 is the beginning."""
    return {"object": "list", "from": _to_time(since) if since else None, "to": _to_time(until), "group_by": group_by}


def render_usage_row(usage: GroupUsage) -> UsageRowJson:
    """Return the sums of a group."""
    totals = usage.totals
    return {
        **_render_group(usage.group),
        "requests": totals.calls,
        "answered": usage.answered,
        "failures": usage.failures,
        **render_token_counts(totals),
        "unknown_usage": totals.unknown_usage,
        # Digits below a trillionth of a dollar are only floating-point errors.
        "cost_usd": None if totals.cost_usd is None else round(totals.cost_usd, 12),
        "cost_unknown": totals.cost_unknown,
    }


def _render_group(group: Mapping[str, Any]) -> UsageGroupJson:
    write: Mapping[str, Callable[[int], str]] = {"day": lambda second: _to_time(second)[:10], "hour": _to_time}
    # An absent name is stored as an empty text, because SQL groups no nulls.
    found = {name: write[name](value) if name in write else value or None for name, value in group.items()}
    return cast(UsageGroupJson, found)


def _to_time(second: int) -> str:
    return to_rfc3339(second, "seconds")
