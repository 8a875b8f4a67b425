"""Stopping of a job in its report: what decided it, what that took, and what a fixed plan would have taken. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from fanout.evaluate.report.measures import JobMeasures, ModelMeasures
from fanout.evaluate.statistics.estimates import MIN_ITEMS, Floats, is_binary
from fanout.evaluate.statistics.power import required_items
from fanout.evaluate.statistics.sequential import StoppingRule, confidence_path, evidence_path
from fanout.evaluate.stopping.watch import JobWatch
from fanout.jobs.copies import list_copies
from fanout.jobs.stopping import StoppingPlan, parse_plan
from fanout.store.jobs.records import Unit, UnitScore

INTERVAL = "interval that holds at every look, hedged betting"
PATH_POINTS = 100
"""Items at which the course of a pair is kept: all of them, or so many that a figure shows no difference."""


class PathPoint(NamedTuple):
    """Knowledge about two models after some items."""

    items: int
    difference: float
    """Mean of A − B so far."""
    low: float
    """Lower bound of the interval that holds at every look."""
    high: float
    evidence: float
    """E-value against "no difference"."""


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
    low: float | None
    """Bounds of the difference, which hold at every look, for all pairs together."""
    high: float | None
    path: Sequence[PathPoint]
    """After each item, or after a hundred of them."""
    fixed_items: int | None
    """Items of a plan that was made for just this difference, or for the margin within which the two are equal, with power
    .8; `None`: there is no difference."""


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
    fixed_cost_usd: float | None
    """US dollars for these; `None`: not known."""
    pairs: Sequence[StoppedPair]
    methods: Sequence[str]
    """By name."""


def report_stopping(measures: JobMeasures) -> StoppingReport | None:
    """Return the course of the job, as its results show it again; `None` where it was to run to its end."""
    job = measures.job
    if not job.spec.until_decided:
        return None
    plan = parse_plan(job.spec.until_decided)
    scorer = next((row.scorer for row in measures.scorers if row.label == plan.metric), None)
    models = {model.entry: model for model in measures.models if model.entry is not None}
    copies = list_copies(job.fingerprint)
    names = {entry: model.name for entry, model in models.items() if entry not in copies}
    if scorer is None or len(names) < 2:
        return None
    # From the results again, not from a stored verdict: the report can show nothing that they do not support.
    watch = JobWatch(plan, job.items, names, job.spec.repeats, job.spec.failed, scorer)
    for entry, model in models.items():
        for item, repeat, answered, value in zip(model.items, model.repeats, model.answered, model.scores[scorer], strict=True):
            # NaN is "no score" in a column; as a number it would make every sum NaN.
            scores = [UnitScore(scorer, value)] if np.isfinite(value) else []
            watch.record(Unit(job.number, item, entry, repeat), scores, answered=bool(answered))
    watch.look()
    pairs = [_describe(watch, a, b) for a, b in combinations(names, 2)]
    costs = [_measure_costs(model) for model in models.values()]
    known = [total for total, _ in costs if total is not None]
    means = [mean for _, mean in costs if mean is not None]
    fixed = max((pair.fixed_items for pair in pairs if pair.fixed_items is not None), default=None)
    # The models whose price is known would be shown as the price of all.
    fixed_cost = fixed * sum(means) * job.spec.repeats if fixed is not None and len(means) == len(models) else None
    return StoppingReport(
        plan=plan,
        sentence=watch.final.sentence if watch.final else None,
        items=watch.looked,
        calls=sum(len(model.items) for model in models.values()),
        cost_usd=sum(known) if known else None,
        fixed_calls=fixed * len(models) * job.spec.repeats if fixed is not None else None,
        fixed_cost_usd=fixed_cost,
        pairs=pairs,
        methods=[*dict.fromkeys(_name_method(watch, a, b) for a, b in combinations(names, 2)), INTERVAL],
    )


def _measure_costs(model: ModelMeasures) -> tuple[float | None, float | None]:
    """Return what a model's calls cost in all, and on average."""
    costs = np.asarray(model.cost_usd)
    known = costs[np.isfinite(costs)]
    return (float(known.sum()), float(known.mean())) if known.size else (None, None)


def _describe(watch: JobWatch, a: int, b: int) -> StoppedPair:
    decision = watch.decided.get((a, b))
    prefix = min(watch.looked, *(watch.count_complete(entry) for entry in (a, b)))
    # As many as it was decided by: items that came later, or were in flight, had no part in it.
    differences = watch.get_differences(a, b, prefix)[: decision.n if decision else None]
    mean = float(differences.mean()) if differences.size else None
    path = _follow(differences, watch.rule.alpha)
    return StoppedPair(
        *(watch.models[a], watch.models[b]),
        state=decision.state if decision else "undecided",
        items=decision.n if decision else prefix,
        difference=mean,
        evidence=decision.evidence if decision else max((point.evidence for point in path), default=1.0),
        low=path[-1].low if path else None,
        high=path[-1].high if path else None,
        path=path,
        fixed_items=_plan_fixed(differences, watch.rule, is_equal=decision is not None and decision.state == "equivalence"),
    )


def _name_method(watch: JobWatch, a: int, b: int) -> str:
    is_share = is_binary(np.abs(watch.get_differences(a, b, watch.looked)))
    return f"e-values, {'mixture over discordant items' if is_share else 'hedged betting'}, α shared among the pairs"


def _follow(differences: Floats, alpha: float) -> list[PathPoint]:
    """Return what was known after each item."""
    if not differences.size:
        return []
    counts = np.unique(np.linspace(1, differences.size, min(differences.size, PATH_POINTS)).astype(np.int64))
    means = np.cumsum(differences) / np.arange(1, differences.size + 1)
    columns = (means, *confidence_path(differences, alpha=alpha), evidence_path(differences))
    return [PathPoint(int(n), *(float(column[n - 1]) for column in columns)) for n in counts]


def _plan_fixed(differences: Floats, rule: StoppingRule, *, is_equal: bool) -> int | None:
    """Return the items of a fixed plan that would have shown the same."""
    mean = float(differences.mean()) if differences.size else 0.0
    # A plan for a difference of 0 would need endlessly many items.
    if differences.size < 2 or not (is_equal or mean):
        return None
    variance = float(np.var(differences, ddof=1))
    if is_equal and rule.margin is not None:
        # Two one-sided tests at alpha, both of which succeed with power .8.
        items = required_items(rule.margin, between_variance=variance, alpha=2 * rule.alpha, power=0.9)
    else:
        items = required_items(mean, between_variance=variance, alpha=rule.alpha)
    # Fewer give no interval, so no plan has them.
    return max(items, MIN_ITEMS)
