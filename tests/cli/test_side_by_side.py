"""What a person sees: frames, figures, differences, tables, the greeting."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from fanout.cli.serve import compose_greeting
from fanout.cli.side_by_side import SideBySide, build_labels, format_figures, render_diff
from fanout.cli.tables import print_table
from fanout.config.settings import load_settings


def console(width: int = 80, height: int = 24, *, watched: bool = True, colours: bool = False) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    made = Console(
        file=out,
        width=width,
        height=height,
        force_terminal=watched,
        color_system="standard" if colours else None,
        legacy_windows=False,
        _environ={},
    )
    return made, out


def choice(text: str = "", **fields: Any) -> dict[str, Any]:
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


def failure(**fields: Any) -> dict[str, Any]:
    return {"text": "", "error": {"kind": "rate_limit", "message": "too many", "code": "slow_down", **fields}}


def shown(answers: Mapping[str, tuple[str, dict[str, Any]]], *, diff: bool = False, **size: Any) -> str:
    """The still picture after these answers, by label: (text, end)."""
    made, out = console(**size)
    with SideBySide(made, diff=diff) as view:
        view.begin(dict(enumerate(answers)))
        for index, (text, end) in enumerate(answers.values()):
            view.add(index, text)
            view.finish(index, end)
        out.seek(0)
        out.truncate()
    return out.getvalue().rpartition("\x1b[2K")[2]  # what moved has been erased


def picture(text: str) -> list[str]:
    """Its lines without what only steers the terminal."""
    return [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").split("\n") if line]


def test_figures_tell_tokens_time_and_cost() -> None:
    assert format_figures(choice()) == "4 tokens · 1.23 s · $0.00012 · first after 20 ms · 3 tokens/s"


def test_figures_tell_what_is_not_known_and_what_was_unusual() -> None:
    unusual = choice(
        usage={"completion_tokens": None},
        cost_usd=None,
        finish_reason="length",
        timing={"queued_ms": 70, "ttft_ms": None, "total_ms": 10, "attempts": 3, "tokens_per_second": None},
        ignored_parameters=["seed"],
        adjusted_parameters={"temperature": {}},
    )

    told = format_figures(unusual)

    assert told == (
        "tokens unknown · 0.01 s · cost unknown · queued 70 ms · 3 attempts · ended: length · ignored: seed"
        " · adjusted: temperature"
    )


def test_figures_of_a_failure_are_its_reason() -> None:
    tried = failure(upstream_status=429) | {"timing": {"attempts": 3}}

    assert format_figures(failure()) == "rate limit: too many"
    assert format_figures(tried) == "rate limit 429 after 3 attempts: too many"


def test_samples_of_one_entry_are_numbered() -> None:
    assert build_labels([(0, 0, 0, "a"), (1, 1, 0, "b"), (2, 1, 1, "b")]) == {0: "a", 1: "b #1", 2: "b #2"}


def test_frames_stand_side_by_side_and_are_equally_high() -> None:
    lines = picture(shown({"one": ("word " * 40, choice()), "two": ("short", choice())}))

    assert lines[0].startswith("╭─ one ─")
    assert "╮╭─ two ─" in lines[0]
    assert lines[-1].count("╰") == 2
    assert {cell_len(line) for line in lines} == {80}


def test_frames_stand_one_below_the_other_where_the_terminal_is_narrow() -> None:
    lines = picture(shown({"one": ("1", choice()), "two": ("2", choice())}, width=60))

    assert [line[:6] for line in lines if line.startswith("╭")] == ["╭─ one", "╭─ two"]


@pytest.mark.parametrize(("count", "rows"), [(3, [3]), (4, [2, 2]), (5, [3, 2]), (7, [3, 3, 1])])
def test_rows_of_frames_are_evenly_filled(count: int, rows: list[int]) -> None:
    lines = picture(shown({str(number): ("x", choice()) for number in range(count)}, width=120))

    assert [line.count("╭") for line in lines if line.startswith("╭")] == rows


def test_wide_characters_do_not_break_the_frames() -> None:
    lines = picture(shown({"日本": ("日本語のとても長い答え" * 9, choice()), "b": ("🙂" * 50, choice())}))

    assert {cell_len(line) for line in lines} == {80}


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    picked = shown({"[red]a[/red]": ("[bold]text[/] :smile:", choice()), "b": ("", failure(message="[red]no[/red]"))})

    assert "[red]a[/red]" in picked
    assert "[bold]text[/] :smile:" in picked
    assert "rate limit: [red]no[/red]" in picked


def test_an_answer_cannot_steer_the_terminal() -> None:
    hostile = "a\x1b]0;title\x07b\x9bc\r\nd"

    for watched in (True, False):
        seen = shown({"m": (hostile, choice())}, watched=watched)
        assert "a␛]0;title␇b�c" in seen
        assert "\x9b" not in seen


def test_colours_tell_how_each_answer_ended_and_only_a_terminal_gets_them() -> None:
    answers = {"good": ("yes", choice()), "bad": ("", failure())}

    assert "\x1b[32m╭─\x1b[0m\x1b[32m good" in shown(answers, colours=True)
    assert "\x1b[31m╭─\x1b[0m\x1b[31m bad" in shown(answers, colours=True)
    assert "\x1b" not in shown(answers, colours=True, watched=False)


def test_plain_text_is_never_wrapped() -> None:
    long = "word " * 100 + "end"

    lines = shown({"m": (long, choice()), "f": ("", failure())}, watched=False).splitlines()

    assert lines[:3] == ["== m", long, "-- 4 tokens · 1.23 s · $0.00012 · first after 20 ms · 3 tokens/s"]
    assert lines[3:] == ["", "== f", "-- rate limit: too many"]


def test_the_moving_picture_shows_the_last_lines_of_each_answer_and_fits() -> None:
    made, out = console(width=80, height=12)
    with SideBySide(made) as view:
        view.begin({0: "long", 1: "other"})
        view.add(0, "".join(f"line {number}\n" for number in range(500)) + "now")
        view.add(1, "here")
        out.seek(0)
        out.truncate()
        made.print(view._render_live())
        lines = picture(out.getvalue())[-12:]

    assert len(lines) <= 12
    assert any("│ now" in line for line in lines)
    assert any("line 499" in line for line in lines)
    assert any("here" in line for line in lines)
    assert any("… 0.0 s" in line for line in lines)


def test_a_crowd_has_one_line_each() -> None:
    made, out = console(width=60, height=12)
    with SideBySide(made) as view:
        view.begin({number: f"model-{number}" for number in range(9)})
        view.add(0, "the beginning and the end")
        view.finish(1, choice())
        out.seek(0)
        out.truncate()
        made.print(view._render_live())
        lines = [line for line in picture(out.getvalue()) if "model-" in line][-9:]

    assert len(lines) == 9
    assert "the end" in lines[0]
    assert "4 tokens" in lines[1]


def test_lines_of_a_growing_answer_stand_still() -> None:
    made, _ = console()
    text = "some words and more of them " * 400

    with SideBySide(made) as view:
        view.begin({0: "m", 1: "other"})
        starts = [view._wrap_tail(text[:length], 5)[0].plain for length in range(9000, 9003)]

    assert len(set(starts)) == 1


def test_what_is_broken_off_is_shown_as_far_as_it_came() -> None:
    made, out = console()
    view = SideBySide(made)

    with view:
        view.begin({0: "one", 1: "two"})
        view.add(0, "half an ans")
        view.finish(1, choice())

    assert view.failed == 1
    assert "half an ans" in out.getvalue()
    assert "broken off after 0.0 s" in out.getvalue()


def test_a_difference_is_told_word_by_word() -> None:
    told = render_diff("the cat sat down", "the dog sat", marks=True).plain

    assert told == "the [-cat-] {+dog+} sat [-down-] "


def test_a_difference_keeps_the_spaces_of_what_came() -> None:
    assert render_diff("a b", "a x\n\ny b", marks=True).plain == "a {+x\n\ny+} b"
    assert render_diff("same text", "same text").plain == "same text"


def test_the_others_are_compared_with_the_first_answer() -> None:
    answers = {"a": ("one two", choice()), "b": ("one three", choice()), "c": ("one", failure())}

    seen = shown(answers, diff=True, watched=False)

    assert "== a\none two\n" in seen
    assert "== b\none [-two-] {+three+}\n" in seen
    assert "== c\none\n" in seen


def test_a_table_is_aligned_and_for_programs_never_wrapped() -> None:
    made, out = console(width=20, watched=False)

    print_table(
        made, ("model", "size", "state"), [("日本", "8", "ready"), ("b", "1000", "needs " + "KEY " * 20)], right=("size",)
    )

    head, first, second = out.getvalue().splitlines()
    assert head == "model  size  state"
    assert first == "日本      8  ready"
    assert second == "b      1000  needs " + "KEY " * 19 + "KEY"


def test_a_table_fits_its_terminal() -> None:
    made, out = console(width=40)

    print_table(made, ("model", "state"), [("a-rather-long-name", "needs SOME_VARIABLE, until 2030-01-01")])

    lines = picture(out.getvalue())
    assert max(map(cell_len, lines)) <= 40
    assert "a-rather-long-name" in lines[1]


def test_the_greeting_says_what_is_ready_what_is_missing_and_what_to_try(tmp_path: Path) -> None:
    settings = load_settings(None, {"FANOUT_API_KEYS": "k", "HOME": str(tmp_path)})

    said = compose_greeting("http://127.0.0.1:1234", settings, None).splitlines()

    assert "ready:  local/ngram-2, local/ngram-3, local/ngram-5" in said
    assert any(line.startswith("to set: OPENAI_API_KEY for ") and "more" in line for line in said)
    assert any("GROQ_API_KEY for groq/…" in line for line in said)
    assert said[-2].endswith("listens on http://127.0.0.1:1234; to try it:")
    assert said[-1].startswith("curl http://127.0.0.1:1234/v1/completion -H 'Authorization: Bearer <key>'")


def test_the_greeting_is_as_wide_as_its_terminal_and_its_command_is_one_line(tmp_path: Path) -> None:
    said = compose_greeting("http://127.0.0.1:1234", load_settings(None, {"HOME": str(tmp_path)}), 80).splitlines()

    assert max(map(len, said[:-1])) <= 80
    assert said[-1].startswith("curl ")
    assert said[-1].endswith("}'")


def test_a_model_that_was_shut_down_is_not_offered(tmp_path: Path) -> None:
    config = tmp_path / "providers.json"
    rows = '"old": {"provider": "local", "id": "ngram-2", "kind": "both", "deprecated_on": "2020-01-01"}'
    config.write_text(f'{{"models": {{{rows}}}}}')

    said = compose_greeting("http://127.0.0.1:1", load_settings(config, {}), None)

    assert "ready:  local/ngram-2, local/ngram-3, local/ngram-5\n" in said
