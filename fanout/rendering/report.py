"""Reports of jobs: models compared on every metric, with intervals, methods and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from typing_extensions import Doc, TypedDict

from fanout.core.json_text import JsonObject
from fanout.core.units import to_unix_seconds
from fanout.rendering.estimates import EstimateJson, get_bounds, render_statistic, scale
from fanout.rendering.fusions import FusionComparisonJson, render_fusion_report
from fanout.rendering.judges import JudgeJson, render_judge
from fanout.rendering.preferences import PreferencesJson, render_preferences
from fanout.rendering.stopping import StoppingJson, render_stopping
from fanout.store.jobs.records import FailurePolicy, JobState

# Not imported when the program runs: they load numpy, and the server describes reports without making any.
if TYPE_CHECKING:
    from fanout.evaluate.report.metrics import MetricReport, ModelScore, PairComparison
    from fanout.evaluate.report.operations import Duration, LatencyPair
    from fanout.evaluate.report.report import ModelReport, Report

MS = 1_000.0
"""Milliseconds in a second."""


class DurationJson(TypedDict):
    n: Annotated[int, Doc("Answers of which it was measured.")]
    p5: Annotated[float | None, Doc("Percentiles in milliseconds.")]
    p25: float | None
    p50: Annotated[float | None, Doc("Median.")]
    p75: float | None
    p95: float | None


class ReportModelJson(TypedDict):
    """A model: what was sent to it, and what it took. Times are those of answers alone."""

    model: Annotated[str, Doc("Label in the job.")]
    provider: Annotated[str | None, Doc("Provider that serves the model.")]
    upstream_model: Annotated[str | None, Doc("The model's name there.")]
    parameters: Annotated[JsonObject, Doc("Sampling parameters as they were sent.")]
    ignored_parameters: Annotated[Mapping[str, int], Doc("Parameters that were not sent, and in how many calls.")]
    adjusted_parameters: Annotated[
        Mapping[str, int], Doc("Parameters that were sent with another value, and in how many calls.")
    ]
    ended: Annotated[int, Doc('Calls that have ended: "of attempted".')]
    answered: Annotated[int, Doc("Calls that were answered.")]
    failures: Annotated[Mapping[str, int], Doc("Failed calls by kind.")]
    reused: Annotated[int, Doc("Answers that came from other jobs.")]
    cost_usd: Annotated[float | None, Doc("US dollars; null: no price or no usage is known.")]
    cost_unknown: Annotated[int, Doc("Answers with no known price, which are missing from the cost.")]
    cost_per_1000_items_usd: Annotated[EstimateJson, Doc("US dollars for 1,000 items, one answer each.")]
    cached_input_share: Annotated[
        float | None, Doc("Share of the input that came from the provider's cache; null: the provider does not say.")
    ]
    queued_ms: Annotated[DurationJson, Doc("Waiting for the limits set here; never the model's own time.")]
    ttft_ms: Annotated[DurationJson, Doc("Time to first token of the successful attempt.")]
    tpot_ms: Annotated[DurationJson, Doc("Time for each output token after the first, of streamed answers of two or more.")]
    call_ms: Annotated[DurationJson, Doc("Time of the successful attempt alone.")]
    total_ms: Annotated[DurationJson, Doc("Everything, queue and retries included.")]
    tokens_per_second: Annotated[float | None, Doc("Output tokens by the time of the successful attempts.")]


class PassJson(TypedDict):
    k: Annotated[int, Doc("Answers to an item.")]
    pass_at_k: Annotated[float, Doc("Chance that at least one of them is right.")]
    pass_hat_k: Annotated[float, Doc("Chance that all of them are right.")]


class ModelScoreJson(TypedDict):
    model: Annotated[str, Doc("Label in the job.")]
    mean: Annotated[EstimateJson, Doc("Mean over items, repeats averaged.")]
    best_rank: Annotated[int | None, Doc("Best rank that the items allow, from 1; null: they allow none.")]
    worst_rank: Annotated[int | None, Doc("Worst rank that the items allow.")]
    verdict: Annotated[str, Doc("Rank in words.")]
    by_repeat: Annotated[Sequence[float | None], Doc("Mean of each repeat.")]
    within_variance: Annotated[float | None, Doc("Mean variance of an item's repeats; null: there are none.")]
    passes: Annotated[Sequence[PassJson], Doc("For 0/1 scores with repeats.")]


class GridCellJson(TypedDict):
    a: Annotated[float, Doc("Score of A.")]
    b: Annotated[float, Doc("Score of B.")]
    items: Annotated[int, Doc("Items that have about these scores.")]


class PairJson(TypedDict):
    """Model A against model B, on the same items."""

    a: Annotated[str, Doc("Label of A, which has the better mean.")]
    b: Annotated[str, Doc("Label of B.")]
    difference: Annotated[EstimateJson, Doc("Mean of A − B.")]
    p_value: Annotated[float | None, Doc('Of "no difference", two-sided.')]
    p_adjusted: Annotated[float | None, Doc("Adjusted for the metric's pairs, by Holm.")]
    p_method: Annotated[str, Doc("Test by name.")]
    smallest_p: Annotated[float | None, Doc("Smallest p-value that the test could reach here; null: no bound.")]
    chi_square: Annotated[float | None, Doc("McNemar's statistic for 0/1 scores, for comparison with published tables.")]
    chi_square_corrected: Annotated[float | None, Doc("The same with the correction for continuity.")]
    simultaneous_low: Annotated[float | None, Doc("Bounds that hold together with those of all other pairs.")]
    simultaneous_high: float | None
    wins: Annotated[int, Doc("Items on which A is better.")]
    ties: Annotated[int, Doc("Items on which both are equal.")]
    losses: Annotated[int, Doc("Items on which B is better.")]
    grid: Annotated[Sequence[GridCellJson], Doc("Items by the scores of A and B, rounded to a grid of 20 steps.")]


class DroppedJson(TypedDict):
    unfinished: Annotated[int, Doc("Items of which a call has not ended.")]
    failed: Annotated[int, Doc("Items that a model did not answer, where failures do not count as 0.")]
    unscored: Annotated[int, Doc("Items of which an answer has no score.")]


class MetricJson(TypedDict):
    name: Annotated[str, Doc("Name of the scorer.")]
    version: Annotated[str, Doc("Type, version and options of the scorer.")]
    is_bounded: Annotated[bool, Doc("Scores lie within 0 … 1.")]
    is_higher_better: Annotated[bool, Doc("False for lengths, times and costs.")]
    failures_are_zero: Annotated[bool, Doc("Failed calls count as a score of 0.")]
    verdict: Annotated[str, Doc("Which model is best, and how sure that is.")]
    n: Annotated[int, Doc("Items that every model has.")]
    dropped: Annotated[DroppedJson, Doc("Items in no figure of this metric.")]
    left_out: Annotated[Sequence[str], Doc("Models without any score.")]
    models: Annotated[Sequence[ModelScoreJson], Doc("Best mean first.")]
    pairs: Annotated[Sequence[PairJson], Doc("Every two models.")]


class LatencyPairJson(TypedDict):
    a: Annotated[str, Doc("Label of A.")]
    b: Annotated[str, Doc("Label of B.")]
    median_ms: Annotated[EstimateJson, Doc("Difference A − B of the medians.")]
    p95_ms: Annotated[EstimateJson, Doc("Difference A − B of the 95th percentiles.")]


class ReportJobJson(TypedDict):
    id: Annotated[str, Doc("Id of the job.")]
    name: Annotated[str | None, Doc("Your name for it.")]
    created_at: Annotated[int, Doc("Unix seconds, like the next.")]
    ended_at: Annotated[int | None, Doc("When it ended.")]
    state: Annotated[JobState, Doc("As in the job.")]
    items: Annotated[int, Doc("Rows.")]
    repeats: Annotated[int, Doc("Samples of each row and model.")]
    calls: Annotated[int, Doc("Rows × models × repeats.")]
    ended: Annotated[int, Doc("Calls that have ended.")]


class ReportJson(TypedDict):
    """Report of a job."""

    object: Literal["job.report"]
    job: ReportJobJson
    failed: Annotated[FailurePolicy, Doc("What a failed call counts, fixed before the run.")]
    policy: Annotated[str, Doc("The same in words.")]
    level: Annotated[float, Doc("Of all intervals.")]
    cluster_column: Annotated[str | None, Doc("Column that groups items which hang together.")]
    clusters: Annotated[int | None, Doc("Number of groups.")]
    models: Annotated[Sequence[ReportModelJson], Doc("In the job's order.")]
    metrics: Annotated[Sequence[MetricJson], Doc("One for each scorer, and `people` where people have scored answers.")]
    preferences: Annotated[Sequence[PreferencesJson], Doc("By people's votes on pairs of answers, and by judges of pairs.")]
    judges: Annotated[Sequence[JudgeJson], Doc("Judges and how far they can be trusted.")]
    fusions: Annotated[
        Sequence[FusionComparisonJson], Doc("Each fusion beside its best member and that member fused with itself, by metric.")
    ]
    stopping: Annotated[StoppingJson | None, Doc("Where the job was to stop as soon as it was decided.")]
    latency_pairs: Annotated[Sequence[LatencyPairJson], Doc("Differences of the successful attempts' times.")]
    methods: Annotated[Sequence[str], Doc("Methods by name, which docs/statistics.md explains.")]
    notes: Annotated[Sequence[str], Doc("What to know before trusting a figure.")]


def render_report(report: Report) -> ReportJson:
    """Return a job's report."""
    job = report.job
    return {
        "object": "job.report",
        "job": {
            "id": job.id,
            "name": job.spec.name,
            "created_at": int(job.created),
            "ended_at": to_unix_seconds(job.ended),
            "state": job.state,
            "items": job.items,
            "repeats": job.spec.repeats,
            "calls": job.units,
            "ended": report.ended,
        },
        "failed": job.spec.failed,
        "policy": report.policy,
        "level": 0.95,
        "cluster_column": report.cluster_column,
        "clusters": report.clusters,
        "models": [_render_model(model) for model in report.models],
        "metrics": [_render_metric(metric) for metric in report.metrics],
        "preferences": [render_preferences(one) for one in report.preferences],
        "judges": [render_judge(judge) for judge in report.judges],
        "fusions": [render_fusion_report(fusion) for fusion in report.fusions],
        "stopping": render_stopping(report.stopping) if report.stopping else None,
        "latency_pairs": [_render_latency_pair(pair) for pair in report.latencies],
        "methods": list(report.methods),
        "notes": list(report.notes),
    }


