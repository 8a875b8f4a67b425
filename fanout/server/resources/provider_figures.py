"""`GET /v1/providers/figures`: the calls of each provider over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from aiohttp import web
from pydantic import BeforeValidator, Field

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.core.threads import run_in_thread
from fanout.core.units import to_rfc3339
from fanout.rendering.provider_figures import ProviderFiguresJson, ProviderStepJson, render_provider_step
from fanout.server.lifecycle import STORE
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import Endpoint, list_store_answers
from fanout.server.resources.listing import DAY_S, parse_whole_number, read_query, write_list
from fanout.server.resources.storage import store_failed_response, store_off_response
from fanout.server.resources.usage import PeriodQuery
from fanout.store.call_times import Times
from fanout.store.usage import PERIOD, GroupUsage, UsageFilter

STEPS_S = (300, 900, 3600, 21_600, 86_400)
USUAL_STEPS, MAX_STEPS = 100, 1000
"""Steps of a report that names no length; the most."""
MAX_ROWS = 10_000
"""Steps of all providers together."""


class ProviderFiguresQuery(PeriodQuery):
    """The time, the account and the steps of a report."""

    step_s: Annotated[Literal[300, 900, 3600, 21_600, 86_400] | None, BeforeValidator(parse_whole_number)] = None
    """Length of a step in seconds; `from` and `to` are widened to whole ones. Absent: the shortest that makes at most a
    hundred."""
    provider: str | None = Field(None, max_length=256)
    """Only this provider."""

    def to_filter(self, account_id: str | None) -> UsageFilter:
        """Return the query as the store takes it, for one account or all.

        Raises:
            RequestError: it would make too many steps.
        """
        until = self.until
        # A day, if no start is given.
        since = max(until - DAY_S, 0) if self.from_ is None else min(self.from_, until)
        step: int = self.step_s or next((step for step in STEPS_S if until - since <= step * USUAL_STEPS), STEPS_S[-1])
        since, until = since // step * step, -(-until // step) * step
        if (number := (until - since) // step) > MAX_STEPS:
            sentence = f"{number:,} steps of {step} s would follow: at most {MAX_STEPS:,}; ask for less time, or longer steps"
            raise RequestError([Fault("from" if self.step_s is None else "step_s", sentence)])
        return UsageFilter(since, until, account_id, ("provider", PERIOD), MAX_ROWS + 1, step)


async def get_provider_figures(request: web.Request) -> web.Response:
    """Serve `GET /v1/providers/figures`."""
    query = read_query(request, ProviderFiguresQuery)
    if STORE not in request.app:
        return store_off_response(request, "no figures are kept")
    filter_ = query.to_filter(auth.choose_account(request, query.account_id))
    store = request.app[STORE]
    try:
        usage = {
            (str(one.group["provider"]), int(one.group[PERIOD])): one
            for one in await store.usage.report(filter_)
            if query.provider in (None, one.group["provider"]) and one.group["provider"]
        }
        times = await store.times.report(filter_, query.provider)
    except StoreError as error:
        return store_failed_response(request, error, "usage.read_failed", "the figures cannot be read now")
    if len(usage) > MAX_ROWS:
        raise RequestError([Fault("step_s", f"makes more than {MAX_ROWS:,} steps of all providers: ask for longer ones")])
    head = {
        "object": "list",
        "from": to_rfc3339(filter_.since, "seconds"),
        "to": to_rfc3339(filter_.until, "seconds"),
        "step_s": filter_.period_s,
        "in_memory": store.database.in_memory,
    }
    # In a thread: there may be ten thousand steps.
    body = await run_in_thread("answers", _write, head, usage, times)
    return web.Response(body=body, content_type="application/json")


def _write(
    head: Mapping[str, object], usage: Mapping[tuple[str, int], GroupUsage], times: Mapping[tuple[str, int], Times]
) -> bytearray:
    rendered: dict[str, list[ProviderStepJson]] = {}
    for provider, start in sorted(usage.keys() | times.keys()):
        step = render_provider_step(start, usage.get((provider, start)), times.get((provider, start), {}))
        rendered.setdefault(provider, []).append(step)
    return write_list(({"provider": provider, "steps": steps} for provider, steps in rendered.items()), head)


EXAMPLE_STEP = {
    "start": "2026-11-20T09:00:00Z",
    "calls": 240,
    "answered": 237,
    "failures": {"rate_limit": 1, "cancelled": 2},
    "error_rate": 0.0042,
    "rate_limits": 9,
    "p95_wait_ms": 1350,
    "median_ms": 742,
    "p95_ms": 2210,
    "median_ttft_ms": 311,
    "prompt_tokens": 18230,
    "completion_tokens": 40112,
    "total_tokens": 58342,
    "cached_tokens": None,
    "unknown_usage": 0,
    "cost_usd": 0.028727,
    "cost_unknown": 0,
}
EXAMPLE = {
    "object": "list",
    "from": "2026-11-20T00:00:00Z",
    "to": "2026-11-21T00:00:00Z",
    "step_s": 900,
    "in_memory": False,
    "data": [{"provider": "openai", "steps": [EXAMPLE_STEP]}],
}
ENDPOINTS = (
    Endpoint(
        "GET /v1/providers/figures",
        get_provider_figures,
        id="provider_figures",
        tag="Models and usage",
        summary="Providers over time",
        description="For each provider and step of time: calls, failures by kind, attempts refused for a limit, waits, times, "
        "tokens and cost, of the calls that ended through whichever endpoint. The account is the key's, as in `GET /v1/usage`. "
        "Figures are kept in the store, and so outlive the server; times for 31 days, the others as long as usage.",
        query=ProviderFiguresQuery,
        examples={"a week of one provider": {"from": "2026-11-14", "to": "2026-11-20", "provider": "openai", "step_s": "3600"}},
        answers=list_store_answers(
            ProviderFiguresJson,
            "Providers with calls in this time, sorted by name.",
            {"a day": EXAMPLE},
            invalid="Wrong parameters, all of them named in `details`; or more steps than an answer may have.",
        ),
    ),
)
