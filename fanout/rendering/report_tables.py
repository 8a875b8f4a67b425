"""Tables of a report, for the terminal, Markdown, CSV and the page. Pure."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Iterator
from typing import Literal

from fanout.core.shown_text import split_code
from fanout.rendering.figures import Kind, ReportTable, format_band
from fanout.rendering.fusions import table_fusions
from fanout.rendering.judges import table_corrected, table_judges
from fanout.rendering.preferences import list_preference_tables
from fanout.rendering.report import MetricJson, ReportJson, ReportModelJson
from fanout.rendering.stopping import describe_expense, table_path, table_stopping

MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]|~])")


def list_tables(report: ReportJson) -> list[ReportTable]:
    """Return all tables of a report."""
    tables: list[ReportTable] = []
    for metric in report["metrics"]:
        tables.append(table_scores(metric))
        if metric["pairs"]:
            tables.append(table_pairs(metric))
        if any(len(model["by_repeat"]) > 1 for model in metric["models"]):
            tables.append(table_repeats(metric))
    if report["fusions"]:
        tables.append(table_fusions(report["fusions"]))
    for preference in report["preferences"]:
        tables += list_preference_tables(preference)
    if report["stopping"]:
        tables.append(table_stopping(report["stopping"]))
    if report["judges"]:
        tables.append(table_judges(report["judges"]))
        tables += [table_corrected(judge) for judge in report["judges"] if judge["corrected"]]
    tables.append(table_models(report))
    if report["latency_pairs"]:
        tables.append(table_latencies(report))
    tables.append(table_parameters(report))
    return tables


def table_scores(metric: MetricJson) -> ReportTable:
    """Return each model's mean, with its rank."""
    columns: dict[str, Kind] = {
        "model": "text",
        "mean": "score",
        "low": "score",
        "high": "score",
        "items": "count",
        "rank": "text",
        "verdict": "text",
    }
    rows = [
        (
            model["model"],
            model["mean"]["value"],
            model["mean"]["low"],
            model["mean"]["high"],
            model["mean"]["n"],
            format_band(model["best_rank"], model["worst_rank"]),
            model["verdict"],
        )
        for model in metric["models"]
    ]
    title = f"{metric['name']}: means with 95 % intervals{'' if metric['is_higher_better'] else ' (less is better)'}"
    return ReportTable("scores", metric["name"], title, columns, rows)


def table_pairs(metric: MetricJson) -> ReportTable:
    """Return each pair's difference."""
    columns: dict[str, Kind] = {
        "A": "text",
        "B": "text",
        "A − B": "score",
        "low": "score",
        "high": "score",
        "p": "p",
        "p (Holm)": "p",
        "smallest p": "p",
        "A better": "count",
        "equal": "count",
        "B better": "count",
        "items": "count",
        "dropped": "count",
    }
    dropped = sum(metric["dropped"][reason] for reason in ("unfinished", "failed", "unscored"))
    rows = [
        (
            pair["a"],
            pair["b"],
            *(pair["difference"]["value"], pair["difference"]["low"], pair["difference"]["high"]),
            *(pair["p_value"], pair["p_adjusted"], pair["smallest_p"]),
            *(pair["wins"], pair["ties"], pair["losses"]),
            *(pair["difference"]["n"], dropped),
        )
        for pair in metric["pairs"]
    ]
    return ReportTable("pairs", metric["name"], f"{metric['name']}: paired differences", columns, rows)


def table_repeats(metric: MetricJson) -> ReportTable:
    """Return each model's mean by repeat, its variance within items, and pass@k."""
    repeats = max(len(model["by_repeat"]) for model in metric["models"])
    ks = sorted({one["k"] for model in metric["models"] for one in model["passes"] if one["k"] > 1})
    columns: dict[str, Kind] = {"model": "text"}
    columns |= {f"repeat {number + 1}": "score" for number in range(repeats)}
    columns |= {"variance within items": "score"}
    columns |= {name: "score" for k in ks for name in (f"pass@{k}", f"pass^{k}")}
    rows = []
    for model in metric["models"]:
        passes = {one["k"]: (one["pass_at_k"], one["pass_hat_k"]) for one in model["passes"]}
        means = [*model["by_repeat"], *[None] * (repeats - len(model["by_repeat"]))]
        chances = [value for k in ks for value in passes.get(k, (None, None))]
        rows.append((model["model"], *means, model["within_variance"], *chances))
    return ReportTable("repeats", metric["name"], f"{metric['name']}: by repeat", columns, rows)


def table_models(report: ReportJson) -> ReportTable:
    """Return each model's calls, cost and times; without those of streams where no answer was streamed."""
    times: list[tuple[str, Literal["ttft_ms", "tpot_ms", "call_ms", "total_ms"]]] = []
    if any(model["ttft_ms"]["n"] for model in report["models"]):
        times = [("ttft", "ttft_ms"), ("tpot", "tpot_ms")]
    times += [("attempt", "call_ms"), ("total", "total_ms")]
    columns: dict[str, Kind] = {
        "model": "text",
        "attempted": "count",
        "answered": "count",
        "failed": "text",
        "cost": "usd",
        "per 1,000 items": "usd",
        **{f"{title} {rank}": "ms" for title, _ in times for rank in ("p50", "p95")},
        "tokens/s": "rate",
    }
    rows = [
        (
            model["model"],
            model["ended"],
            model["answered"],
            ", ".join(f"{kind} {count:,}" for kind, count in model["failures"].items()) or "0",
            model["cost_usd"],
            model["cost_per_1000_items_usd"]["value"],
            *(value for _, field in times for value in (model[field]["p50"], model[field]["p95"])),
            model["tokens_per_second"],
        )
        for model in report["models"]
    ]
    return ReportTable("models", None, "Calls, cost and times of answers", columns, rows)


