"""Jobs, their progress, and estimates of what they would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from typing_extensions import TypedDict

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.units import to_rfc3339, to_unix_seconds
from fanout.core.usage import WorkTotals
from fanout.jobs.estimate import JobEstimate, ModelEstimate
from fanout.jobs.job import JobKind, Progress, ResultGroup
from fanout.jobs.result_records import JobResultJson
from fanout.rendering.page import PageJson
from fanout.rendering.sums import CostTotalsJson
from fanout.store.jobs.records import JobState
from fanout.store.usage import ANSWERED

USD_DIGITS = 12
"""Decimal places of sums of cost; below them are only errors of floating point."""


class JobProgressJson(CostTotalsJson):
    """Progress in calls."""

    ended: int
    """Calls that have ended."""
    answered: int
    """Calls that were answered."""
    failed: int
    """Calls that have failed."""
    left: int
    """Calls that have not ended."""
    running: int
    """Calls in flight; 0 if another process runs the job."""
    waiting: int
    """Calls that wait for their retry."""
    calls_per_second: float | None
    """Recent rate."""
    left_s: float | None
    """Seconds to the end at that rate; null: unknown."""
    left_usd: float | None
    """Expected cost of the rest, at the mean of the answers so far."""


class JobCountsJson(CostTotalsJson):
    """Sums of one entry of `models`."""

    model: str
    """Label of the entry."""
    ended: int
    """Calls that have ended."""
    answered: int
    """Calls that were answered."""
    failures: Mapping[str, int]
    """Failed calls by kind: `rate_limit`, `timeout`, …"""
    attempts: int
    """Attempts upstream, retries included."""
    prompt_tokens: int | None
    """Tokens of the prompts, cached ones included."""
    completion_tokens: int | None
    """Tokens of the answers."""
    cached_tokens: int | None
    """Tokens of the prompts that were read from the provider's cache."""
    unknown_usage: int
    """Answers whose usage the provider did not report."""
    mean_ms: int | None
    """Mean time of a call's last attempt, its waiting here included."""


class JobJson(TypedDict):
    """A job and its progress."""

    id: str
    """Id of the job."""
    object: Literal["job"]
    """Always `job`."""
    created_at: int
    """Unix seconds, like the two that follow."""
    started_at: int | None
    """When its first call was sent."""
    ended_at: int | None
    """When it ended."""
    account_id: str | None
    """Account that the usage is counted for."""
    name: str | None
    """Your name for the job."""
    kind: JobKind
    """`rows` of prompts for its models; `requests`: a batch, whose requests name their own."""
    state: JobState
    """`stopped`: by its cost, or by an account that accepts no more. It can be resumed, as if cancelled or expired."""
    reason: str | None
    """Why it is in that state."""
    models: Sequence[JsonObject]
    """Its models, with their parameters."""
    repeats: int
    """Samples of each row and model."""
    template: str | None
    """The prompt, with the row's columns as `{{name}}`."""
    system: str | None
    """System message of rows that have none."""
    parameters: JsonObject
    """Sampling parameters of all models and rows that have none of their own."""
    strict_parameters: bool
    """A parameter that a model cannot take fails its call."""
    endpoint: str | None
    """Endpoint of a batch's requests."""
    max_cost_usd: float | None
    """Most US dollars that it may cost."""
    deadline: str | None
    """When unfinished calls expire: RFC 3339, UTC."""
    attempts: int | None
    """Most attempts of a call; null: as in the provider's row."""
    concurrency: int | None
    """Most calls in flight for each account; null: as many as it bears."""
    cache: bool
    """Answers that other jobs received to the same requests are reused."""
    input: JsonObject
    """Name and hash or id of the file that it was read from."""
    forked_from: str | None
    """Job whose rows and models it repeats."""
    metadata: Mapping[str, str]
    """Your metadata, returned."""
    items: int
    """Rows."""
    calls: int
    """Rows × models × repeats."""
    progress: JobProgressJson
    """How far it is."""
    counts: Sequence[JobCountsJson]
    """Sums by model."""


class JobListJson(PageJson):
    data: Sequence[JobJson]
    """The jobs of the page."""


class ModelEstimateJson(TypedDict):
    model: str
    """Label of the entry."""
    calls: int
    """Calls to it."""
    prompt_tokens: int
    """A quarter of the prompts' bytes."""
    completion_tokens: int
    """The most that is allowed, or a guess."""
    guessed: bool
    """Some calls set no length."""
    cost_usd: float | None
    """US dollars; null: the price is unknown."""


