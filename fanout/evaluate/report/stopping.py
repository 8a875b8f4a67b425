"""Stopping of a job in its report: what decided it, what that took, and what a fixed plan would have taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fanout.evaluate.report.measures import JobMeasures
from fanout.evaluate.statistics.power import required_items
from fanout.evaluate.stopping.watch import JobWatch
from fanout.jobs.stopping import StoppingPlan, parse_plan
from fanout.store.jobs.records import Unit, UnitScore


@dataclass(frozen=True, slots=True)
class StoppedPair:
    """Knowledge about two models, and the item at which it was reached."""

    a: str
    b: str
    state: str
    items: int
    difference: float | None
    """Mean of A − B at that moment: too large on average, because a lucky run stops early."""
    evidence: float
    """Largest e-value against "no difference"."""
    fixed_items: int | None
    """Items of a plan that was made for just this difference, with power .8; `None`: there is no difference."""


@dataclass(frozen=True, slots=True)
class StoppingReport:
    """The course of a job that was to stop as soon as it was decided."""

    plan: StoppingPlan
    sentence: str | None
    """`None`: not decided yet."""
    items: int
    """Items of the order's complete prefix that were looked at."""
    calls: int
    cost_usd: float | None
    fixed_calls: int | None
    """Calls of a fixed plan that would have separated the hardest pair; `None`: not known."""
    pairs: Sequence[StoppedPair]


def report_stopping(measures: JobMeasures) -> StoppingReport | None:
    """Return the course of the job, as its results show it again; `None` where it was to run to its end."""
    job = measures.job
    if not job.spec.until_decided:
        return None
    plan = parse_plan(job.spec.until_decided)
    scorer = next((row.scorer for row in measures.scorers if row.label == plan.metric), None)
    models = {model.entry: model for model in measures.models if model.entry is not None}
    if scorer is None or len(models) < 2:
        return None
    names = {entry: model.name for entry, model in models.items()}
    # From the results again, not from a stored verdict: the report can show nothing that they do not support.
    watch = JobWatch(plan, job.items, names, job.spec.repeats, job.spec.failed, scorer)
    for entry, model in models.items():
        for item, repeat, answered, value in zip(model.items, model.repeats, model.answered, model.scores[scorer], strict=True):
            # NaN is "no score" in a column; as a number it would make every sum NaN.
            scores = [UnitScore(scorer, value)] if np.isfinite(value) else []
            watch.record(Unit(job.number, item, entry, repeat), scores, answered=bool(answered))
    watch.look()
    pairs = [_describe(watch, a, b) for a, b in combinations(models, 2)]
    costs = np.array([cost for model in models.values() for cost in model.cost_usd])
    known = costs[np.isfinite(costs)]
    fixed = [pair.fixed_items for pair in pairs if pair.fixed_items is not None]
    return StoppingReport(
        plan=plan,
        sentence=watch.final.sentence if watch.final else None,
        items=watch.looked,
        calls=sum(len(model.items) for model in models.values()),
        cost_usd=float(known.sum()) if known.size else None,
        fixed_calls=max(fixed) * len(models) * job.spec.repeats if fixed else None,
        pairs=pairs,
    )


def _describe(watch: JobWatch, a: int, b: int) -> StoppedPair:
    decision = watch.decided.get((a, b))
    prefix = min(watch.looked, *(watch.count_complete(entry) for entry in (a, b)))
    differences = watch.get_differences(a, b, decision.n if decision else prefix)
    mean = float(differences.mean()) if differences.size else None
    fixed = None
    # A plan for a difference of 0 would need endlessly many items.
    if mean and differences.size > 1:
        variance = float(np.var(differences, ddof=1))
        fixed = required_items(mean, between_variance=variance, alpha=watch.rule.alpha)
    return StoppedPair(
        *(watch.models[a], watch.models[b]),
        state=decision.state if decision else "undecided",
        items=decision.n if decision else prefix,
        difference=mean,
        evidence=decision.evidence if decision else 1.0,
        fixed_items=fixed,
    )