def table_latencies(report: ReportJson) -> ReportTable:
    """Return each pair's difference of attempt times."""
    columns: dict[str, Kind] = {
        "A": "text",
        "B": "text",
        **{f"{name}{bound}": "ms" for name in ("median A − B", "p95 A − B") for bound in ("", " low", " high")},
        "items": "count",
    }
    rows = [
        (
            pair["a"],
            pair["b"],
            *(pair["median_ms"]["value"], pair["median_ms"]["low"], pair["median_ms"]["high"]),
            *(pair["p95_ms"]["value"], pair["p95_ms"]["low"], pair["p95_ms"]["high"]),
            pair["median_ms"]["n"],
        )
        for pair in report["latency_pairs"]
    ]
    return ReportTable("latency_pairs", None, "Differences of attempt times", columns, rows)


def table_parameters(report: ReportJson) -> ReportTable:
    """Return the parameters that each model really received."""
    columns: dict[str, Kind] = dict.fromkeys(("model", "provider", "upstream model", "sent", "not sent", "adjusted"), "text")
    return ReportTable(
        "parameters",
        None,
        "Parameters that each model received",
        columns,
        [_list_parameters(model) for model in report["models"]],
    )


def _list_parameters(model: ReportModelJson) -> tuple[str, ...]:
    sent = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in model["parameters"].items())
    return (
        model["model"],
        model["provider"] or "",
        model["upstream_model"] or "",
        sent or "none",
        *(
            ", ".join(f"{name} ({count:,} calls)" for name, count in model[field].items())
            for field in ("ignored_parameters", "adjusted_parameters")
        ),
    )


def format_title(report: ReportJson) -> str:
    """Return a line that names the job and its size."""
    job = report["job"]
    repeats = f" × {job['repeats']:,} repeats" if job["repeats"] > 1 else ""
    size = f"{job['items']:,} items × {len(report['models']):,} models{repeats}"
    return " · ".join(filter(None, (job["name"], job["id"], size, f"{job['ended']:,} of {job['calls']:,} calls", job["state"])))


def list_verdicts(report: ReportJson) -> list[str]:
    """Return the verdict of every metric and of every source of preferences."""
    stopping = report["stopping"]["sentence"] if report["stopping"] else None
    found = [metric["verdict"] for metric in report["metrics"]]
    found += [fusion["sentence"] for fusion in report["fusions"]]
    found += [one["verdict"] for one in report["preferences"]]
    return [stopping, *found] if stopping else found


def list_policies(report: ReportJson) -> list[str]:
    """Return the sentences that belong beside every figure."""
    lines = [f"failures: {report['policy']} (`failed: {report['failed']}`, fixed before the run)"]
    if report["stopping"]:
        lines.append(f"stopping: {describe_expense(report['stopping'])}")
    if report["cluster_column"] is not None:
        lines.append(f"items are grouped by `{report['cluster_column']}` into {report['clusters']:,} clusters")
    return lines


def render_markdown(report: ReportJson) -> str:
    """Return the report as Markdown for a pull request: verdicts first, tables folded."""
    parts = [f"### {escape_markdown(format_title(report))}", ""]
    parts += [f"- **{_write_prose(verdict)}**" for verdict in list_verdicts(report)]
    parts += [f"- {_write_prose(line)}" for line in (*list_policies(report), *report["notes"])]
    for table in list_tables(report):
        parts += [
            "",
            f"<details><summary>{escape_markdown(table.title)}</summary>",
            "",
            *_to_markdown_table(table),
            "",
            "</details>",
        ]
    parts += ["", "Methods: " + escape_markdown("; ".join(report["methods"])) + "."]
    return "\n".join(parts) + "\n"


def _to_markdown_table(table: ReportTable) -> Iterator[str]:
    yield f"| {' | '.join(map(escape_markdown, table.columns))} |"
    yield f"|{'|'.join('---' if kind == 'text' else '---:' for kind in table.columns.values())}|"
    for row in table.format_rows():
        yield f"| {' | '.join(map(escape_markdown, row))} |"


def _write_prose(text: str) -> str:
    """Return a sentence whose parts between backticks, which are commands and names, are code; nothing else is markup."""
    parts = split_code(_to_line(text))
    # Within code Markdown reads neither backslashes nor entities nor tags.
    return "".join(f"`{part}`" if n % 2 else _escape(part) for n, part in enumerate(parts))


def escape_markdown(text: str) -> str:
    """Return foreign text on one line, in which nothing is markup."""
    return _escape(_to_line(text))


def _to_line(text: str) -> str:
    return " ".join(text.split())


def _escape(text: str) -> str:
    return MARKDOWN_SPECIAL.sub(r"\\\1", html.escape(text, quote=False))


def render_csv(report: ReportJson) -> str:
    """Return every figure on a line of its own: table, metric, A, B, name of the figure, value."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(("table", "metric", "a", "b", "figure", "value"))
    # The course of a job is for programs and figures: printed, it would bury the verdict.
    paths = [table_path(report["stopping"]["metric"], report["stopping"]["pairs"])] if report["stopping"] else []
    for table in (*list_tables(report), *paths):
        keys = 2 if "B" in table.columns else 1
        for row in table.rows:
            a, b = row[0], row[1] if keys == 2 else None
            for name, value in list(zip(table.columns, row, strict=True))[keys:]:
                writer.writerow((table.name, table.metric, a, b, name, value))
    return written.getvalue()
