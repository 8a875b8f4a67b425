"""A report as tables, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

from markdown_it import MarkdownIt

from fanout.evaluate.report.report import build_report
from fanout.rendering.figures import format_cell
from fanout.rendering.report import ReportJson, render_report
from fanout.rendering.report_html.document import write_document
from fanout.rendering.report_tables import list_tables, render_csv, render_markdown
from tests.support.builders.measures import FAILED, build_measures

HOSTILE = "a|b<img src=x>`*_\n[x](javascript:1)"


def make_report(name: str = "b") -> ReportJson:
    scores: dict[str, Any] = {"a": [[1.0, 0.0]] * 20, name: [[1.0, FAILED]] + [[0.0, 0.0]] * 19}
    return render_report(build_report(build_measures(scores)))


def test_every_figure_has_a_line_of_its_own_in_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(make_report()))))
    found = {(row["table"], row["a"], row["b"], row["figure"]): row["value"] for row in rows}

    assert found["scores", "a", "", "mean"] == "0.5"
    assert found["pairs", "a", "b", "dropped"] == "0"
    assert found["models", "b", "", "answered"] == "39"
    assert found["models", "b", "", "failed"] == "timeout 1"
    assert {row["metric"] for row in rows if row["table"] == "scores"} == {"exact"}
    assert len(found) == len(rows)


def test_markdown_has_the_verdict_first_and_takes_nothing_foreign_for_markup() -> None:
    text = render_markdown(make_report(HOSTILE))
    lines = text.splitlines()

    assert lines[2].startswith("- **exact: a is best, 0.5")
    assert "<img" not in text
    assert r"a\|b&lt;img src=x&gt;\`\*\_ \[x\](javascript:1)" in text
    table = [line for line in lines if line.startswith("|")]
    assert all(line.replace(r"\|", "").count("|") == table[0].count("|") for line in table[:4])
    assert "1 calls failed" in text


def test_names_and_commands_in_a_sentence_are_code_in_markdown_and_html() -> None:
    report = make_report(HOSTILE)
    report["notes"] = ["apply `fanout evaluate score` to a*b`", "<b>", "the job `a<img src=x>&lt;` is one"]
    lines = render_markdown(report).splitlines()
    written: list[bytes] = []
    write_document(written.append, report, ())
    page = b"".join(written).decode()

    assert r"- apply `fanout evaluate score` to a\*b\`" in lines
    assert "- &lt;b&gt;" in lines
    assert "<li>the job <code>a&lt;img src=x&gt;&amp;lt;</code> is one</li>" in MarkdownIt().render("\n".join(lines))
    assert [line for line in lines if line.startswith("- failures: ") and "(`failed: score_zero`, fixed" in line]
    assert "<li>apply <code>fanout evaluate score</code> to a*b`</li>" in page
    assert "(<code>failed: score_zero</code>, fixed before the run)" in page


def test_repeats_have_a_table_where_there_are_any() -> None:
    names = [table.name for table in list_tables(make_report())]
    single = render_report(build_report(build_measures({"a": [1.0] * 20})))

    assert names == ["scores", "pairs", "repeats", "models", "latency_pairs", "parameters"]
    assert [table.name for table in list_tables(single)] == ["scores", "models", "parameters"]


def test_figures_are_written_so_that_small_ones_do_not_vanish() -> None:
    assert format_cell(0.00001, "p") == "< 0.0001"
    assert format_cell(None, "score") == ""
    assert format_cell(0.00042, "usd") == "$0.0004"
    assert format_cell(1234.5, "usd") == "$1,234.50"
    assert format_cell(3.456, "ms") == "3.5 ms"
    assert format_cell(12345.6, "ms") == "12,346 ms"
    assert format_cell(123456, "count") == "123,456"
