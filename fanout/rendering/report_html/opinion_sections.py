"""Sections of the document on opinions: votes and verdicts of judges, and how far the judges can be trusted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from fanout.rendering.figures import format_score
from fanout.rendering.judges import JudgeJson, table_corrected, table_judges
from fanout.rendering.preferences import PreferencesJson, list_preference_tables
from fanout.rendering.report_html.blocks import Blocks, section
from fanout.rendering.report_html.canvas import MINUS, format_plain, get_tone
from fanout.rendering.report_html.interval_charts import IntervalRow, draw_intervals
from fanout.rendering.report_html.markup import Markup, element, write_prose
from fanout.rendering.report_html.plane_charts import draw_heat_map
from fanout.rendering.report_html.sections import MAX_DRAWN, Tones


def build_preferences(preferences: PreferencesJson, number: int, tones: Tones, blocks: Blocks) -> Markup:
    """Return the ratings and win rates of one source."""
    source = "Votes" if preferences["source"] == "votes" else f"Judge {preferences['source']}"
    ratings, win_rates = list_preference_tables(preferences)
    rows = [
        IntervalRow(one["model"], tones.get(one["model"], get_tone(place)), one["rating"], one["low"], one["high"])
        for place, one in enumerate(preferences["ratings"][:MAX_DRAWN])
    ]
    figures = [
        blocks.figure(
            "Ratings",
            "Bradley–Terry, mean 1,000; 400 points are odds of 10 to 1. With 95 % intervals.",
            lambda width: draw_intervals(rows, width, f"{source}: ratings", lambda value: f"{value:,.0f}"),
            ratings,
        )
    ]
    rates = {(pair["a"], pair["b"]): rate for pair in preferences["pairs"] if (rate := pair["win_rate"]["value"]) is not None}
    if rates:
        rates |= {(b, a): 1 - rate for (a, b), rate in rates.items()}
        models = [one["model"] for one in preferences["ratings"][:12]]
        figures.append(
            blocks.figure(
                "Win rates",
                "Share of prompts on which the model of the row is preferred to that of the column; ties count half.",
                lambda width: draw_heat_map(models, rates, width, f"{source}: win rates"),
                win_rates,
            )
        )
    notes = [element("p", write_prose(note), class_="quiet") for note in preferences["notes"]]
    verdict = element("p", write_prose(preferences["verdict"]), class_="verdict")
    return section(f"preferences-{number}", source, verdict, *notes, element("div", *figures, class_="figures"))


def build_judges(judges: Sequence[JudgeJson], blocks: Blocks) -> Markup:
    """Return how far each judge can be trusted."""
    tones = map(get_tone, count())
    rows = [
        IntervalRow(label if len(judges) == 1 else f"{label}: {judge['name']}", tone, value)
        for judge, tone in zip(judges, tones, strict=False)
        for label, value in (
            ("κ with people", judge["kappa"]),
            ("both orders agree", judge["consistency"]),
            ("repeated agree", judge["retest"]),
            ("bias to the first", judge["bias"]),
        )
    ]
    figure = blocks.figure(
        "Agreement",
        "κ: agreement with people beyond chance. A good judge has the first three near 1, and a bias near 0.",
        lambda width: draw_intervals(
            rows[:MAX_DRAWN],
            width,
            "Reliability of each judge",
            format_score,
            zero=0.0,
            bounds=(-1.0, 1.05),
            format_tick=format_plain,
        ),
        table_judges(judges),
    )
    notes = [
        element("p", write_prose(f"{judge['name']}: {judge['note']}"), class_="warning") for judge in judges if judge["note"]
    ]
    corrected = [_draw_corrected(judge, blocks) for judge in judges if judge["corrected"]]
    figures = element("div", figure, *corrected, class_="figures")
    return section("judges", "Judges: how far they can be trusted", *notes, figures)


def _draw_corrected(judge: JudgeJson, blocks: Blocks) -> Markup:
    """Return what a judge's figures are where people's labels correct them."""
    between = MINUS if judge["task"] == "score" else " over "
    rows = [
        IntervalRow(
            figure["a"] if figure["b"] is None else f"{figure['a']}{between}{figure['b']}",
            get_tone(place),
            *(figure["corrected"]["value"], figure["corrected"]["low"], figure["corrected"]["high"]),
        )
        for place, figure in enumerate(judge["corrected"][:MAX_DRAWN])
    ]
    title = f"{judge['name']}, corrected by people's labels"
    return blocks.figure(
        title,
        "Estimates of what people would say of all items, from the judge's verdicts on all and people's labels on some.",
        lambda width: draw_intervals(rows, width, title, format_score, format_tick=format_plain),
        table_corrected(judge),
    )
