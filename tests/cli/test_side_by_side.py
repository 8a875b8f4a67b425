"""Frames, figures, diffs, tables and the greeting, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from fanout.cli.answer_view import ShownAnswer, build_labels, format_figures, format_totals
from fanout.cli.side_by_side import SideBySide, render_diff
from fanout.cli.tables import print_table


def make_console(
    width: int = 80, height: int = 24, *, is_terminal: bool = True, colours: bool = False
) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=height,
        force_terminal=is_terminal,
        color_system="standard" if colours else None,
        legacy_windows=False,
        _environ={},
    )
    return console, out


def make_choice(text: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "text": text,
        "finish_reason": "stop",
        "native_finish_reason": None,
        "usage": {"completion_tokens": 4},
        "timing": {"queued_ms": 0, "ttft_ms": 20, "total_ms": 1234, "attempts": 1, "tokens_per_second": 3.3},
        "cost_usd": 0.00012,
        "ignored_parameters": [],
        "adjusted_parameters": {},
        "error": None,
        **fields,
    }


def make_failure(**fields: Any) -> dict[str, Any]:
    return {"text": "", "error": {"kind": "rate_limit", "message": "too many", "code": "slow_down", **fields}}


def render_answers(
    answers: Mapping[str, tuple[str, dict[str, Any]]], *, diff: bool = False, markdown: bool = False, **size: Any
) -> str:
    """Return what the view leaves on the screen after these answers.

    Args:
        answers: text and choice, by label.
        diff: compare the answers with the first.
        markdown: render their Markdown.
        size: of the terminal.
    """
    console, out = make_console(**size)
    with SideBySide(console, diff=diff, markdown=markdown) as view:
        view.begin(dict(enumerate(answers)))
        for index, (text, end) in enumerate(answers.values()):
            view.add(index, text)
            view.finish(index, end)
        if console.is_terminal:
            out.seek(0)
            out.truncate()
    return out.getvalue().rpartition("\x1b[2K")[2]  # the live view has erased itself


def list_lines(text: str) -> list[str]:
    """Return the lines of an output without control sequences."""
    return [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").split("\n") if line]


def test_figures_are_tokens_time_and_cost() -> None:
    assert format_figures(make_choice()) == "4 tokens · 1.23 s · $0.00012 · first after 20 ms · 3 tokens/s"


def test_figures_name_what_is_unknown_or_unusual() -> None:
    unusual = make_choice(
        usage={"completion_tokens": None},
        cost_usd=None,
        finish_reason="length",
        timing={"queued_ms": 70, "ttft_ms": None, "total_ms": 10, "attempts": 3, "tokens_per_second": None},
        ignored_parameters=["seed"],
        adjusted_parameters={"temperature": {}},
    )

    text = format_figures(unusual)

    assert text == (
        "tokens unknown · 0.01 s · cost unknown · queued 70 ms · 3 attempts · ended: length · ignored: seed"
        " · adjusted: temperature"
    )


def test_figures_name_what_the_text_does_not_hold() -> None:
    text = format_figures(make_choice(refusal="I must not.", other_content=["image", "citations"]))
    assert text.endswith(" · refused: I must not. · also: image, citations")


def test_figures_of_a_failure_are_its_kind_and_message() -> None:
    tried = make_failure(upstream_status=429) | {"timing": {"attempts": 3}}

    assert format_figures(make_failure()) == "rate limit: too many; try again later"
    assert format_figures(tried) == "rate limit 429 after 3 attempts: too many; try again later"


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [
        ("auth", "`up` refused the API key.", "auth: `up` refused the API key; `fanout check --live` tells what to do"),
        ("quota", "no credit", "quota: no credit; add credit there, or ask another model"),
        ("server", "Overloaded.", "server: Overloaded; try again later"),
        ("server", "Busy. Please try again soon.", "server: Busy. Please try again soon."),
        ("bad_request", "`x` is too long.", "bad request: `x` is too long."),
    ],
)
def test_a_failure_tells_what_to_do_next_once(kind: str, message: str, shown: str) -> None:
    assert format_figures(make_failure(kind=kind, message=message)) == shown


def test_samples_of_one_entry_are_numbered() -> None:
    assert build_labels([(0, "a", "m", 0), (1, "b", "n", 0), (2, "b", "n", 1)]) == {0: "a", 1: "b #1", 2: "b #2"}


def test_frames_in_a_row_are_equally_high() -> None:
    lines = list_lines(render_answers({"one": ("word " * 40, make_choice()), "two": ("short", make_choice())}))

    assert lines[0].startswith("╭─ one ─")
    assert "╮╭─ two ─" in lines[0]
    assert lines[-2].count("╰") == 2
    assert {cell_len(line) for line in lines[:-1]} == {80}


def test_frames_are_stacked_on_a_narrow_terminal() -> None:
    lines = list_lines(render_answers({"one": ("1", make_choice()), "two": ("2", make_choice())}, width=60))

    assert [line[:6] for line in lines if line.startswith("╭")] == ["╭─ one", "╭─ two"]


@pytest.mark.parametrize(("count", "rows"), [(3, [3]), (4, [2, 2]), (5, [3, 2]), (7, [3, 3, 1])])
def test_rows_of_frames_are_filled_evenly(count: int, rows: list[int]) -> None:
    lines = list_lines(render_answers({str(number): ("x", make_choice()) for number in range(count)}, width=120))

    assert [line.count("╭") for line in lines if line.startswith("╭")] == rows


def test_wide_characters_do_not_break_the_frames() -> None:
    lines = list_lines(render_answers({"日本": ("日本語のとても長い答え" * 9, make_choice()), "b": ("🙂" * 50, make_choice())}))

    assert {cell_len(line) for line in lines[:-1]} == {80}


def test_markdown_is_rendered_within_the_frames_of_a_terminal_alone() -> None:
    answers = {"a": ("# Title\n\n- **bold** item\n\n```\ncode()\n```\n", make_choice()), "b": ("plain", make_choice())}

    shown = render_answers(answers, markdown=True, colours=True)
    lines = list_lines(shown)
    assert "**" not in shown
    assert "\x1b[1m" in shown
    assert any("• bold item" in line for line in lines)
    assert {cell_len(line) for line in lines[:-1]} == {80}
    assert "- **bold** item" in render_answers(answers, markdown=True, is_terminal=False)


def test_a_closing_line_sums_the_costs_and_names_the_fastest_and_the_cheapest() -> None:
    timing = make_choice()["timing"]
    slow = ShownAnswer("slow", "", make_choice(cost_usd=0.001, timing={**timing, "total_ms": 2000}))
    fast = ShownAnswer("fast", "", make_choice(cost_usd=0.002, timing={**timing, "total_ms": 500}))
    unknown = ShownAnswer("unknown", "", make_choice(cost_usd=None))
    failed = ShownAnswer("failed", "", make_failure())

    assert format_totals([slow, fast, failed]) == "total cost $0.003 · fastest: fast (0.50 s) · cheapest: slow ($0.001)"
    assert format_totals([fast, unknown]) == "total cost $0.002 · 1 of unknown cost · fastest: fast (0.50 s)"
    assert format_totals([fast, failed]) == ""


def test_the_first_code_block_of_an_answer_is_found_closed_or_not() -> None:
    assert ShownAnswer("a", "x\n```python\none\n\ntwo\n```\n```\nthree\n```").code == "one\n\ntwo\n"
    assert ShownAnswer("a", "````\n```\ninner\n```\n````\n").code == "```\ninner\n```\n"
    assert ShownAnswer("a", "~~~\nhalf").code == "half"
    assert ShownAnswer("a", "no `code` here").code is None


def test_markup_in_an_answer_is_shown_as_text() -> None:
    picked = render_answers(
        {"[red]a[/red]": ("[bold]text[/] :smile:", make_choice()), "b": ("", make_failure(message="[red]no[/red]"))}
    )

    assert "[red]a[/red]" in picked
    assert "[bold]text[/] :smile:" in picked
    assert "rate limit: [red]no[/red]" in picked


def test_an_answer_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b]0;title\x07b\x9bc\r\nd"

    for is_terminal in (True, False):
        output = render_answers({"m": (hostile, make_choice())}, is_terminal=is_terminal)
        assert "a␛]0;title␇b�c" in output
        assert "\x9b" not in output


def test_colours_show_success_and_failure_on_a_terminal_only() -> None:
    answers = {"good": ("yes", make_choice()), "bad": ("", make_failure())}

    assert "\x1b[32m╭─\x1b[0m\x1b[32m good" in render_answers(answers, colours=True)
    assert "\x1b[31m╭─\x1b[0m\x1b[31m bad" in render_answers(answers, colours=True)
    assert "\x1b" not in render_answers(answers, colours=True, is_terminal=False)


def test_text_in_a_pipe_is_never_wrapped() -> None:
    long = "word " * 100 + "end"

    lines = render_answers({"m": (long, make_choice()), "f": ("", make_failure())}, is_terminal=False).splitlines()

    assert lines[:3] == ["== m", long, "-- 4 tokens · 1.23 s · $0.00012 · first after 20 ms · 3 tokens/s"]
    assert lines[3:] == ["", "== f", "-- rate limit: too many; try again later"]


def test_the_live_view_shows_the_last_lines_of_each_answer_and_fits() -> None:
    console, out = make_console(width=80, height=12)
    with SideBySide(console) as view:
        view.begin({0: "long", 1: "other"})
        view.add(0, "".join(f"line {number}\n" for number in range(500)) + "now")
        view.add(1, "here")
        out.seek(0)
        out.truncate()
        console.print(view._render_live())
        lines = list_lines(out.getvalue())[-12:]

    assert len(lines) <= 12
    assert any("│ now" in line for line in lines)
    assert any("line 499" in line for line in lines)
    assert any("here" in line for line in lines)
    assert any(re.search(r"… \d\.\d s", line) for line in lines)


def test_many_answers_get_one_line_each_in_the_live_view() -> None:
    console, out = make_console(width=60, height=12)
    with SideBySide(console) as view:
        view.begin({number: f"model-{number}" for number in range(9)})
        view.add(0, "the beginning and the end")
        view.finish(1, make_choice())
        out.seek(0)
        out.truncate()
        console.print(view._render_live())
        lines = [line for line in list_lines(out.getvalue()) if "model-" in line][-9:]

    assert len(lines) == 9
    assert "the end" in lines[0]
    assert "4 tokens" in lines[1]


def test_line_breaks_of_a_growing_answer_do_not_move() -> None:
    console, _ = make_console()
    text = "some words and more of them " * 400

    with SideBySide(console) as view:
        view.begin({0: "m", 1: "other"})
        starts = [view._wrap_tail(text[:length], 5)[0].plain for length in range(9000, 9003)]

    assert len(set(starts)) == 1


def test_an_interrupted_answer_is_shown_as_far_as_it_arrived() -> None:
    console, out = make_console()
    view = SideBySide(console)

    with view:
        view.begin({0: "one", 1: "two"})
        view.add(0, "half an ans")
        view.finish(1, make_choice())

    assert view.failed == 1
    assert "half an ans" in out.getvalue()
    assert re.search(r"broken off after \d\.\d s", out.getvalue())


def test_a_diff_marks_words() -> None:
    text = render_diff("the cat sat down", "the dog sat", marks=True).plain

    assert text == "the [-cat-] {+dog+} sat [-down-] "


def test_a_diff_keeps_the_spaces_of_added_text() -> None:
    assert render_diff("a b", "a x\n\ny b", marks=True).plain == "a {+x\n\ny+} b"
    assert render_diff("same text", "same text").plain == "same text"


def test_other_answers_are_compared_with_the_first() -> None:
    answers = {"a": ("one two", make_choice()), "b": ("one three", make_choice()), "c": ("one", make_failure())}

    output = render_answers(answers, diff=True, is_terminal=False)

    assert "== a\none two\n" in output
    assert "== b\none [-two-] {+three+}\n" in output
    assert "== c\none\n" in output


def test_a_table_in_a_pipe_is_aligned_and_never_wrapped() -> None:
    console, out = make_console(width=20, is_terminal=False)

    print_table(
        console, ("model", "size", "state"), [("日本", "8", "ready"), ("b", "1000", "needs " + "KEY " * 20)], right=("size",)
    )

    head, first, second = out.getvalue().splitlines()
    assert head == "model  size  state"
    assert first == "日本      8  ready"
    assert second == "b      1000  needs " + "KEY " * 19 + "KEY"


def test_a_table_fits_the_terminal() -> None:
    console, out = make_console(width=40)

    print_table(console, ("model", "state"), [("a-rather-long-name", "needs SOME_VARIABLE, until 2030-01-01")])

    lines = list_lines(out.getvalue())
    assert max(map(cell_len, lines)) <= 40
    assert "a-rather-long-name" in lines[1]


def test_a_failure_tells_how_long_to_wait() -> None:
    assert (
        format_figures(make_failure(upstream_status=429, retry_after_s=20.0)) == "rate limit 429: too many; try again in 20 s"
    )
