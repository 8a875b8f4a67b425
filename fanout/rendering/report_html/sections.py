"""Sections of the document: from a report's figures to cards, drawings and tables. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fanout.rendering.figures import Cell, Kind, ReportTable, format_band, format_cell, format_score
from fanout.rendering.fusions import FusionComparisonJson, table_fusions
from fanout.rendering.report import DurationJson, MetricJson, ModelScoreJson, PairJson, ReportJson, ReportModelJson
from fanout.rendering.report_html.blocks import Blocks, list_texts, section
from fanout.rendering.report_html.canvas import MINUS, format_ms, format_plain, format_usd, get_tone
from fanout.rendering.report_html.interval_charts import BoxRow, IntervalRow, RankRow, draw_boxes, draw_intervals, draw_ranks
from fanout.rendering.report_html.markup import Markup, element, join, write_prose
from fanout.rendering.report_html.plane_charts import Line, Point, draw_agreement, draw_course, draw_repeats, draw_trade_off
from fanout.rendering.report_tables import table_latencies, table_models, table_pairs, table_repeats, table_scores
from fanout.rendering.stopping import StoppedPairJson, StoppingJson, describe_expense, table_path, table_stopping

MAX_AGREEMENTS = 6
"""Pairs drawn score against score; of more models, those of the best ones."""
MAX_DRAWN = 40
"""Rows of a figure; the table has all of them."""
TIMES: Mapping[str, str] = {
    "ttft_ms": "Time to first token",
    "tpot_ms": "Time for each token after the first",
    "call_ms": "Time of the attempt",
    "total_ms": "Total time",
}
Tones = Mapping[str, str]


def pick_tones(report: ReportJson) -> Tones:
    """Return the colour of each model, the same in every figure."""
    return {model["model"]: get_tone(place) for place, model in enumerate(report["models"])}


def build_cards(report: ReportJson, tones: Tones) -> Markup:
    """Return a card for each model."""
    return element("div", *(_build_card(model, report["metrics"], tones) for model in report["models"]), class_="cards")


def _build_card(model: ReportModelJson, metrics: Sequence[MetricJson], tones: Tones) -> Markup:
    name = model["model"]
    scores = [(metric, one) for metric in metrics for one in metric["models"] if one["model"] == name]
    served = " · ".join(filter(None, (model["provider"], model["upstream_model"])))
    failures = [f"{kind.replace('_', ' ')} {number:,}" for kind, number in model["failures"].items()]
    facts = {
        **{metric["name"]: format_interval(one) for metric, one in scores[1:]},
        "answered": f"{model['answered']:,} of {model['ended']:,}",
        "failed": ", ".join(failures) or "none",
        "cost": format_cell(model["cost_usd"], "usd") or "unknown",
        "per 1,000 items": format_cell(model["cost_per_1000_items_usd"]["value"], "usd") or "unknown",
        "first token p50/p95": _format_times(model["ttft_ms"]),
        "total p50/p95": _format_times(model["total_ms"]),
        "tokens/s": format_cell(model["tokens_per_second"], "rate") or "unknown",
    }
    listed = element("dl", *(element("div", element("dt", key), element("dd", value)) for key, value in facts.items()))
    title = element("h3", element("span", class_=f"dot {tones[name]}", aria_hidden="true"), name)
    return element(
        *("article", title, element("p", served, class_="quiet served") if served else None),
        *(_build_headline(*score) for score in scores[:1]),
        listed,
        class_="card",
    )


def _build_headline(metric: MetricJson, score: ModelScoreJson) -> Markup:
    mean = score["mean"]
    low, high = mean["low"], mean["high"]
    between = None if low is None or high is None else f" {format_score(low)} to {format_score(high)}"
    value = "no score" if mean["value"] is None else format_score(mean["value"])
    band = format_band(score["best_rank"], score["worst_rank"])
    rank = "" if not band or score["verdict"].startswith("rank") else f" · rank {band}"
    return join(
        element("p", value, element("small", between) if between else None, class_="headline"),
        element("p", element("b", score["verdict"]), f" by {metric['name']}{rank}", class_="verdict"),
    )


def format_interval(score: ModelScoreJson) -> str:
    """Return a mean with its interval."""
    mean = score["mean"]
    if mean["value"] is None:
        return "unknown"
    if mean["low"] is None or mean["high"] is None:
        return format_score(mean["value"])
    return f"{format_score(mean['value'])} [{format_score(mean['low'])}, {format_score(mean['high'])}]"


def _format_times(duration: DurationJson) -> str:
    p50, p95 = duration["p50"], duration["p95"]
    return "not measured" if p50 is None or p95 is None else f"{format_ms(p50)} / {format_ms(p95)}"


def build_metric(metric: MetricJson, number: int, tones: Tones, blocks: Blocks) -> Markup:
    """Return the figures of one scorer."""
    name, less = metric["name"], "" if metric["is_higher_better"] else " Less is better."
    figures = [*_draw_means(metric, tones, blocks, less), *_draw_pairs(metric, blocks)]
    repeats = [Line(one["model"], tones[one["model"]], one["by_repeat"]) for one in metric["models"]]
    if any(len(line.values) > 1 for line in repeats):
        figures.append(
            blocks.figure(
                "Score by repeat",
                "The mean of each repeat: lines that cross are chance, not rank.",
                lambda width: draw_repeats(repeats, width, f"{name}: mean by repeat", format_score),
                table_repeats(metric),
            )
        )
    figures += _draw_agreements(metric, blocks)
    size = f"{metric['n']:,} items that every model has.{less}"
    grid = element("div", *figures, class_="figures")
    return section(
        f"metric-{number}",
        name,
        element("p", write_prose(metric["verdict"]), class_="verdict"),
        element("p", size, class_="quiet"),
        grid,
    )


def _draw_means(metric: MetricJson, tones: Tones, blocks: Blocks, less: str) -> Iterator[Markup]:
    name, models = metric["name"], metric["models"][:MAX_DRAWN]
    bounds = (0.0, 1.0) if metric["is_bounded"] else None
    rows = [
        IntervalRow(one["model"], tones[one["model"]], mean["value"], mean["low"], mean["high"])
        for one in models
        for mean in (one["mean"],)
    ]
    yield blocks.figure(
        "Score",
        f"Mean over items, with its 95 % interval.{less}",
        lambda width: draw_intervals(
            rows,
            width,
            f"{name}: mean of each model with its 95 % interval",
            format_score,
            bounds=bounds,
            format_tick=format_plain,
        ),
        table_scores(metric),
    )
    ranks = [
        RankRow(one["model"], tones[one["model"]], one["best_rank"], one["worst_rank"])
        for one in models
        if one["best_rank"] is not None and one["worst_rank"] is not None
    ]
    if len(ranks) > 1:
        columns: dict[str, Kind] = {"model": "text", "best rank": "count", "worst rank": "count", "verdict": "text"}
        listed = [(one["model"], one["best_rank"], one["worst_rank"], one["verdict"]) for one in metric["models"]]
        yield blocks.figure(
            "Rank",
            "The ranks that simultaneous intervals allow. Bands that overlap: no sure order.",
            lambda width: draw_ranks(ranks, width, f"{name}: possible ranks of each model"),
            ReportTable("ranks", name, f"{name}: possible ranks", columns, listed),
        )


def _draw_pairs(metric: MetricJson, blocks: Blocks) -> Iterator[Markup]:
    name, pairs = metric["name"], metric["pairs"]
    if not pairs:
        return
    rows = [_to_pair_row(pair) for pair in pairs[:MAX_DRAWN]]
    yield blocks.figure(
        "Paired differences",
        "A − B on the same items. Thick: 95 %; thin: together with all other pairs. An interval that crosses 0: not sure.",
        lambda width: draw_intervals(
            rows, width, f"{name}: differences of models", format_difference, zero=0.0, format_tick=format_plain
        ),
        table_pairs(metric),
    )


def _draw_agreements(metric: MetricJson, blocks: Blocks) -> Iterator[Markup]:
    name, drawn = metric["name"], [pair for pair in metric["pairs"] if pair["grid"]][:MAX_AGREEMENTS]
    if drawn:
        columns: dict[str, Kind] = {"A": "text", "B": "text", "score of A": "score", "score of B": "score", "items": "count"}
        cells: list[Sequence[Cell]] = [
            (pair["a"], pair["b"], cell["a"], cell["b"], cell["items"]) for pair in drawn for cell in pair["grid"]
        ]
        yield blocks.figure(
            "Score against score",
            "Every item by its score of A and of B. The larger the circle, the more items; those on the line are equal.",
            [
                draw_agreement(pair["grid"], (pair["a"], pair["b"]), f"{name}: {pair['a']} against {pair['b']}")
                for pair in drawn
            ],
            ReportTable("score_grid", name, f"{name}: items by two scores", columns, cells),
        )


def _to_pair_row(pair: PairJson) -> IntervalRow:
    difference, low, high = pair["difference"], pair["simultaneous_low"], pair["simultaneous_high"]
    outer = None if low is None or high is None else (low, high)
    is_sure = outer is not None and (outer[0] > 0 or outer[1] < 0)
    label = f"{pair['a']}{MINUS}{pair['b']}"
    return IntervalRow(
        label, "sure" if is_sure else "unsure", difference["value"], difference["low"], difference["high"], outer
    )


def format_difference(value: float) -> str:
    """Return a difference with its sign."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{format_score(abs(value))}"


