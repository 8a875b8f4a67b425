"""Providers as `/v1/providers` shows them: each account's limits, load, reported quotas, holds and recent calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict
from yarl import URL

from fanout.config.providers_file import LimitsRow
from fanout.config.settings import ProviderSettings
from fanout.core.rate_limits import Remaining
from fanout.core.units import to_ms
from fanout.limits.circuits import OpenCircuit
from fanout.limits.limiter import Limiter
from fanout.limits.pauses import Hold
from fanout.limits.registry import LimiterRegistry
from fanout.limits.upstream_quota import LimitReport
from fanout.observability.account_health import AccountHealth, RecentCalls
from fanout.rendering.model import ModelLimitsJson, render_limits


class ReportedLimitJson(TypedDict):
    """One limit as the provider reported it."""

    limit: Annotated[int | None, Doc("Amount allowed.")]
    remaining: Annotated[int | None, Doc("Amount left at the time of the report; what has started since is not deducted.")]
    reset_s: Annotated[float | None, Doc("Seconds from now until the full limit is available again.")]


class ReportedLimitsJson(TypedDict):
    """Limits reported in the headers of a provider's last answer."""

    model: Annotated[str | None, Doc("Name that the provider knows; null: the models of the limit group together.")]
    age_s: Annotated[float, Doc("Seconds since the report.")]
    requests: Annotated[ReportedLimitJson, Doc("Requests per period.")]
    tokens: Annotated[ReportedLimitJson, Doc("Tokens per period.")]


class AccountPauseJson(TypedDict):
    """A hold: nothing starts until it is over."""

    model: Annotated[str | None, Doc("Name that the provider knows; null: the account or the limit group as a whole.")]
    seconds_left: Annotated[float, Doc("Seconds until calls start again.")]
    reason: Annotated[
        str,
        Doc(
            "`requests_left` or `tokens_left`: too few are left by the provider's headers; otherwise the code "
            "of the failure with\nwhich the provider demanded a wait."
        ),
    ]


class AccountCircuitJson(TypedDict):
    """An open circuit: calls have kept failing, and none is sent but a probe from time to time."""

    model: Annotated[str | None, Doc("Name that the provider knows; null: the account as a whole, for want of a connection.")]
    failures: Annotated[int, Doc("Failed attempts in a row.")]
    failing_s: Annotated[float, Doc("Seconds since the first of them.")]
    probe_in_s: Annotated[float | None, Doc("Seconds until one call is sent as a probe; null: one is in flight (half-open).")]
    reason: Annotated[str, Doc("Code of the last failure.")]


class AccountRecentJson(TypedDict):
    """Calls that ended in the last `window_s` seconds, the last thousand at most. Figures that no call gives are null."""

    calls: Annotated[int, Doc("Calls, retries not counted.")]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failures: Annotated[Mapping[str, int], Doc("Calls that failed, by kind: `rate_limit`, `timeout`, `cancelled`, …")]
    error_rate: Annotated[float | None, Doc("Share that failed, 0 to 1, of the calls that were not cancelled.")]
    median_ms: Annotated[int | None, Doc("Median duration of successful attempts, from start to last byte, without waiting.")]
    p95_ms: Annotated[int | None, Doc("95th percentile of the same durations.")]
    median_ttft_ms: Annotated[int | None, Doc("Median time of streamed attempts from start to first content.")]


class AccountLoadJson(TypedDict):
    in_flight: Annotated[int, Doc("Calls in flight.")]
    concurrency: Annotated[int | None, Doc("Most calls in flight; null: no limit.")]
    waiting: Annotated[int, Doc("Calls that wait for a limit.")]
    waiting_batch: Annotated[int, Doc("Those of them that let others go first.")]
    processes: Annotated[
        int | None, Doc("Processes that keep to the limits together at present, through their store; null: this one alone.")
    ]
    store_lost: Annotated[bool, Doc("That store is away: this process goes on with its share of the limits.")]


class AccountJson(AccountLoadJson):
    """Calls that share limits: those with a provider's key, of a group of its models, or with all callers' own keys."""

    limit_group: Annotated[str | None, Doc("Group of models with limits of its own; null: all other models.")]
    own_keys: Annotated[
        int | None,
        Doc(
            "Number of callers' own keys, each with limits of its own; the figures are of all together. null: the server's key."
        ),
    ]
    reported_limits: Annotated[
        list[ReportedLimitsJson], Doc("Limits that the provider reported; empty if it reports none, or was not called yet.")
    ]
    pauses: Annotated[list[AccountPauseJson], Doc("Current holds.")]
    circuits: Annotated[list[AccountCircuitJson], Doc("Open circuits; empty while calls are answered.")]
    recent: Annotated[AccountRecentJson, Doc("Calls of the last minutes.")]


class ProviderJson(TypedDict):
    """A provider, with what it lacks if it is not ready."""

    id: Annotated[str, Doc("Name in providers.json.")]
    object: Literal["provider"]
    adapter: Annotated[str, Doc("Wire format that it speaks.")]
    host: Annotated[str | None, Doc("Host and port of its API; null: inside Fanout, or not set.")]
    ready: Annotated[bool, Doc("Can be called now.")]
    missing: Annotated[Sequence[str], Doc("Variables to set on the server before it can be called.")]
    key_page: Annotated[str | None, Doc("Page of the provider on which a key is made; null: not known.")]
    key_header: Annotated[str | None, Doc("Header in which callers may send a key of their own.")]
    limits: Annotated[ModelLimitsJson, Doc("Limits set in providers.json.")]
    accounts: Annotated[list[AccountJson], Doc("The server's account, one for each limit group, and the callers' own keys.")]


