"""Jobs, their progress, and estimates of what they would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject
from fanout.core.units import to_rfc3339, to_unix_seconds
from fanout.core.usage import WorkTotals
from fanout.jobs.estimate import JobEstimate, ModelEstimate
from fanout.jobs.job import JobKind, Progress, ResultGroup
from fanout.jobs.process_identity import split_identity
from fanout.jobs.result_records import JobResultJson
from fanout.rendering.shared import CostTotalsJson, PageJson
from fanout.store.jobs.records import FailurePolicy, JobState, WorkerLoad
from fanout.store.usage import ANSWERED

USD_DIGITS = 12
"""Decimal places of sums of cost; further digits are only floating-point errors."""


class JobWorkerJson(TypedDict):
    """A process that shares a job, as it was a few seconds ago."""

    host: Annotated[str, Doc("The machine's name.")]
    pid: Annotated[int, Doc("The process's number there.")]
    chunks: Annotated[int, Doc("Parts of the job that it has.")]
    running: Annotated[int, Doc("Its calls in flight.")]
    calls_per_second: Annotated[float | None, Doc("Its recent rate.")]


class JobProgressJson(CostTotalsJson):
    """Progress in calls."""

    ended: Annotated[int, Doc("Calls that have ended.")]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failed: Annotated[int, Doc("Calls that have failed.")]
    left: Annotated[int, Doc("Calls that have not ended.")]
    running: Annotated[int, Doc("Calls in flight; 0 if another process alone runs the job.")]
    waiting: Annotated[int, Doc("Calls that wait for their retry.")]
    calls_per_second: Annotated[float | None, Doc("Recent rate.")]
    left_s: Annotated[float | None, Doc("Seconds to the end at that rate; null: unknown.")]
    left_usd: Annotated[float | None, Doc("Expected cost of the rest, at the mean of the answers so far.")]
    workers: Annotated[Sequence[JobWorkerJson], Doc("The processes that share the job just now; none if it is not shared.")]


class JobCountsJson(CostTotalsJson):
    """Sums of one entry of `models`."""

    model: Annotated[str, Doc("Label of the entry.")]
    ended: Annotated[int, Doc("Calls that have ended.")]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failures: Annotated[Mapping[str, int], Doc("Failed calls by kind: `rate_limit`, `timeout`, …")]
    attempts: Annotated[int, Doc("Attempts upstream, retries included.")]
    prompt_tokens: Annotated[int | None, Doc("Tokens of the prompts, cached ones included.")]
    completion_tokens: Annotated[int | None, Doc("Tokens of the answers.")]
    cached_tokens: Annotated[int | None, Doc("Tokens of the prompts that were read from the provider's cache.")]
    unknown_usage: Annotated[int, Doc("Answers whose usage the provider did not report.")]
    mean_ms: Annotated[int | None, Doc("Mean time of a call's last attempt, its waiting here included.")]


class JobJson(TypedDict):
    """A job and its progress."""

    id: Annotated[str, Doc("Id of the job.")]
    object: Literal["job"]
    created_at: Annotated[int, Doc("Unix seconds, like the two that follow.")]
    started_at: Annotated[int | None, Doc("When its first call was sent.")]
    ended_at: Annotated[int | None, Doc("When it ended.")]
    account_id: Annotated[str | None, Doc("Account that the usage is counted for.")]
    name: Annotated[str | None, Doc("Your name for the job.")]
    kind: Annotated[JobKind, Doc("`rows` of prompts for its models; `requests`: a batch, whose requests name their own.")]
    state: Annotated[
        JobState,
        Doc("`stopped`: by its cost, or by an account that accepts no more. It can be resumed, as if cancelled or expired."),
    ]
    reason: Annotated[str | None, Doc("Why it is in that state.")]
    models: Annotated[Sequence[JsonObject], Doc("Its models, with their parameters.")]
    labels: Annotated[Sequence[str], Doc("Labels of its entries, sets and fusions written out; none for batches.")]
    repeats: Annotated[int, Doc("Samples of each row and model.")]
    template: Annotated[str | None, Doc("The prompt, with the row's columns as `{{name}}`.")]
    system: Annotated[str | None, Doc("System message of rows that have none.")]
    parameters: Annotated[JsonObject, Doc("Sampling parameters of all models and rows that have none of their own.")]
    strict_parameters: Annotated[bool, Doc("A parameter that a model cannot take fails its call.")]
    endpoint: Annotated[str | None, Doc("Endpoint of a batch's requests.")]
    max_cost_usd: Annotated[float | None, Doc("Most US dollars that it may cost.")]
    deadline: Annotated[str | None, Doc("When unfinished calls expire: RFC 3339, UTC.")]
    attempts: Annotated[int | None, Doc("Most attempts of a call; null: as in the provider's row.")]
    concurrency: Annotated[int | None, Doc("Most calls in flight for each account; null: as many as it bears.")]
    stream: Annotated[bool, Doc("Providers stream the answers, so that the time to first token is measured.")]
    cache: Annotated[bool, Doc("Answers that other jobs received to the same requests are reused.")]
    scorers: Annotated[Sequence[JsonObject], Doc("Scorers that score its answers as they end.")]
    failed: Annotated[FailurePolicy, Doc("What a failed call counts in its report.")]
    until_decided: Annotated[JsonObject | None, Doc("When it may stop early, and the seed of the order of its rows.")]
    input: Annotated[JsonObject, Doc("Name and hash or id of the file that it was read from.")]
    judging: Annotated[
        Mapping[str, str] | None, Doc("Of a judge's job: the `job` that it judges, the `scorer` that asks, and the `round`.")
    ]
    forked_from: Annotated[str | None, Doc("Job whose rows and models it repeats.")]
    metadata: Annotated[Mapping[str, str], Doc("Your metadata, returned.")]
    items: Annotated[int, Doc("Rows.")]
    calls: Annotated[int, Doc("Rows × models × repeats.")]
    progress: Annotated[JobProgressJson, Doc("How far it is.")]
    counts: Annotated[Sequence[JobCountsJson], Doc("Sums by model.")]


class JobListJson(PageJson):
    data: Annotated[Sequence[JobJson], Doc("The jobs of the page.")]


class ModelEstimateJson(TypedDict):
    model: Annotated[str, Doc("Label of the entry.")]
    calls: Annotated[int, Doc("Calls to it.")]
    prompt_tokens: Annotated[int, Doc("A quarter of the prompts' bytes.")]
    completion_tokens: Annotated[int, Doc("The most that is allowed, or a guess.")]
    guessed: Annotated[bool, Doc("Some calls set no length.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: the price is unknown.")]


class JobEstimateJson(TypedDict):
    """Size and cost of a job, of which nothing was stored or sent."""

    object: Literal["job.estimate"]
    items: Annotated[int, Doc("Rows.")]
    calls: Annotated[int, Doc("Rows × models × repeats.")]
    models: Annotated[Sequence[ModelEstimateJson], Doc("Estimates by model.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: the price of some model is unknown.")]
    cost_unknown: Annotated[Sequence[str], Doc("Models whose price is unknown.")]
    least_s: Annotated[float | None, Doc("Seconds that the configured limits require at least; null: there are none.")]
    not_configured: Annotated[Sequence[str], Doc("What some models lack before they can be called, a sentence for each.")]


class JobResultsJson(TypedDict):
    object: Literal["list"]
    data: Annotated[Sequence[JobResultJson], Doc("The results of the page.")]
    has_more: Annotated[bool, Doc("There are more pages.")]
    next: Annotated[str | None, Doc("Give it as `after` for the next page.")]


def render_job(progress: Progress) -> JobJson:
    """Return a job and its progress."""
    job, spec = progress.job, progress.job.spec
    return {
        "id": job.id,
        "object": "job",
        "created_at": int(job.created),
        "started_at": to_unix_seconds(job.started),
        "ended_at": to_unix_seconds(job.ended),
        # Stored as an empty text, because SQL compares and groups no nulls.
        "account_id": job.account_id or None,
        "name": spec.name,
        "kind": spec.kind,
        "state": job.state,
        "reason": job.reason,
        "models": [dict(entry) for entry in spec.models],
        "labels": list(job.labels),
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
        "stream": spec.stream,
        "cache": spec.cache,
        "scorers": [dict(scorer) for scorer in spec.scorers],
        "failed": spec.failed,
        "until_decided": dict(spec.until_decided) or None,
        "input": dict(spec.input),
        "judging": dict(spec.judging) or None,
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
        # A lower bound from the configured limits; the provider's own speed is unknown before the first call.
        "least_s": _round(estimate.min_duration_s(providers), 1),
        "not_configured": [*estimate.not_configured.values()],
    }


def _render_progress(progress: Progress) -> JobProgressJson:
    return {
        "ended": progress.ended,
        "answered": progress.answered,
        # Counted as the rest, so that the two always add up to `ended`.
        "failed": progress.ended - progress.answered,
        "left": progress.remaining,
        "running": progress.running,
        "waiting": progress.waiting,
        "calls_per_second": _round(progress.rate, 3),
        "left_s": _round(progress.remaining_s, 1),
        "cost_usd": _round(progress.cost_usd, USD_DIGITS),
        "cost_unknown": progress.cost_unknown,
        "left_usd": _round(progress.remaining_usd, USD_DIGITS),
        "workers": [_render_worker(load) for load in progress.workers],
    }


def _render_worker(load: WorkerLoad) -> JobWorkerJson:
    host, pid = split_identity(load.owner)
    rate = _round(load.rate, 3)
    return {"host": host, "pid": pid, "chunks": load.chunks, "running": load.running, "calls_per_second": rate}


def _render_counts(counts: Mapping[ResultGroup, WorkTotals]) -> Iterator[JobCountsJson]:
    """Yield sums by model, each with its failures by kind."""
    # Every entry of `models` with its failures, and not one sum: a single broken model must not hide in the total.
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
            # Of all calls, failed ones too: a model that times out is slow to whoever waits for the job.
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
