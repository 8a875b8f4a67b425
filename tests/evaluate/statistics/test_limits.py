"""Data that cannot support a figure get a sentence instead of one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fanout.evaluate.statistics import (
    bradley_terry,
    judges,
    latency,
    many,
    means,
    paired,
    power,
    repeats,
    resampling,
    sequential,
)
from fanout.evaluate.statistics.estimates import Interval
from fanout.evaluate.statistics.preferences import JudgedPair, win_rate
from fanout.evaluate.statistics.sequential import StoppingRule


def test_fewer_than_15_items_have_no_interval_and_no_p_value() -> None:
    few = [0.0, 1.0] * 7
    mean, share = means.estimate_mean([value / 3 for value in few]), means.estimate_mean(few)
    test = paired.compare(few, few[::-1])
    bootstrap = resampling.bootstrap_difference(few, few[::-1])

    for estimate in (mean, share, test.difference, bootstrap):
        assert estimate.interval is None
        assert estimate.note == "14 items are too few for an interval or a p-value; at least 15 are needed"
    assert (share.value, test.p_value) == (0.5, None)


def test_no_items_at_all_have_no_mean() -> None:
    assert means.estimate_mean([]).value is None
    assert paired.compare([], []).difference.value is None
    assert latency.percentiles([]) == {50: None, 95: None}
    assert win_rate([], "a", "b").rate.value is None
    assert bradley_terry.rank([]).note == "no pairs to rate"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused_not_averaged(value: float) -> None:
    with pytest.raises(ValueError, match="1 of 16 values are NaN or infinite"):
        means.estimate_mean([*[1.0] * 15, value])


def test_equal_scores_have_no_spread_and_no_interval() -> None:
    constant = means.estimate_mean([0.5] * 20)
    shifted = paired.compare([0.7] * 20, [0.5] * 20)
    tied = paired.compare([0.5] * 20, [0.5] * 20)

    assert (constant.value, constant.interval) == (0.5, None)
    assert shifted.difference.note == "every item has the same difference: no interval and no p-value"
    assert (tied.difference.note, tied.p_value) == ("all items are tied", None)
    assert resampling.bootstrap_difference([1.0] * 20, [2.0] * 20).note == "every item has the same difference: no interval"


def test_all_tied_0_1_scores_have_an_interval_around_0_and_p_1() -> None:
    found = paired.compare([1.0] * 50, [1.0] * 50)

    assert (found.p_value, found.smallest_p) == (1.0, 1.0)
    assert 0.0 in (found.difference.interval or Interval(1, 0))


def test_a_pair_without_a_score_of_both_for_each_item_is_refused() -> None:
    with pytest.raises(ValueError, match="1 scores of A, but 0 of B"):
        paired.compare([1.0], [])


def test_models_that_never_met_have_no_common_scale() -> None:
    found = bradley_terry.rank([JudgedPair(1, "a", "b", "a"), JudgedPair(2, "c", "d", "b")])

    assert [rating.rating for rating in found.ratings] == [None] * 4
    assert found.note == "the pairs fall into 2 groups that never met: no common scale"


def test_a_model_that_only_wins_is_held_by_a_ridge_and_a_warning() -> None:
    pairs = [JudgedPair(number, "a", "b", "a") for number in range(20)]
    pairs += [JudgedPair(number, "b", "c", "a" if number % 2 else "b") for number in range(20)]

    found = bradley_terry.rank(pairs)

    assert found.ratings[0].model == "a"
    assert all(math.isfinite(rating.rating or math.inf) for rating in found.ratings)
    assert "only wins or only losses" in (found.note or "")


def test_all_ties_rate_every_model_alike() -> None:
    found = bradley_terry.rank([JudgedPair(n, *pair, "tie") for n in range(20) for pair in (("a", "b"), ("b", "c"))])

    assert [rating.rating for rating in found.ratings] == pytest.approx([1000.0] * 3)


def test_unreadable_verdicts_are_counted_and_in_no_figure() -> None:
    pairs = [JudgedPair(n, "a", "b", None if n % 2 else "a") for n in range(40)]

    assert bradley_terry.rank(pairs).errors == 20
    assert win_rate(pairs, "a", "b").errors == 20


def test_a_judge_without_30_labels_is_not_validated() -> None:
    few = judges.rogan_gladen(7, 10, true_positives=9, labelled_positives=10, true_negatives=8, labelled_negatives=10)
    chance = judges.rogan_gladen(7, 10, true_positives=5, labelled_positives=10, true_negatives=5, labelled_negatives=10)

    assert few.note == "judge not validated: 20 of 30 labels by people"
    assert chance.value is None
    assert judges.describe_validation(30) is None
    assert judges.ppi_mean([1], [1], [1])[0].value is None


def test_a_correction_by_few_labels_has_no_interval_and_by_a_judge_of_one_opinion_is_the_labels_alone() -> None:
    few = judges.correct_mean([0.0, 0.5] * 7, [0.5, 0.5] * 7, [0.5] * 100)
    blind = judges.correct_mean([0.0, 1.0] * 20, [1.0] * 40, [1.0] * 100)
    opposed = judges.correct_mean([0.0, 1.0] * 20, [1.0, 0.0] * 20, [1.0] * 100)

    assert few.estimate.interval is None
    assert few.effective_labels is None
    assert (few.estimate.note or "").startswith("14 labels are too few for an interval; at least 15 are needed; judge not")
    assert (blind.estimate.value, blind.weight, blind.estimate.method) == (0.5, 0, "mean, PPI++")
    assert (opposed.estimate.value, opposed.weight) == (0.5, 0)


def test_an_interval_that_holds_at_every_look_has_bounds_after_each_item_and_none_without_items() -> None:
    low, high = sequential.confidence_path([1.0] * 40)
    nothing, _ = sequential.confidence_path([])

    assert (low.size, nothing.size) == (40, 0)
    assert (low[0], high[0], high[-1]) == (-1, 1, 1)
    assert 0.6 < low[-1] < 1
    assert (np.diff(low) >= 0).all()


def test_kappa_is_unknown_where_one_category_is_all_there_is() -> None:
    assert judges.cohens_kappa(["a"] * 5, ["a"] * 5) is None
    assert judges.cohens_kappa([], []) is None
    with pytest.raises(ValueError, match="3 verdicts of the judge, but 2 labels"):
        judges.cohens_kappa("aab", "ab")


def test_rank_bands_separate_only_what_simultaneous_intervals_separate() -> None:
    generator = np.random.default_rng(1)
    base = generator.random(400)
    scores = {
        "good": base + 0.5 + generator.normal(0, 0.05, 400),
        "also": base + 0.5 + generator.normal(0, 0.05, 400),
        "bad": base,
    }
    intervals = many.simultaneous_intervals(scores)
    bands = many.rank_bands({name: float(np.mean(values)) for name, values in scores.items()}, intervals)

    assert bands == {"good": (1, 2), "also": (1, 2), "bad": (3, 3)}
    assert many.describe_rank("good", bands) == "tied with 1 other as best"
    assert many.describe_rank("bad", bands) == "worst"
    apart = {("a", "b"): None, ("a", "c"): Interval(0.1, 0.2), ("b", "c"): None}
    ranks = many.rank_bands(dict.fromkeys("abc", 0.0), apart)
    assert ranks == {"a": (1, 2), "b": (1, 3), "c": (2, 3)}
    # C is surely worse than A: with B it is last, and with A it is tied nowhere.
    assert [many.describe_rank(name, ranks) for name in "abc"] == [
        *["tied with 1 other as best"] * 2,
        "tied with 1 other as worst",
    ]
    assert many.simultaneous_intervals({"a": [1.0] * 3, "b": [0.0] * 3}) == {("a", "b"): None}


def test_a_sequence_is_decided_by_difference_equivalence_budget_or_futility() -> None:
    rule = StoppingRule(alpha=0.05, margin=0.1, max_items=400)
    wins = [1.0] * 12
    ties = [0.0] * 400

    assert sequential.decide(wins, rule).state == "difference"
    assert sequential.decide(wins, rule).n < 12, "it says after which item that was known"
    assert sequential.decide(ties, rule).state == "equivalence"
    assert sequential.decide([1.0, -1.0] * 200, StoppingRule(max_items=400)).state == "budget"
    assert sequential.decide([1.0, -1.0] * 5, rule).state == "undecided"
    assert sequential.decide([1.0, -1.0] * 195, StoppingRule(max_items=394)).state == "futility"
    assert sequential.decide([], rule).mean is None


def test_differences_outside_their_range_are_refused_by_value() -> None:
    with pytest.raises(ValueError, match=r"a difference of 1\.5 is outside"):
        sequential.decide([0.5, 1.5], StoppingRule())
    with pytest.raises(ValueError, match="margin 2 must lie between 0 and 1"):
        StoppingRule(margin=2)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="the difference is not 0"):
        power.required_items(0.0, between_variance=1)
    with pytest.raises(ValueError, match="nor their sum above 1"):
        power.binary_variance(0.9, 0.2)
    with pytest.raises(ValueError, match="1 ≤ k ≤ n"):
        repeats.pass_at_k(3, 1, 4)
