"""A job's report: what was sent, what came, which model is better, and how sure that is. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fanout.core.json_text import JsonObject
from fanout.evaluate.report.fusions import (
    CHOICE_METHOD,
    FusionReport,
    describe_copies,
    mark_fusion,
    name_copies,
    report_fusions,
)
from fanout.evaluate.report.judges import JudgeReport, assess_judge, list_judgements
from fanout.evaluate.report.matrix import build_matrix
from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.evaluate.report.metrics import MetricReport, compare_models, mark_figures
from fanout.evaluate.report.operations import LatencyPair, ModelOperations, compare_latencies, measure_operations
from fanout.evaluate.report.preferences import Judgement, PreferenceReport, compare_preferences, mark_preferences
from fanout.evaluate.report.stopping import StoppingReport, report_stopping
from fanout.evaluate.statistics.many import adjust
from fanout.jobs.job import Job
from fanout.store.jobs.records import FailurePolicy

POLICIES: Mapping[FailurePolicy, str] = {
    "score_zero": "a failed call counts as a score of 0",
    "drop_item": "an item that a model did not answer is left out for all models",
}
MIN_CACHE_DIFFERENCE = 0.05
"""Difference of the shares of cached input from which a report mentions it."""


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model: what was sent to it, and what it took."""

    name: str
    provider: str | None
    upstream_model: str | None
    parameters: JsonObject
    """As they were sent."""
    ignored: Mapping[str, int]
    """Parameters that were not sent, and in how many calls."""
    adjusted: Mapping[str, int]
    """Parameters that were sent with another value, and in how many calls."""
    operations: ModelOperations


@dataclass(frozen=True, slots=True)
class Report:
    """A job's report."""

    job: Job
    ended: int
    """Calls that have ended."""
    policy: str
    """The failure policy, in words."""
    cluster_column: str | None
    clusters: int | None
    models: Sequence[ModelReport]
    metrics: Sequence[MetricReport]
    latencies: Sequence[LatencyPair]
    preferences: Sequence[PreferenceReport]
    """By people's votes, and by judges of pairs."""
    judges: Sequence[JudgeReport]
    fusions: Sequence[FusionReport]
    """Each beside its best member and that member fused with itself, on every metric."""
    stopping: StoppingReport | None
    """Where the job was to stop as soon as it was decided."""
    methods: Sequence[str]
    """By name, each once."""
    notes: Sequence[str]


def build_report(measures: JobMeasures) -> Report:
    """Return the report of a job's measures."""
    job, clusters = measures.job, measures.clusters
    judges = [assess_judge(judge, measures.votes, measures.labels, measures.models) for judge in measures.judges]
    unvalidated = {judge.name: judge.note for judge in judges if judge.note}
    models = [_describe_model(model) for model in measures.models]
    operations = {model.name: model.operations for model in models}
    copies = name_copies(measures)
    contestants = [model for model in measures.models if model.name not in copies]
    names = [model.name for model in contestants] if copies else None
    metrics: list[MetricReport] = []
    fusions: list[FusionReport] = []
    for scorer in measures.scorers:
        matrix = build_matrix(measures, scorer, job.spec.failed, names)
        # In the matrix's order, not the job's: items that a metric drops have no group there.
        groups = None if clusters is None else [clusters[item] for item in matrix.items.tolist()]
        metrics.append(mark_figures(compare_models(matrix, scorer, groups), unvalidated.get(scorer.label)))
        fusions += report_fusions(measures, matrix, scorer, operations, groups)
    latencies = compare_latencies(contestants)
    preferences = list(_compare_preferences(measures, unvalidated))
    stopping = report_stopping(measures)
    methods = [*_list_methods(models, metrics, latencies, preferences, judges), *[CHOICE_METHOD][: len(fusions)]]
    return Report(
        job=job,
        ended=sum(model.operations.ended for model in models),
        policy=POLICIES[job.spec.failed],
        cluster_column=measures.cluster_column,
        clusters=None if clusters is None else len(set(clusters.values())),
        models=models,
        metrics=metrics,
        latencies=latencies,
        preferences=preferences,
        judges=judges,
        fusions=[mark_fusion(fusion, unvalidated.get(fusion.metric)) for fusion in fusions],
        stopping=stopping,
        methods=list(dict.fromkeys([*methods, *(stopping.methods if stopping else ())])),
        notes=[
            *_list_notes(measures, models, metrics, preferences),
            *_list_judge_notes(judges, are_clustered=clusters is not None),
            *describe_copies(copies),
        ],
    )


