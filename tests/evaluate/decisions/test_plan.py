"""Plans: the items that a difference needs, from a pilot or from stated rates."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import replace
from typing import Any

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.decisions.options import PlanOptions
from fanout.evaluate.decisions.plan import plan_from_pilot, plan_from_rates
from fanout.evaluate.statistics.paired import compare_binary
from tests.support.builders.measures import build_measures


def test_the_planned_items_show_the_stated_difference_as_often_as_promised() -> None:
    (pair,) = plan_from_rates(PlanOptions(0.1), 0.2, 0.1, cost_per_item_usd=0.002).pairs
    assert pair.items == 228  # as in the literature's formula without correction
    generator, seen = random.Random(3), 0
    for _ in range(500):
        draws = [generator.random() for _ in range(pair.items)]
        better, worse = sum(draw < 0.2 for draw in draws), sum(0.2 <= draw < 0.3 for draw in draws)
        interval = compare_binary(better, worse, pair.items).difference.interval
        seen += interval is not None and interval.low > 0

    assert 0.75 < seen / 500 < 0.85
    assert pair.cost_usd == pytest.approx(0.456)
    assert pair.smallest_p == 2 * 0.5**68


def test_a_pilot_gives_the_variance_the_cost_and_what_it_could_itself_have_seen() -> None:
    generator = random.Random(5)
    scores = {name: [float(generator.random() < rate) for _ in range(100)] for name, rate in (("a", 0.8), ("b", 0.6))}
    plan = plan_from_pilot(build_measures(scores), PlanOptions(0.1))
    (pair,) = plan.pairs

    assert (plan.metric, plan.pilot_items, pair.note) == ("exact", 100, None)
    differences = [one - other for one, other in zip(scores["a"], scores["b"], strict=True)]
    assert pair.variance == pytest.approx(statistics.variance(differences))
    assert pair.items == math.ceil(7.8489 * statistics.variance(differences) / 0.1**2)  # 7.8489 = (1.95996 + 0.84162)²
    assert pair.detectable == pytest.approx(0.1 * (pair.items / 100) ** 0.5, rel=0.01)
    assert pair.cost_per_item_usd == pytest.approx(0.00398, rel=0.01)


def test_a_further_call_of_a_fusions_member_is_not_planned_for() -> None:
    scores = {name: [0.0, 1.0, float(name == "a")] * 20 for name in ("a", "mix", "a (3)")}
    measures = build_measures(scores)
    same: dict[str, Any] = {"provider": "lab", "upstream_model": "a"}
    rows = [same, {**same, "fusion": {"of": [0, 2], "prompt": "1"}}, {**same, "is_member": True}]
    fingerprint = {f"{entry}: {name}": row for entry, (name, row) in enumerate(zip(scores, rows, strict=True))}
    for entry, model in enumerate(measures.models):
        model.entry = entry
    plan = plan_from_pilot(replace(measures, job=replace(measures.job, fingerprint=fingerprint)), PlanOptions(0.1))

    assert [(pair.a, pair.b) for pair in plan.pairs] == [("a", "mix")]


def test_more_repeats_save_items_only_as_far_as_the_variance_is_within_them() -> None:
    generator = random.Random(9)
    scores = {name: [[float(generator.random() < 0.5) for _ in range(4)] for _ in range(60)] for name in ("a", "b")}
    measures = build_measures(scores)
    once, often = (plan_from_pilot(measures, PlanOptions(0.1, repeats=repeats)).pairs[0].items for repeats in (1, 8))

    assert once is not None
    assert often is not None
    assert often < once / 4, "all of this variance is within items"


def test_few_items_and_equal_scores_are_stated() -> None:
    (few,) = plan_from_pilot(build_measures({"a": [1.0, 0.0, 1.0], "b": [0.0, 1.0, 1.0]}), PlanOptions(0.1)).pairs
    (tied,) = plan_from_pilot(build_measures({"a": [1.0] * 20, "b": [1.0] * 20}), PlanOptions(0.1)).pairs

    assert few.note == "the pilot has 3 items: its variance is known to a factor of about two"
    assert (tied.items, tied.cost_usd) == (None, None)
    assert tied.note == "every item of the pilot has the same difference: its variance is unknown"


@pytest.mark.parametrize(
    ("options", "rates", "words"),
    [
        (PlanOptions(0.0), (0.2, 0.1), "difference: 0 is not allowed"),
        (PlanOptions(0.1, alpha=1.5, power=0.0), (0.2, 0.1), "alpha: 1.5 is not allowed"),
        (PlanOptions(0.1), (0.8, 0.4), "shares 0.8 and 0.4"),
        (PlanOptions(0.1), (0.0, 0.0), "never disagree"),
    ],
)
def test_what_no_plan_can_be_made_for_is_refused(options: PlanOptions, rates: tuple[float, float], words: str) -> None:
    with pytest.raises(RequestError) as refused:
        plan_from_rates(options, *rates)

    assert words in str(refused.value).replace("`", "")
