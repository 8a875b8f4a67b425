"""Figures of a report: where their marks stand, and what becomes of values that cannot be drawn."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.rendering.report_html.axes import Axis, fit_axis
from fanout.rendering.report_html.canvas import NARROW, WIDE, format_plain, shorten
from fanout.rendering.report_html.interval_charts import (
    BoxRow,
    IntervalRow,
    RankRow,
    draw_boxes,
    draw_intervals,
    draw_ranks,
)
from fanout.rendering.report_html.markup import element
from fanout.rendering.report_html.plane_charts import (
    Line,
    Point,
    draw_agreement,
    draw_course,
    draw_heat_map,
    draw_repeats,
    draw_trade_off,
    find_front,
)
from fanout.rendering.stopping import PathPointJson


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def list_marks(svg: str) -> list[tuple[float, float]]:
    return [(float(mark.get("cx", "")), float(mark.get("cy", ""))) for mark in parse(svg).iter("circle")]


def test_a_foreign_text_is_never_markup_wherever_it_is_put() -> None:
    hostile = "\"><script>alert(1)</script>\u202e&'\x1b"
    found = element("text", hostile, class_=hostile)

    assert parse(found).text == parse(found).get("class") == "\"><script>alert(1)</script>&'\u241b"
    assert found.count("<") == 2


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_every_value_lies_on_its_axis_and_its_ticks_too(values: list[float]) -> None:
    axis = fit_axis(values, 10, 200)

    assert all(axis.low <= value <= axis.high for value in values)
    assert all(10 <= axis.place(value) <= 200 for value in values)
    ticks = axis.list_ticks()
    assert len(ticks) <= 8
    assert ticks == sorted(set(ticks))


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=20), st.integers(2, 7))
def test_a_logarithmic_axis_holds_all_positive_values(values: list[float], most: int) -> None:
    axis = fit_axis([*values, 0.0, None], 0, 100, is_log=True)

    assert all(axis.low <= value <= axis.high for value in values)
    assert len(axis.list_ticks(most)) <= most
    assert axis.place(0.0) == 0


def test_round_ticks_are_chosen() -> None:
    assert Axis(0.47, 0.83, 0, 1).list_ticks() == [0.5, 0.6, 0.7, 0.8]
    assert Axis(0.9, 1200, 0, 1, is_log=True).list_ticks(4) == [1, 10, 100, 1000]
    assert fit_axis([0.98, 1.0], 0, 1, bounds=(0, 1)).high == 1
    assert [format_plain(value) for value in (0, 0.25, 1_000, 12_345.5)] == ["0", "0.25", "1,000", "12,345.5"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_intervals_stand_in_order_with_what_is_not_known_named(width: float) -> None:
    rows = [
        IntervalRow("a", "m0", 0.9, 0.8, 1.0),
        IntervalRow("b", "m1", 0.5, 0.4, 0.6, outer=(0.3, 0.7)),
        IntervalRow("c", "m2", None),
    ]
    svg = draw_intervals(rows, width, "means", format_plain, zero=0.0)
    (ax, ay), (bx, by) = list_marks(svg)

    assert (ax > bx, ay < by) == (True, True)
    assert "unknown" in [text.text for text in parse(svg).iter("text")]
    assert parse(svg).get("aria-label") == "means"
    assert 'class="outer m1"' in svg
    assert 'class="zero"' in svg


def test_a_label_is_shortened_to_its_room_and_whole_where_one_points_at_it() -> None:
    svg = draw_intervals([IntervalRow("vendor/a-model-whose-name-is-long", "m0", 1.0)], WIDE, "", format_plain)

    assert "<title>vendor/a-model-whose-name-is-long</title>" in svg
    assert shorten("vendor/a-model-whose-name-is-long", 12) == "vendor…-long"
    assert shorten("a-first-model − a-second-model", 15) == "a-f…el − a-s…el"
    assert shorten("gpt − a-second-model", 15) == "gpt − a-se…odel"


def test_ranks_are_bands_from_the_best_to_the_worst() -> None:
    svg = draw_ranks([RankRow("a", "m0", 1, 2), RankRow("b", "m1", 1, 2), RankRow("c", "m2", 3, 3)], WIDE, "ranks")
    widths = [float(band.get("width", "")) for band in parse(svg).iter("rect")]

    assert widths[0] == widths[1] > widths[2]
    assert [text.text for text in parse(svg).iter("text") if "rank" in (text.text or "")] == ["rank 1–2", "rank 1–2", "rank 3"]


def test_boxes_have_equal_widths_for_equal_factors() -> None:
    svg = draw_boxes(
        [BoxRow("a", "m0", 5, 10, 20, 40, 80), BoxRow("b", "m1", 50, 100, 200, 400, 800)], WIDE, "times", format_plain
    )
    first, second = [float(box.get("width", "")) for box in parse(svg).iter("rect")]

    assert first == pytest.approx(second, abs=0.2)


def test_the_front_holds_the_models_that_no_other_one_beats_in_cost_and_quality() -> None:
    points = [
        Point("cheap", "m0", 1, 0.5),
        Point("worse", "m1", 2, 0.4),
        Point("best", "m2", 3, 0.9),
        Point("dear", "m3", 9, 0.9),
    ]

    assert [point.label for point in find_front(points)] == ["cheap", "best"]
    svg = draw_trade_off(points, WIDE, "trade-off", format_plain)
    assert len(list_marks(svg)) == 4
    assert svg.count("front") == 1


def test_names_of_points_at_one_place_do_not_cover_each_other() -> None:
    points = [Point(f"model-{number}", "m0", 1.0 + number / 1e6, 0.5 + number / 1e6) for number in range(4)]
    svg = draw_trade_off([*points, Point("far", "m0", 9, 0.9)], WIDE, "trade-off", format_plain)
    lines = sorted(float(text.get("y", "")) for text in parse(svg).iter("text") if (text.text or "").startswith("model"))

    assert all(after - before >= 14 for before, after in pairwise(lines))


def test_items_are_circles_by_their_number_on_the_side_of_the_better_model() -> None:
    svg = draw_agreement(
        [{"a": 1, "b": 0, "items": 16}, {"a": 0, "b": 1, "items": 4}, {"a": 1, "b": 1, "items": 1}], ("a", "b"), ""
    )
    radius = {str(mark.get("class")).split()[1]: float(mark.get("r", "")) for mark in parse(svg).iter("circle")}

    assert radius["below"] == 2 * radius["above"] == 4 * radius["even"]


def test_the_course_of_a_difference_is_a_band_that_narrows_with_a_line_in_it() -> None:
    path: list[PathPointJson] = [
        {"items": n, "difference": 0.3, "low": 0.3 - 1 / n, "high": 0.3 + 1 / n, "evidence": 1.0} for n in (1, 2, 4)
    ]
    svg = parse(draw_course(path, 0.1, WIDE, "course"))
    (band,) = [one.get("d", "") for one in svg.iter("path")]
    corners = [tuple(map(float, corner.split())) for corner in band.strip("MZ").split("L")]
    (mark,) = list_marks(draw_course(path, None, NARROW, "course"))

    assert [x for x, _ in corners] == sorted(x for x, _ in corners[:3]) + sorted((x for x, _ in corners[:3]), reverse=True)
    assert [corners[5 - n][1] - corners[n][1] for n in range(3)] == sorted(
        (corners[5 - n][1] - corners[n][1] for n in range(3)), reverse=True
    )
    assert sum(one.get("class") == "front" for one in svg.iter("line")) == 2, "one line at either margin"
    assert mark[0] == NARROW - 16


def test_repeats_and_win_rates_name_every_model() -> None:
    lines = draw_repeats([Line("a", "m0", [0.5, None, 0.7]), Line("b", "m1", [0.1, 0.2, 0.3])], WIDE, "repeats", format_plain)
    heat = draw_heat_map(["a", "b"], {("a", "b"): 0.9, ("b", "a"): 0.1}, NARROW, "wins")

    assert len(list_marks(lines)) == 5
    assert re.findall(r"heat (\w+)", heat) == ["none", "w4", "l4", "none"]
    assert [text.text for text in parse(heat).iter("text") if "%" in (text.text or "")] == ["90 %", "10 %"]