def _list_judge_notes(judges: Sequence[JudgeReport], *, are_clustered: bool) -> Iterator[str]:
    if are_clustered and any(judge.corrected for judge in judges):
        yield "figures corrected by people's labels take items as independent: clusters are not in their intervals"
    for judge in judges:
        if judge.note:
            yield f"{judge.name}: {judge.note}"
        if judge.unread:
            yield f"{judge.name}: {judge.unread:,} of {judge.questions:,} verdicts could not be read; they are in no figure"


def _compare_preferences(measures: JobMeasures, unvalidated: Mapping[str, str]) -> Iterator[PreferenceReport]:
    entries = {model.entry: model for model in measures.models if model.entry is not None}
    # Scores of single answers are labels, not preferences.
    votes = [vote for vote in measures.votes if vote.entry_b is not None and vote.repeat_b is not None]
    if votes:
        judgements = [
            Judgement((vote.item, vote.entry_a, vote.repeat_a), (vote.item, vote.entry_b or 0, vote.repeat_b or 0), vote.choice)
            for vote in votes
        ]
        raters = len({(vote.account_id, vote.rater) for vote in votes})
        notes = ["by one person: it is their taste"] if raters == 1 else []
        yield compare_preferences("votes", judgements, entries, notes)
    for judge in measures.judges:
        if judge.task == "pair":
            report = compare_preferences(judge.row.label, list_judgements(judge), entries)
            yield mark_preferences(report, unvalidated.get(judge.row.label))


def _describe_model(model: ModelMeasures) -> ModelReport:
    return ModelReport(
        name=model.name,
        provider=model.provider,
        upstream_model=model.upstream_model,
        parameters=model.parameters,
        ignored=dict(model.ignored.most_common()),
        adjusted=dict(model.adjusted.most_common()),
        operations=measure_operations(model),
    )


def _list_methods(
    models: Sequence[ModelReport],
    metrics: Sequence[MetricReport],
    latencies: Sequence[LatencyPair],
    preferences: Sequence[PreferenceReport],
    judges: Sequence[JudgeReport],
) -> Iterator[str]:
    for metric in metrics:
        for model in metric.models:
            yield model.mean.method
        for pair in metric.pairs:
            yield pair.test.difference.method
            if pair.test.p_value is not None:
                yield f"{pair.test.p_method}, p-values adjusted by Holm"
        if any(pair.simultaneous for pair in metric.pairs):
            yield "rank bands from simultaneous intervals (Šidák)"
    for latency in latencies:
        yield from (latency.median.method, latency.p95.method)
    for preference in preferences:
        yield preference.ranking.method
        yield from (pair.rate.rate.method for pair in preference.pairs)
    for judge in judges:
        yield from (figure.corrected.estimate.method for figure in judge.corrected)
    if models:
        yield "percentiles of times by linear interpolation, over answers"