def build_fusions(fusions: Sequence[FusionComparisonJson], blocks: Blocks) -> Markup:
    """Return each fusion beside its best member, and beside that member fused with itself."""
    choice = "The best member is chosen on other items than those on which it is compared."
    sentences = list_texts([fusion["sentence"] for fusion in fusions])
    return section("fusions", "Fusions", sentences, element("p", choice, class_="quiet"), blocks.fold(table_fusions(fusions)))


def build_stopping(stopping: StoppingJson, blocks: Blocks) -> Markup:
    """Return when a job knew its answer, and what was known after each item."""
    metric, margin = stopping["metric"], stopping["margin"]
    drawn = [pair for pair in stopping["pairs"] if pair["path"]][:MAX_AGREEMENTS]
    expense = element("p", write_prose(f"{describe_expense(stopping)}."), class_="quiet")
    table = blocks.fold(table_stopping(stopping))
    figures = [_draw_course(pair, metric, margin, blocks) for pair in drawn]
    return section("stopping", "When it was known", expense, table, element("div", *figures, class_="figures"))


def _draw_course(pair: StoppedPairJson, metric: str, margin: float | None, blocks: Blocks) -> Markup:
    title = f"{pair['a']}{MINUS}{pair['b']}"
    lines = "" if margin is None else f" Dashed: ±{margin:g}, which counts as equal."
    return blocks.figure(
        title,
        f"Mean difference by {metric} after each item, with the interval that holds at every look: {pair['state']}.{lines}",
        lambda width: draw_course(pair["path"], margin, width, f"{metric}: {title} after each item"),
        table_path(metric, [pair]),
    )


