"""Figures of providers over time, as `/v1/providers/figures` shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import Doc, TypedDict

from fanout.core.units import to_ms, to_rfc3339
from fanout.rendering.shared import CostTotalsJson, TokenCountsJson, render_token_counts
from fanout.store.call_times import Times, find_quantile
from fanout.store.usage import GroupUsage


class ProviderStepJson(TokenCountsJson, CostTotalsJson):
    """The calls of one provider that ended within one step. Figures that no call gives are null."""

    start: Annotated[str, Doc("Start of the step, in UTC.")]
    calls: Annotated[int, Doc("Calls that ended, retries not counted.")]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failures: Annotated[Mapping[str, int], Doc("Calls that failed, by kind: `rate_limit`, `timeout`, `cancelled`, …")]
    error_rate: Annotated[float | None, Doc("Share that failed, 0 to 1, of the calls that were not cancelled.")]
    rate_limits: Annotated[int, Doc("Attempts that the provider refused for a limit and that were repeated after a pause.")]
    p95_wait_ms: Annotated[int | None, Doc("95th percentile of the time that calls waited for limits, in all.")]
    median_ms: Annotated[int | None, Doc("Median duration of answered attempts, from start to last byte, exact to 7 %.")]
    p95_ms: Annotated[int | None, Doc("95th percentile of the same durations.")]
    median_ttft_ms: Annotated[int | None, Doc("Median time of streamed attempts from start to first content.")]
    unknown_usage: Annotated[int, Doc("Answered calls whose usage the provider did not report: they are not in the tokens.")]


class ProviderSeriesJson(TypedDict):
    """One provider's figures over time."""

    provider: Annotated[str, Doc("Name in providers.json.")]
    steps: Annotated[list[ProviderStepJson], Doc("Steps in which calls ended, in order; in all others there was none.")]


ProviderFiguresJson = TypedDict(
    "ProviderFiguresJson",
    {
        "object": Annotated[Literal["list"], Field(description="Always `list`.")],
        "from": Annotated[str, Field(description="Start of the first step.")],
        "to": Annotated[str, Field(description="End of the last step.")],
        "step_s": Annotated[int, Field(description="Length of a step in seconds.")],
        "in_memory": Annotated[
            bool, Field(description="The store is in memory: what was before the start of the server is not known.")
        ],
        "data": Annotated[list[ProviderSeriesJson], Field(description="Every provider with calls within the time.")],
    },
)
# Not a class, because `from` is a keyword of Python.


def render_provider_step(start: int, usage: GroupUsage | None, times: Times) -> ProviderStepJson:
    """Return the figures of a provider's step; without usage, only refused attempts are known."""
    usage = usage or GroupUsage({})
    failures, totals = Counter(usage.failures), usage.totals
    judged = totals.calls - failures["cancelled"]
    return {
        "start": to_rfc3339(start, "seconds"),
        "calls": totals.calls,
        "answered": usage.answered,
        "failures": usage.failures,
        "error_rate": round((judged - usage.answered) / judged, 4) if judged else None,
        "rate_limits": sum(times.get("rate_limit", {}).values()),
        "p95_wait_ms": to_ms(find_quantile(times.get("wait", {}), 0.95)),
        "median_ms": to_ms(find_quantile(times.get("answer", {}), 0.5)),
        "p95_ms": to_ms(find_quantile(times.get("answer", {}), 0.95)),
        "median_ttft_ms": to_ms(find_quantile(times.get("first_token", {}), 0.5)),
        **render_token_counts(totals),
        "unknown_usage": totals.unknown_usage,
        # Digits below a trillionth of a dollar are only floating-point errors.
        "cost_usd": None if totals.cost_usd is None else round(totals.cost_usd, 12),
        "cost_unknown": totals.cost_unknown,
    }
