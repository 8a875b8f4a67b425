"""Preferences between a job's models, by people or by a judge: win rates of pairs, and ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from fanout.core.threads import while_wanted
from fanout.evaluate.report.measures import ModelMeasures
from fanout.evaluate.report.metrics import mark_estimate
from fanout.evaluate.statistics.bradley_terry import Ranking, rank
from fanout.evaluate.statistics.preferences import JudgedPair, Verdict, WinRate, length_effect, win_rate

Place = tuple[int, int, int]
"""Item, entry and repeat."""
POINTS: Mapping[str, float] = {"a": 1.0, "b": 0.0}
"""Of the first model; a tie and "both bad" are a half."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Two answers to one item, and which one is preferred."""

    a: Place
    b: Place
    winner: Verdict | None
    """`None`: the verdict could not be read."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Model A against model B."""

    a: str
    b: str
    rate: WinRate
    both_bad: int
    length_difference: float | None
    """Mean of A's output tokens less B's, over the judged pairs."""
    length_correlation: float | None
    """Of that difference with A's wins."""


@dataclass(frozen=True, slots=True)
class PreferenceReport:
    """The models compared by preferences of one source."""

    source: str
    n: int
    """Judgements."""
    ranking: Ranking
    pairs: Sequence[PreferencePair]
    """A has the better rating."""
    verdict: str
    notes: Sequence[str] = ()


def compare_preferences(
    source: str, judgements: Sequence[Judgement], models: Mapping[int, ModelMeasures], notes: Sequence[str] = ()
) -> PreferenceReport:
    """Return the comparison of models by preferences.

    Args:
        source: of the preferences, as "votes".
        judgements: of answers to the job's items.
        models: by entry.
        notes: what limits every figure, such as "judge not validated".
    """
    judged = [JudgedPair(one.a[0], models[one.a[1]].name, models[one.b[1]].name, one.winner) for one in judgements]
    ranking = rank(judged)
    names = [rating.model for rating in ranking.ratings]
    lengths = _measure_lengths(judgements, models)
    pairs = [_compare(a, b, judgements, judged, lengths) for a, b in while_wanted(combinations(names, 2))]
    # Pairs that never met are left out: an empty row reads like a tie.
    met = [pair for pair in pairs if pair.rate.rate.n or pair.rate.errors]
    notes = [*notes, *([ranking.note] if ranking.note else [])]
    return PreferenceReport(source, len(judged), ranking, met, _describe(source, ranking, met), notes)


def _measure_lengths(judgements: Sequence[Judgement], models: Mapping[int, ModelMeasures]) -> Mapping[Place, float]:
    """Return the output tokens of the answers that were judged, where they are known."""
    wanted = {place for one in judgements for place in (one.a, one.b)}
    found: dict[Place, float] = {}
    for entry in {place[1] for place in wanted}:
        model = models[entry]
        for item, repeat, tokens in zip(model.items, model.repeats, model.output_tokens, strict=True):
            if np.isfinite(tokens) and (item, entry, repeat) in wanted:
                found[item, entry, repeat] = tokens
    return found


def _compare(
    a: str, b: str, judgements: Sequence[Judgement], judged: Sequence[JudgedPair], lengths: Mapping[Place, float]
) -> PreferencePair:
    both_bad, differences, points = 0, [], []
    for one, pair in zip(judgements, judged, strict=True):
        if {pair.a, pair.b} != {a, b} or one.winner is None:
            continue
        both_bad += one.winner == "both_bad"
        if one.a in lengths and one.b in lengths:
            # Judgements come in either order; without the sign the lengths of both would cancel each other out.
            sign = 1 if pair.a == a else -1
            differences.append(sign * (lengths[one.a] - lengths[one.b]))
            points.append(0.5 + sign * (POINTS.get(one.winner, 0.5) - 0.5))
    return PreferencePair(a, b, win_rate(judged, a, b), both_bad, *length_effect(differences, points))


def _describe(source: str, ranking: Ranking, pairs: Sequence[PreferencePair]) -> str:
    """Return in words which model is preferred."""
    if len(ranking.ratings) < 2 or ranking.ratings[0].rating is None:
        return f"{source}: no ranking, {ranking.note or 'no pair was judged'}"
    best = ranking.ratings[0].model
    own = [pair for pair in pairs if best in (pair.a, pair.b)]
    intervals = [(pair, pair.rate.rate.interval) for pair in own]
    if all(interval is None for _, interval in intervals):
        return f"{source}: {best} has the best rating, {_count(ranking)}; too few to tell whether that is more than chance"
    surely = [pair for pair, interval in intervals if interval is not None and (interval.low > 0.5 or interval.high < 0.5)]
    # Against each of the others by itself: a best rating may come from beating the weak ones alone.
    if len(surely) == len(ranking.ratings) - 1:
        return f"{source}: {best} is preferred to every other model, {_count(ranking)}"
    tied = [pair.b if pair.a == best else pair.a for pair in own if pair not in surely]
    unmet = "" if len(own) == len(ranking.ratings) - 1 else "; it has not met every model"
    tie = f", not surely above {', '.join(tied)}" if tied else ""
    return f"{source}: {best} has the best rating{tie}, {_count(ranking)}{unmet}"


def _count(ranking: Ranking) -> str:
    return f"{ranking.n:,} judgement{'' if ranking.n == 1 else 's'}"


def mark_preferences(report: PreferenceReport, note: str | None) -> PreferenceReport:
    """Return preferences with a note beside the verdict and every win rate."""
    if note is None:
        return report
    pairs = [replace(pair, rate=replace(pair.rate, rate=mark_estimate(pair.rate.rate, note))) for pair in report.pairs]
    return replace(report, pairs=pairs, verdict=f"{report.verdict} ({note})", notes=[*report.notes, note])