def _render_model(model: ModelReport) -> ReportModelJson:
    operations = model.operations
    return {
        "model": model.name,
        "provider": model.provider,
        "upstream_model": model.upstream_model,
        "parameters": dict(model.parameters),
        "ignored_parameters": model.ignored,
        "adjusted_parameters": model.adjusted,
        "ended": operations.ended,
        "answered": operations.answered,
        "failures": operations.failures,
        "reused": operations.reused,
        "cost_usd": operations.cost_usd,
        "cost_unknown": operations.cost_unknown,
        "cost_per_1000_items_usd": render_statistic(operations.cost_per_1000),
        "cached_input_share": operations.cached_share,
        "queued_ms": _render_duration(operations.queued),
        "ttft_ms": _render_duration(operations.ttft),
        "tpot_ms": _render_duration(operations.tpot),
        "call_ms": _render_duration(operations.call),
        "total_ms": _render_duration(operations.total),
        "tokens_per_second": operations.tokens_per_second,
    }


def _render_metric(metric: MetricReport) -> MetricJson:
    dropped = metric.dropped
    return {
        "name": metric.name,
        "version": metric.version,
        "is_bounded": metric.is_bounded,
        "is_higher_better": metric.is_higher_better,
        "failures_are_zero": metric.failures_are_zero,
        "verdict": metric.verdict,
        "n": metric.n,
        "dropped": {"unfinished": dropped.unfinished, "failed": dropped.failed, "unscored": dropped.unscored},
        "left_out": list(metric.left_out),
        "models": [_render_score(model) for model in metric.models],
        "pairs": [_render_pair(pair) for pair in metric.pairs],
    }