class ProviderListJson(TypedDict):
    object: Literal["list"]
    window_s: Annotated[int, Doc("Seconds that `recent` covers.")]
    data: Annotated[list[ProviderJson], Doc("Every configured provider.")]


def render_provider(
    provider: ProviderSettings, groups: Iterable[str], limiters: LimiterRegistry, recent: RecentCalls
) -> ProviderJson:
    """Return a configured provider with its accounts; `groups` are the limit groups of its models."""
    return {
        "id": provider.name,
        "object": "provider",
        "adapter": provider.adapter,
        "host": _find_host(provider),
        "ready": not provider.lacks(),
        "missing": provider.lacks(),
        "key_page": provider.row.key_page,
        "key_header": provider.row.key_header,
        "limits": render_limits(provider.row.limits),
        "accounts": list(_render_accounts(provider, sorted(groups), limiters, recent)),
    }


def _render_accounts(
    provider: ProviderSettings, groups: Sequence[str], limiters: LimiterRegistry, recent: RecentCalls
) -> Iterator[AccountJson]:
    """Yield the operator's accounts, then all callers' own keys as one."""
    name, limits = provider.name, provider.row.limits
    # A limiter exists only after its first call, but every account is listed from the start.
    for group in (None, *groups):
        limiter = limiters.find(name, group)
        yield {
            "limit_group": group,
            "own_keys": None,
            **_render_load(limits, [limiter] if limiter else []),
            "reported_limits": [_render_report(reported) for reported in limiter.list_reports()] if limiter else [],
            "pauses": [_render_hold(hold) for hold in limiter.list_holds()] if limiter else [],
            "circuits": [_render_circuit(circuit) for circuit in limiter.circuits.list_open()] if limiter else [],
            "recent": _render_recent(recent.summarize([(name, group, False)])),
        }
    if provider.row.key_header:
        # One sum for all callers' keys, so that nobody can recognize another caller by the load of a key.
        caller_limiters = limiters.list_caller_limiters(name)
        yield {
            "limit_group": None,
            "own_keys": len(caller_limiters),
            **_render_load(limits, caller_limiters),
            # A report says which key was used up, and when: so callers could watch each other.
            "reported_limits": [],
            "pauses": [],
            "circuits": [],
            "recent": _render_recent(recent.summarize([(name, group, True) for group in (None, *groups)])),
        }


def _render_load(limits: LimitsRow, limiters: Sequence[Limiter]) -> AccountLoadJson:
    states = [limiter.snapshot() for limiter in limiters]
    # JSON has no infinity: no limit is null.
    allowed = sum(limiter.concurrency for limiter in limiters) if limiters else limits.concurrency or math.inf
    return {
        "in_flight": sum(state.in_flight for state in states),
        "concurrency": None if allowed == math.inf else int(allowed),
        "waiting": sum(state.waiting for state in states),
        "waiting_batch": sum(state.waiting_batch for state in states),
        "processes": max((state.processes for state in states if state.processes), default=None),
        "store_lost": any(state.is_alone for state in states),
    }


def _render_report(reported: LimitReport) -> ReportedLimitsJson:
    return {
        "model": reported.model,
        "age_s": round(reported.age_s, 3),
        "requests": _render_reported_limit(reported.requests, reported.age_s),
        "tokens": _render_reported_limit(reported.tokens, reported.age_s),
    }


def _render_reported_limit(remaining: Remaining, age_s: float) -> ReportedLimitJson:
    # The report ages: without the deduction a client would wait too long.
    reset_s = None if remaining.reset_s is None else round(max(remaining.reset_s - age_s, 0.0), 3)
    return {"limit": remaining.limit, "remaining": remaining.remaining, "reset_s": reset_s}


def _render_hold(hold: Hold) -> AccountPauseJson:
    return {"model": hold.model, "seconds_left": round(hold.seconds, 3), "reason": hold.reason}


def _render_circuit(circuit: OpenCircuit) -> AccountCircuitJson:
    return {
        "model": circuit.model,
        "failures": circuit.failures,
        "failing_s": round(circuit.failing_s, 3),
        "probe_in_s": None if circuit.probe_in_s is None else round(circuit.probe_in_s, 3),
        "reason": circuit.reason,
    }


def _render_recent(recent: AccountHealth) -> AccountRecentJson:
    return {
        "calls": recent.calls,
        "answered": recent.answered,
        "failures": recent.failures,
        "error_rate": recent.error_rate,
        "median_ms": to_ms(recent.median_s),
        "p95_ms": to_ms(recent.p95_s),
        "median_ttft_ms": to_ms(recent.median_first_token_s),
    }


def _find_host(provider: ProviderSettings) -> str | None:
    # Only the host is shown: the path or query of an address may hold a key.
    try:
        url = URL(provider.base_url or "")
    except ValueError:
        return None
    return url.host_port_subcomponent
