"""The watch on a job: planted differences are found, equal models raise no alarm, and a cut-off changes nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from fanout.evaluate.stopping.watch import JobWatch
from fanout.jobs.stopping import StoppingPlan, shuffle_items
from fanout.store.jobs.records import Unit, UnitScore

Draw = Callable[[int, int], float]
"""The score of an entry on an item."""


def make_watch(items: int, models: str = "ab", *, repeats: int = 1, **plan: object) -> JobWatch:
    fields = {"metric": "exact", "seed": 1, **plan}
    return JobWatch(StoppingPlan(**fields), items, dict(enumerate(models)), repeats, "score_zero", 1)  # type: ignore[arg-type]


def end(watch: JobWatch, item: int, entry: int, value: float | None, *, answered: bool = True) -> None:
    scores = [] if value is None else [UnitScore(1, value)]
    watch.record(Unit(1, item, entry, 0), scores, answered=answered)


def run(watch: JobWatch, draw: Draw) -> int:
    """Run items in the watch's order until it stops; return how many."""
    for count, item in enumerate(watch.order, 1):
        for entry in list(watch.live):
            end(watch, item, entry, draw(entry, item))
        if watch.is_due and any(step.is_final for step in watch.look()):
            return count
    raise AssertionError("a watch ends with its items at the latest")


def test_a_thousand_jobs_of_equal_models_raise_fewer_false_alarms_than_alpha() -> None:
    """Each is watched after every item up to 30, of two models that are right independently of each other."""
    generator, alarms = random.Random(11), 0
    for _ in range(1_000):
        watch = make_watch(30)
        run(watch, lambda entry, item: float(generator.random() < 0.5))
        alarms += any(decision.state == "difference" for decision in watch.decided.values())

    assert alarms <= 50, alarms


def test_a_planted_difference_is_found_in_most_jobs_and_with_fewer_items_than_there_are() -> None:
    generator, found, items = random.Random(12), 0, []
    for _ in range(60):
        watch = make_watch(300)
        items.append(run(watch, lambda entry, item: float(generator.random() < (0.9, 0.6)[entry])))
        found += watch.final is not None and "a is better than every other model" in watch.final.sentence

    assert found >= 57
    assert sorted(items)[30] < 100


def test_equal_models_stop_within_a_margin_and_without_one_use_their_budget() -> None:
    equal = make_watch(3_000, margin=0.1)
    assert run(equal, lambda entry, item: 0.7) < 1_000
    assert equal.final is not None
    assert equal.final.sentence.endswith("a and b are equal within ±0.1")
    open_end = make_watch(40, max_items=30)
    assert run(open_end, lambda entry, item: 0.7) <= 30
    assert open_end.final is not None
    assert open_end.final.sentence.startswith("undecided by exact after")


def test_a_losing_model_is_dropped_and_the_others_go_on() -> None:
    watch = make_watch(400, "abc")
    generator = random.Random(4)
    run(watch, lambda entry, item: float(generator.random() < (0.95, 0.9, 0.1)[entry]))

    assert 2 not in watch.live
    assert watch.looked > max(decision.n for pair, decision in watch.decided.items() if 2 in pair)


def test_items_that_end_out_of_order_are_not_looked_at() -> None:
    watch = make_watch(50)
    for item in watch.order[1:40]:
        end(watch, item, 0, 1.0)
        end(watch, item, 1, 0.0)

    assert (watch.prefix, watch.is_due, list(watch.look())) == (0, False, [])
    assert watch.reach(1) == 32
    end(watch, watch.order[0], 0, 1.0)
    end(watch, watch.order[0], 1, 0.0)
    assert [step.is_final for step in watch.look()] == [False, True]


@pytest.mark.parametrize("cuts", [(1,), (5, 6, 7), (40,)])
def test_a_watch_that_is_opened_again_decides_as_if_it_had_never_been_closed(cuts: Sequence[int]) -> None:
    generator = random.Random(5)
    scores = {(entry, item): float(generator.random() < (0.8, 0.5)[entry]) for entry in range(2) for item in range(200)}
    whole = make_watch(200)
    count = run(whole, lambda entry, item: scores[entry, item])
    cut = make_watch(200)
    for place, item in enumerate(cut.order[: count + 20]):  # what was in flight has ended as well
        if place in cuts:
            cut = make_watch(200)
            for earlier in cut.order[:place]:
                for entry in range(2):
                    end(cut, earlier, entry, scores[entry, earlier])
        for entry in range(2):
            end(cut, item, entry, scores[entry, item])
    cut.look()

    assert cut.final == whole.final
    assert cut.decided == whole.decided


def test_a_failure_counts_zero_and_an_item_without_a_score_does_not_count() -> None:
    watch = make_watch(20)
    first, second, third = watch.order[:3]
    end(watch, first, 0, 1.0)
    end(watch, first, 1, None, answered=False)
    end(watch, second, 0, 1.0)
    end(watch, second, 1, None)
    for entry in range(2):
        end(watch, third, entry, 1.0)

    assert watch.prefix == 3
    assert watch.get_differences(0, 1, 3).tolist() == [1.0, 0.0]


def test_the_order_is_random_and_for_one_seed_always_the_same() -> None:
    assert shuffle_items(10, 7).tolist() == [2, 7, 4, 6, 8, 9, 0, 5, 1, 3]
    firsts = {shuffle_items(5, seed)[0] for seed in range(60)}
    assert firsts == set(range(5))