def _render_score(score: ModelScore) -> ModelScoreJson:
    return {
        "model": score.model,
        "mean": render_statistic(score.mean),
        "best_rank": score.best_rank,
        "worst_rank": score.worst_rank,
        "verdict": score.verdict,
        "by_repeat": list(score.by_repeat),
        "within_variance": score.within_variance,
        "passes": [{"k": k, "pass_at_k": at, "pass_hat_k": hat} for k, at, hat in score.passes],
    }


def _render_pair(pair: PairComparison) -> PairJson:
    test = pair.test
    low, high = get_bounds(pair.simultaneous)
    plain, corrected = test.chi_squares or (None, None)
    return {
        "a": pair.a,
        "b": pair.b,
        "difference": render_statistic(test.difference),
        "p_value": test.p_value,
        "p_adjusted": pair.adjusted_p,
        "p_method": test.p_method,
        "smallest_p": test.smallest_p,
        "chi_square": plain,
        "chi_square_corrected": corrected,
        "simultaneous_low": low,
        "simultaneous_high": high,
        "wins": pair.wins,
        "ties": pair.ties,
        "losses": pair.losses,
        "grid": [{"a": a, "b": b, "items": items} for a, b, items in pair.grid],
    }


def _render_latency_pair(pair: LatencyPair) -> LatencyPairJson:
    return {
        "a": pair.a,
        "b": pair.b,
        "median_ms": render_statistic(pair.median, MS),
        "p95_ms": render_statistic(pair.p95, MS),
    }


def _render_duration(duration: Duration) -> DurationJson:
    p5, p25, p50, p75, p95 = (scale(value, MS) for value in duration.percentiles.values())
    return {"n": duration.n, "p5": p5, "p25": p25, "p50": p50, "p75": p75, "p95": p95}
