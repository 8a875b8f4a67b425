"""Plans before a run: the items that a difference needs, from a pilot job or from stated rates. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fanout.core.errors import Fault, RequestError
from fanout.core.threads import while_wanted
from fanout.evaluate.decisions.choices import check_models, find_metric, get_model
from fanout.evaluate.decisions.options import PlanOptions, check_options
from fanout.evaluate.report.judges import list_validation_notes
from fanout.evaluate.report.matrix import ScoreMatrix, build_matrix
from fanout.evaluate.report.measures import JobMeasures
from fanout.evaluate.statistics.estimates import MIN_ITEMS, combine_notes, is_constant
from fanout.evaluate.statistics.paired import smallest_mcnemar_p
from fanout.evaluate.statistics.power import binary_variance, detectable_difference, required_items
from fanout.evaluate.statistics.repeats import between_item_variance
from fanout.jobs.copies import list_copies

FEW_PILOT_ITEMS = 50
"""Below this the pilot's variance is known to a factor of about two."""


@dataclass(frozen=True, slots=True)
class PairPlan:
    """Needs of a comparison of two models."""

    a: str
    b: str
    variance: float | None
    """Of an item's difference, with the planned repeats."""
    items: int | None
    """Needed items; `None`: the pilot does not tell."""
    smallest_p: float | None
    """Smallest p-value that so many items are likely to allow."""
    detectable: float | None
    """Difference that as many items as the pilot's show."""
    cost_per_item_usd: float | None
    note: str | None = None

    @property
    def cost_usd(self) -> float | None:
        """US dollars for the needed items; `None`: not known."""
        return None if self.items is None or self.cost_per_item_usd is None else self.items * self.cost_per_item_usd


@dataclass(frozen=True, slots=True)
class Plan:
    """Needs of the comparisons of a job's models."""

    options: PlanOptions
    metric: str | None
    pilot_items: int | None
    pairs: Sequence[PairPlan]


def plan_from_rates(options: PlanOptions, better: float, worse: float, cost_per_item_usd: float | None = None) -> Plan:
    """Return the plan for 0/1 scores from the shares of items that A alone and B alone has right.

    Raises:
        RequestError: the shares or the options are not allowed.
    """
    check_options(options)
    try:
        variance = binary_variance(better, worse)
    except ValueError as error:
        raise RequestError([Fault("rates", str(error))]) from None
    # Without this the formula asks for no item at all, and a plan of none would look like good news.
    if not variance:
        raise RequestError([Fault("rates", "the models never disagree by these shares: there is nothing to see")])
    items = _require(options, variance)
    smallest = smallest_mcnemar_p(int(items * (better + worse)))
    return Plan(options, None, None, [PairPlan("A", "B", variance, items, smallest, None, cost_per_item_usd)])


def plan_from_pilot(measures: JobMeasures, options: PlanOptions) -> Plan:
    """Return the plan from the variances of a job's scores, for every two models.

    Raises:
        RequestError: the job has no such model or metric, or fewer than two models or items.
    """
    check_options(options)
    named = [(field, name) for field, name in (("model", options.model), ("baseline", options.baseline)) if name is not None]
    check_models(measures, named)
    scorer = find_metric(measures, options.metric)
    copies = list_copies(measures.job.fingerprint)
    names = [name for _, name in named] or [model.name for model in measures.models if model.entry not in copies]
    matrix = build_matrix(measures, scorer, measures.job.spec.failed, names)
    # A variance needs two values, and a pair two models.
    if len(matrix.names) < 2 or matrix.items.size < 2:
        sentence = f"{len(matrix.names)} models with {matrix.items.size} common items: two of each are needed"
        raise RequestError([Fault("pilot", sentence)])
    pairs = list(_plan_pairs(measures, matrix, options))
    if notes := list_validation_notes(measures, scorer):
        pairs = [replace(pair, note=combine_notes(pair.note, *notes)) for pair in pairs]
    return Plan(options, scorer.label, matrix.items.size, pairs)


def _plan_pairs(measures: JobMeasures, matrix: ScoreMatrix, options: PlanOptions) -> Iterator[PairPlan]:
    n = matrix.items.size
    costs = {name: _mean_cost(measures, name) for name in matrix.names}
    few = f"the pilot has {n} items: its variance is known to a factor of about two" if n < FEW_PILOT_ITEMS else None
    for (i, a), (j, b) in while_wanted(combinations(enumerate(matrix.names), 2)):
        differences = matrix.scores[i] - matrix.scores[j]
        known = [cost for cost in (costs[a], costs[b]) if cost is not None]
        # The half that is known would be shown as the price of the whole.
        cost = sum(known) * options.repeats if len(known) == 2 else None
        if is_constant(differences):
            note = "every item of the pilot has the same difference: its variance is unknown"
            yield PairPlan(a, b, None, None, None, None, cost, note)
            continue
        within_a, within_b = matrix.within_variance[i], matrix.within_variance[j]
        between, notes = float(np.var(differences, ddof=1)), few
        if within_a is not None and within_b is not None:
            # By what each has: the models of two jobs may have been repeated differently often.
            noise = sum(within / float(matrix.counts[place][0].mean()) for place, within in ((i, within_a), (j, within_b)))
            # The pilot's means hold the noise of its repeats; left in, it would be counted twice below.
            between = between_item_variance(differences.tolist(), noise)
        elif options.repeats > 1:
            notes = combine_notes(few, "the pilot has no repeats, so what they would gain is unknown and not counted")
        variance = between + ((within_a or 0.0) + (within_b or 0.0)) / options.repeats
        items = _require(options, variance)
        yield PairPlan(
            *(a, b, variance, items),
            smallest_mcnemar_p(int(items * float((differences != 0).mean()))),
            detectable_difference(n, variance, alpha=options.alpha, power=options.power),
            *(cost, notes),
        )


def _require(options: PlanOptions, variance: float) -> int:
    items = required_items(options.difference, between_variance=variance, alpha=options.alpha, power=options.power)
    # A great difference needs few items by the formula, but below this the report gives no interval.
    return max(items, MIN_ITEMS)


def _mean_cost(measures: JobMeasures, name: str) -> float | None:
    costs = np.asarray(get_model(measures, name).cost_usd)
    known = costs[np.isfinite(costs)]
    return float(known.mean()) if known.size else None
