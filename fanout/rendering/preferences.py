"""Preferences between models, by people's votes or a judge: win rates and ratings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from typing_extensions import Doc, TypedDict

from fanout.rendering.estimates import EstimateJson, get_bounds, render_statistic
from fanout.rendering.figures import Kind, ReportTable

# Not imported when the program runs: it loads numpy.
if TYPE_CHECKING:
    from fanout.evaluate.report.preferences import PreferencePair, PreferenceReport


class RatingJson(TypedDict):
    model: Annotated[str, Doc("Label in the job.")]
    rating: Annotated[float | None, Doc("Bradley–Terry, mean 1,000; 400 points are odds of 10 to 1. Null: no common scale.")]
    low: Annotated[float | None, Doc("Lower bound of the 95 % interval.")]
    high: Annotated[float | None, Doc("Upper bound.")]
    comparisons: Annotated[int, Doc("Verdicts on this model that could be read.")]


class PreferencePairJson(TypedDict):
    """Model A against model B."""

    a: Annotated[str, Doc("Label of A, which has the better rating.")]
    b: Annotated[str, Doc("Label of B.")]
    win_rate: Annotated[EstimateJson, Doc("Of A: (wins + ½ ties) / judged pairs; `n` counts prompts.")]
    wins: Annotated[int, Doc("Pairs in which A is preferred.")]
    losses: Annotated[int, Doc("Pairs in which B is preferred.")]
    ties: Annotated[int, Doc("Ties, those in which both are bad included.")]
    both_bad: Annotated[int, Doc("Pairs in which both are bad.")]
    errors: Annotated[int, Doc("Verdicts that could not be read; they are in no figure.")]
    length_difference: Annotated[float | None, Doc("Mean of A's output tokens less B's; null: unknown.")]
    length_correlation: Annotated[float | None, Doc("Of that difference with A's wins; null: too few pairs, or no spread.")]


class PreferencesJson(TypedDict):
    """Models compared by preferences of one source."""

    source: Annotated[str, Doc("`votes`: people's; else the judge's name.")]
    n: Annotated[int, Doc("Judged pairs.")]
    errors: Annotated[int, Doc("Verdicts that could not be read.")]
    verdict: Annotated[str, Doc("Which model is preferred, and how sure that is.")]
    ratings: Annotated[Sequence[RatingJson], Doc("Best rating first.")]
    pairs: Annotated[Sequence[PreferencePairJson], Doc("Every two models that met.")]
    notes: Annotated[Sequence[str], Doc("What limits these figures.")]


def render_preferences(report: PreferenceReport) -> PreferencesJson:
    """Return the preferences of one source."""
    return {
        "source": report.source,
        "n": report.n,
        "errors": report.ranking.errors,
        "verdict": report.verdict,
        "ratings": [
            {
                "model": one.model,
                "rating": one.rating,
                **dict(zip(("low", "high"), get_bounds(one.interval), strict=True)),  # type: ignore[typeddict-item]
                "comparisons": one.comparisons,
            }
            for one in report.ranking.ratings
        ],
        "pairs": [_render_pair(pair) for pair in report.pairs],
        "notes": list(report.notes),
    }


def _render_pair(pair: PreferencePair) -> PreferencePairJson:
    return {
        "a": pair.a,
        "b": pair.b,
        "win_rate": render_statistic(pair.rate.rate),
        "wins": pair.rate.wins,
        "losses": pair.rate.losses,
        "ties": pair.rate.ties,
        "both_bad": pair.both_bad,
        "errors": pair.rate.errors,
        "length_difference": pair.length_difference,
        "length_correlation": pair.length_correlation,
    }


def list_preference_tables(preferences: PreferencesJson) -> list[ReportTable]:
    """Return the ratings and the win rates of one source."""
    ratings: dict[str, Kind] = {"model": "text", "rating": "rate", "low": "rate", "high": "rate", "judged": "count"}
    rating_rows = [(one["model"], one["rating"], one["low"], one["high"], one["comparisons"]) for one in preferences["ratings"]]
    counts: dict[str, Kind] = dict.fromkeys(("A preferred", "equal", "both bad", "B preferred", "unread", "prompts"), "count")
    pairs: dict[str, Kind] = {"A": "text", "B": "text", "A's win rate": "score", "low": "score", "high": "score", **counts}
    # Beside every win rate, because judges and people favour length.
    pairs |= {"A's tokens − B's": "rate", "correlation": "score"}
    pair_rows = [
        (
            pair["a"],
            pair["b"],
            *(pair["win_rate"]["value"], pair["win_rate"]["low"], pair["win_rate"]["high"]),
            *(pair["wins"], pair["ties"], pair["both_bad"], pair["losses"], pair["errors"], pair["win_rate"]["n"]),
            *(pair["length_difference"], pair["length_correlation"]),
        )
        for pair in preferences["pairs"]
    ]
    source = preferences["source"]
    return [
        ReportTable("ratings", source, f"{source}: ratings (Bradley–Terry) with 95 % intervals", ratings, rating_rows),
        ReportTable("win_rates", source, f"{source}: win rates", pairs, pair_rows),
    ]