def _list_notes(
    measures: JobMeasures,
    models: Sequence[ModelReport],
    metrics: Sequence[MetricReport],
    preferences: Sequence[PreferenceReport],
) -> Iterator[str]:
    """Yield what a reader must know before trusting a figure."""
    job = measures.job
    ended = sum(model.operations.ended for model in models)
    # A job that stopped because it was decided is complete: its rest was never meant to run.
    if ended < job.units and not (job.spec.until_decided and job.state == "done"):
        yield (
            f"the job is {job.state}: {ended:,} of {job.units:,} calls have ended. Short and easy items end first, so figures "
            "may change"
        )
    if job.spec.until_decided:
        yield (
            "the job stops as soon as it is decided: that verdict holds at whichever moment, for all items of which these are "
            "a random sample; means, intervals and p-values of what it had run by then are those of a fixed plan, and too sure"
        )
    failures: Counter[str] = Counter()
    for model in models:
        failures.update(model.operations.failures)
    if failures:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in failures.most_common())
        yield f"{failures.total():,} calls failed ({kinds}); {POLICIES[job.spec.failed]}"
    for metric in metrics:
        if failures and job.spec.failed == "score_zero" and not metric.failures_are_zero:
            yield f"{metric.name}: 0 is no bad score there, so items that a model did not answer are left out for all models"
        if metric.left_out:
            yield f"{metric.name}: without any score, and left out of the comparison: {', '.join(metric.left_out)}"
        if metric.dropped.total:
            reasons = {
                "unfinished": metric.dropped.unfinished,
                "failed": metric.dropped.failed,
                "without a score": metric.dropped.unscored,
            }
            counted = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
            yield f"{metric.name}: {metric.dropped.total:,} of {job.items:,} items dropped ({counted})"
        yield from (f"{metric.name}: {note}" for note in dict.fromkeys(_list_metric_notes(metric)))
    yield from _describe_discoveries(metrics)
    for preference in preferences:
        yield from (f"{preference.source}: {note}" for note in preference.notes)
    if not metrics and not preferences:
        yield "no scores: declare scorers in the job, or apply them with `fanout evaluate score`"
    if not any(model.operations.ttft.n for model in models):
        yield "time to first token: not measured, because the job did not stream its answers (`--stream`, `stream` over HTTP)"
    if note := _describe_caches(models):
        yield note
    if reused := sum(model.operations.reused for model in models):
        yield f"{reused:,} answers came from other jobs: they cost nothing here, and their times are those of then"


def _describe_caches(models: Sequence[ModelReport]) -> str | None:
    """Return what the providers' caches mean for a comparison of costs; `None` where they served all models alike."""
    shares = {model.name: model.operations.cached_share for model in models if model.operations.answered}
    known = [share for share in shares.values() if share is not None]
    if not known or max(known) - min([*known, *(0.0 for share in shares.values() if share is None)]) < MIN_CACHE_DIFFERENCE:
        return None
    listed = ", ".join(f"{name} {'unknown' if share is None else f'{share:.0%}'}" for name, share in shares.items())
    return (
        f"input from the providers' caches: {listed}; it costs less, so costs are not those of the models alone, and another "
        "pace or order of calls would change them"
    )


def _describe_discoveries(metrics: Sequence[MetricReport]) -> Iterator[str]:
    """Yield how many differences of several metrics are left where they are taken as one family."""
    p_values = [pair.test.p_value for metric in metrics for pair in metric.pairs if pair.test.p_value is not None]
    # Holm's family is one metric: of twenty metrics one shows a difference by chance.
    if len(metrics) > 1 and p_values:
        found = sum(p_value <= 0.05 for p_value in adjust(p_values, "benjamini_hochberg"))
        yield (
            f"of the {len(p_values):,} tests of all metrics together, {found:,} find a difference if at most 5 % of what is "
            "found may be chance (Benjamini–Hochberg)"
        )


def _list_metric_notes(metric: MetricReport) -> Iterator[str]:
    yield from (model.mean.note for model in metric.models if model.mean.note)
    yield from (pair.test.difference.note for pair in metric.pairs if pair.test.difference.note)
    smallest = [pair.test.smallest_p for pair in metric.pairs if pair.test.smallest_p is not None]
    # "Not significant" would be read as "equal" where the test could not have found anything.
    if smallest and max(smallest) > 0.05:
        yield f"so few items differ that no p-value below {max(smallest):.2g} could be reached for some pair"