class JobEstimateJson(TypedDict):
    """Size and cost of a job, of which nothing was stored or sent."""

    object: Literal["job.estimate"]
    """Always `job.estimate`."""
    items: int
    """Rows."""
    calls: int
    """Rows × models × repeats."""
    models: Sequence[ModelEstimateJson]
    """Estimates by model."""
    cost_usd: float | None
    """US dollars; null: the price of some model is unknown."""
    cost_unknown: Sequence[str]
    """Models whose price is unknown."""
    least_s: float | None
    """Seconds that the configured limits require at least; null: there are none."""


class JobResultsJson(TypedDict):
    object: Literal["list"]
    """Always `list`."""
    data: Sequence[JobResultJson]
    """The results of the page."""
    has_more: bool
    """There are more pages."""
    next: str | None
    """Give it as `after` for the next page."""


def render_job(progress: Progress) -> JobJson:
    """Return a job and its progress."""
    job, spec = progress.job, progress.job.spec
    return {
        "id": job.id,
        "object": "job",
        "created_at": int(job.created),
        "started_at": to_unix_seconds(job.started),
        "ended_at": to_unix_seconds(job.ended),
        "account_id": job.account_id or None,
        "name": spec.name,
        "kind": spec.kind,
        "state": job.state,
        "reason": job.reason,
        "models": [dict(entry) for entry in spec.models],
        "repeats": spec.repeats,
        "template": spec.template,
        "system": spec.system,
        "parameters": dict(spec.parameters),
        "strict_parameters": spec.strict,
        "endpoint": spec.endpoint,
        "max_cost_usd": spec.max_cost_usd,
        "deadline": to_rfc3339(spec.deadline, "seconds"),
        "attempts": spec.attempts,
        "concurrency": spec.concurrency,
        "cache": spec.cache,
        "input": dict(spec.input),
        "forked_from": job.forked_from,
        "metadata": dict(spec.metadata),
        "items": job.items,
        "calls": job.units,
        "progress": _render_progress(progress),
        "counts": list(_render_counts(progress.counts)),
    }


def render_estimate(estimate: JobEstimate, providers: Mapping[str, ProviderSettings]) -> JobEstimateJson:
    """Return the size and the cost of a job."""
    return {
        "object": "job.estimate",
        "items": estimate.items,
        "calls": estimate.calls,
        "models": [_render_model_estimate(label, model) for label, model in estimate.models.items()],
        "cost_usd": _round(estimate.cost_usd, USD_DIGITS),
        "cost_unknown": list(estimate.cost_unknown),
        "least_s": _round(estimate.min_duration_s(providers), 1),
    }


def _render_progress(progress: Progress) -> JobProgressJson:
    return {
        "ended": progress.ended,
        "answered": progress.answered,
        "failed": progress.ended - progress.answered,
        "left": progress.remaining,
        "running": progress.running,
        "waiting": progress.waiting,
        "calls_per_second": _round(progress.rate, 3),
        "left_s": _round(progress.remaining_s, 1),
        "cost_usd": _round(progress.cost_usd, USD_DIGITS),
        "cost_unknown": progress.cost_unknown,
        "left_usd": _round(progress.remaining_usd, USD_DIGITS),
    }


def _render_counts(counts: Mapping[ResultGroup, WorkTotals]) -> Iterator[JobCountsJson]:
    """Yield sums by model, each with its failures by kind."""
    for model in sorted({group.model for group in counts}):
        by_result = {group.result: totals for group, totals in counts.items() if group.model == model}
        total = WorkTotals()
        for totals in by_result.values():
            total.add(totals)
        yield {
            "model": model,
            "ended": total.calls,
            "answered": by_result[ANSWERED].calls if ANSWERED in by_result else 0,
            "failures": {kind: totals.calls for kind, totals in sorted(by_result.items()) if kind != ANSWERED and totals.calls},
            "attempts": total.attempts,
            "prompt_tokens": total.input_tokens,
            "completion_tokens": total.output_tokens,
            "cached_tokens": total.cached_tokens,
            "unknown_usage": total.unknown_usage,
            "cost_usd": _round(total.cost_usd, USD_DIGITS),
            "cost_unknown": total.cost_unknown,
            "mean_ms": round(total.total_ms / total.calls) if total.calls else None,
        }


def _render_model_estimate(label: str, estimate: ModelEstimate) -> ModelEstimateJson:
    return {
        "model": label,
        "calls": estimate.calls,
        "prompt_tokens": estimate.input_tokens,
        "completion_tokens": estimate.output_tokens,
        "guessed": estimate.guessed,
        "cost_usd": _round(estimate.cost_usd, USD_DIGITS),
    }


def _round(number: float | None, digits: int) -> float | None:
    return None if number is None else round(number, digits)
