"""Figures of a judge, corrected by people's labels on some of the same answers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

from fanout.evaluate.judging.questions import Question
from fanout.evaluate.report.measures import JudgeMeasures
from fanout.evaluate.report.preferences import POINTS, Judgement, Place
from fanout.evaluate.statistics.judges import CorrectedMean, correct_mean

if TYPE_CHECKING:
    from fanout.store.votes import VoteRow

ByItem = Mapping[int, float]
"""One figure an item, repeats averaged."""


@dataclass(frozen=True, slots=True)
class CorrectedFigure:
    """A figure of a judge beside the one that people's labels make of it."""

    a: str
    b: str | None
    """`None`: the mean score of A alone; else A's mean less B's, or A's win rate against B."""
    items: int
    """Items that the judge has judged."""
    judged: float
    """By the judge alone, over these."""
    corrected: CorrectedMean


def correct_scores(
    judge: JudgeMeasures, labels: Mapping[tuple[int, int, int], float], names: Mapping[int, str]
) -> list[CorrectedFigure]:
    """Return each model's mean, and every pair's difference, where people have scored some of the answers.

    Args:
        judge: of single answers.
        labels: people's scores by item, entry and repeat.
        names: models by entry.
    """
    scores: dict[int, dict[Place, float]] = {entry: {} for entry in names}
    for name, (value, _) in judge.verdicts.items():
        question = Question.from_custom_id(name)
        if value is not None and not question.is_again:
            ((entry, repeat),) = question.answers
            scores[entry][question.item, entry, repeat] = value
    # Of a labelled item only the labelled repeats count, for people and judge alike: else their difference is not its error.
    pairs = {entry: _split(of_model, labels) for entry, of_model in scores.items()}
    found = [_correct(names[entry], None, *pairs[entry]) for entry in names]
    for a, b in combinations(names, 2):
        (labels_a, judged_a, rest_a), (labels_b, judged_b, rest_b) = pairs[a], pairs[b]
        differences = (_subtract(labels_a, labels_b), _subtract(judged_a, judged_b), _subtract(rest_a, rest_b))
        found.append(_correct(names[a], names[b], *differences, bounds=(-1.0, 1.0)))
    return [one for one in found if one]


def correct_preferences(
    judgements: Sequence[Judgement], votes: Sequence[VoteRow], names: Mapping[int, str]
) -> list[CorrectedFigure]:
    """Return every pair's win rate, where people have voted on some of the same answers.

    Args:
        judgements: of a judge.
        votes: people's choices between two answers.
        names: models by entry.
    """
    choices: dict[tuple[Place, Place], list[float]] = {}
    for vote in votes:
        places = [(vote.item, answer.entry, answer.repeat) for answer in vote.answers]
        if len(places) == 2 and vote.choice is not None:
            choices.setdefault((places[0], places[1]), []).append(POINTS.get(vote.choice, 0.5))
    found = []
    for a, b in combinations(names, 2):
        scores, labels = dict[Place, float](), dict[Place, float]()
        for one in judgements:
            if {one.a[1], one.b[1]} != {a, b} or one.winner is None:
                continue
            first, second = (one.a, one.b) if one.a[1] == a else (one.b, one.a)
            points = POINTS.get(one.winner, 0.5)
            scores[first] = points if first == one.a else 1 - points
            voted = [*choices.get((first, second), ()), *(1 - value for value in choices.get((second, first), ()))]
            if voted:
                labels[first] = fmean(voted)
        found.append(_correct(names[a], names[b], *_split(scores, labels)))
    return [one for one in found if one]


def _split(scores: Mapping[Place, float], labels: Mapping[Place, float]) -> tuple[ByItem, ByItem, ByItem]:
    """Return labels and judgements of the labelled items, and judgements of the others."""
    labelled = {place: labels[place] for place in scores if place in labels}
    items = {item for item, _, _ in labelled}
    rest = {place: score for place, score in scores.items() if place[0] not in items}
    return _average(labelled), _average({place: scores[place] for place in labelled}), _average(rest)


def _average(scores: Mapping[Place, float]) -> ByItem:
    of_item: dict[int, list[float]] = {}
    for (item, _, _), score in scores.items():
        of_item.setdefault(item, []).append(score)
    return {item: fmean(found) for item, found in of_item.items()}


def _subtract(a: ByItem, b: ByItem) -> ByItem:
    return {item: a[item] - b[item] for item in a if item in b}


def _correct(
    a: str, b: str | None, labels: ByItem, judged: ByItem, rest: ByItem, bounds: tuple[float, float] = (0.0, 1.0)
) -> CorrectedFigure | None:
    """Return a corrected figure; `None` where there is no label to correct it by."""
    if not labels:
        return None
    corrected = correct_mean(list(labels.values()), list(judged.values()), list(rest.values()), bounds=bounds)
    mean = fmean([*judged.values(), *rest.values()])
    return CorrectedFigure(a, b, len(judged) + len(rest), mean, corrected)
