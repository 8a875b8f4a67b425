"""Gates: is a candidate at most a margin worse than the baseline? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fanout.core.errors import Fault, RequestError
from fanout.evaluate.decisions.choices import check_models, find_metric
from fanout.evaluate.decisions.options import GateOptions
from fanout.evaluate.report.judges import list_validation_notes
from fanout.evaluate.report.matrix import ScoreMatrix, build_matrix
from fanout.evaluate.report.measures import JobMeasures
from fanout.evaluate.statistics.estimates import Interval, PairedTest
from fanout.evaluate.statistics.noninferiority import GateVerdict, bound_ties, judge_noninferiority
from fanout.evaluate.statistics.paired import compare


@dataclass(frozen=True, slots=True)
class GateDecision:
    """A gate's verdict and the figures behind it."""

    options: GateOptions
    metric: str
    verdict: GateVerdict
    test: PairedTest
    """Of candidate − baseline, positive where the candidate is better."""
    dropped: int
    notes: Sequence[str] = ()
    """What limits the verdict; its sentence has them, too."""


def judge_gate(measures: JobMeasures, options: GateOptions) -> GateDecision:
    """Return the verdict on a candidate.

    Raises:
        RequestError: the job has no such model or metric, or the two models are one.
    """
    check_models(measures, (("model", options.model), ("baseline", options.baseline)))
    # Two answers of one model are no comparison; of two jobs they are, and have two names here.
    if options.model == options.baseline:
        raise RequestError([Fault("baseline", f"`{options.baseline}` is the model itself")])
    scorer = find_metric(measures, options.metric)
    matrix = build_matrix(measures, scorer, measures.job.spec.failed, (options.model, options.baseline))
    if matrix.left_out:
        raise RequestError([Fault("metric", f"`{scorer.label}` has no score of {', '.join(matrix.left_out)}")])
    clusters = measures.clusters
    groups = None if clusters is None else [clusters[item] for item in matrix.items.tolist()]
    candidate, baseline = (matrix.scores[matrix.names.index(name)] for name in (options.model, options.baseline))
    # Of times and costs less is better: turned round, "worse" is one direction for every metric.
    sign = 1 if scorer.is_higher_better else -1
    test = compare(sign * candidate, sign * baseline, clusters=groups, dropped=matrix.dropped.total)
    if scorer.is_bounded and clusters is None:
        test = bound_ties(test)
    if scorer.is_bounded and test.difference.interval:
        test = _limit(test)
    verdict = _judge(measures, matrix, test, options.margin)
    notes = list_validation_notes(measures, scorer)
    verdict = replace(verdict, sentence="; ".join((verdict.sentence, *notes)))
    return GateDecision(options, scorer.label, verdict, test, matrix.dropped.total, notes)


def _limit(test: PairedTest) -> PairedTest:
    interval = test.difference.interval
    assert interval
    limited = Interval(max(interval.low, -1.0), min(interval.high, 1.0), interval.level)
    return replace(test, difference=replace(test.difference, interval=limited))


def _judge(measures: JobMeasures, matrix: ScoreMatrix, test: PairedTest, margin: float) -> GateVerdict:
    job = measures.job
    ended = sum(len(model.items) for model in measures.models)
    # Short and easy items end first: a verdict on what has come so far would be one on those.
    if ended < job.units:
        return GateVerdict(
            "inconclusive", f"inconclusive: {ended:,} of {job.units:,} calls have ended (the job is {job.state})"
        )
    verdict = judge_noninferiority(test, margin)
    dropped = matrix.dropped.total
    return replace(verdict, sentence=f"{verdict.sentence}; {dropped:,} items dropped") if dropped else verdict