def build_costs(report: ReportJson, tones: Tones, blocks: Blocks) -> Markup:
    """Return cost against quality, and the times of answers."""
    figures = [figure for metric in report["metrics"] if (figure := _draw_trade_off(report, metric, tones, blocks))]
    for field, title in TIMES.items():
        if figure := _draw_times(report["models"], field, title, tones, blocks):
            figures.append(figure)
    tables = [blocks.fold(table_models(report))]
    if report["latency_pairs"]:
        tables.append(blocks.fold(table_latencies(report)))
    return section("costs", "Cost and time", element("div", *figures, class_="figures"), *tables)


def _draw_trade_off(report: ReportJson, metric: MetricJson, tones: Tones, blocks: Blocks) -> Markup | None:
    costs = {model["model"]: model["cost_per_1000_items_usd"] for model in report["models"]}
    for fusion in report["fusions"]:  # with its members: its own call alone would look like a bargain
        cost_usd = fusion["cost_per_1000_items_usd"]
        costs[fusion["fusion"]] = {**costs[fusion["fusion"]], "value": cost_usd, "low": None, "high": None}
    points, rows = [], []
    for score in metric["models"]:
        cost, mean = costs[score["model"]], score["mean"]
        rows.append((score["model"], cost["value"], mean["value"]))
        if cost["value"] is not None and mean["value"] is not None:
            x_bounds = None if cost["low"] is None or cost["high"] is None else (cost["low"], cost["high"])
            y_bounds = None if mean["low"] is None or mean["high"] is None else (mean["low"], mean["high"])
            points.append(Point(score["model"], tones[score["model"]], cost["value"], mean["value"], x_bounds, y_bounds))
    # Costs and times as scores would be drawn against themselves; free models all stand at one place.
    if len(points) < 2 or not metric["is_higher_better"] or len({point.x for point in points}) < 2:
        return None
    columns: dict[str, Kind] = {"model": "text", "per 1,000 items": "usd", metric["name"]: "score"}
    title = f"Cost against {metric['name']}"
    return blocks.figure(
        title,
        "US dollars for 1,000 items, with 95 % intervals. On the dashed line: no model is both cheaper and better.",
        lambda width: draw_trade_off(points, width, title, format_usd),
        ReportTable("cost_quality", metric["name"], title, columns, rows),
    )


def _draw_times(models: Sequence[ReportModelJson], field: str, title: str, tones: Tones, blocks: Blocks) -> Markup | None:
    names = ("p5", "p25", "p50", "p75", "p95")
    drawn, rows = [], []
    for model in models:
        duration: DurationJson = model[field]  # type: ignore[literal-required]  # one of TIMES
        percentiles = [duration[name] for name in names]  # type: ignore[literal-required]
        rows.append((model["model"], duration["n"], *percentiles))
        if all(percentiles):
            drawn.append(BoxRow(model["model"], tones[model["model"]], *percentiles))
    if not drawn:
        return None
    columns: dict[str, Kind] = {"model": "text", "answers": "count", **dict.fromkeys(names, "ms")}
    return blocks.figure(
        title,
        "Answers only. Box: middle half; whiskers: 5 to 95 %. At the right: median / p95. Equal distances are equal factors.",
        lambda width: draw_boxes(drawn[:MAX_DRAWN], width, title, format_ms),
        ReportTable(field.removesuffix("_ms"), None, title, columns, rows),
    )
