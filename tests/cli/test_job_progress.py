"""Progress and summaries of a job, on a terminal and in a pipe; deadlines as users write them."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, cast

import pytest
from rich.console import Console

from fanout.cli import job_summary
from fanout.cli.batch.options import parse_moment
from fanout.cli.job_progress import JobProgress
from fanout.rendering.job import JobCountsJson, JobJson


def make_counts(model: str = "gpt-6-luna", **fields: Any) -> JobCountsJson:
    counts: Any = {
        "model": model,
        "ended": 620,
        "answered": 617,
        "failures": {"server": 1, "rate_limit": 2},
        "prompt_tokens": 12_000,
        "completion_tokens": 3_400,
        "unknown_usage": 0,
        "cost_usd": 0.0213,
        "cost_unknown": 0,
        "mean_ms": 1_210,
        **fields,
    }
    return cast(JobCountsJson, counts)


def make_job(*counts: JobCountsJson, state: str = "running", **progress: Any) -> JobJson:
    figures = {"ended": 620, "failed": 3, "left": 580, "calls_per_second": 16.24, "left_s": 144.2, "cost_usd": 0.0213}
    job: Any = {
        "id": "job_1",
        "name": None,
        "input": {"name": "in.jsonl"},
        "items": 1_200,
        "calls": 1_200,
        "repeats": 1,
        "state": state,
        "reason": None,
        "created_at": 1_795_173_088,
        "progress": {**figures, "cost_unknown": 0, **progress},
        "counts": list(counts or [make_counts()]),
    }
    return cast(JobJson, job)


def make_console(*, is_terminal: bool, width: int = 100) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, height=24, force_terminal=is_terminal, color_system=None, _environ={}), out


def test_tables_of_jobs_fit_sixty_columns_without_cutting_a_word() -> None:
    job = make_job(make_counts("up-error-401", cost_usd=None, cost_unknown=2, failures={}), state="done")
    console, out = make_console(is_terminal=True, width=60)
    job_summary.print_counts(console, job)
    job_summary.print_jobs(console, [{**job, "id": f"job_{'0' * 32}"}])

    shown = out.getvalue()
    assert {"model", "answered", "failed", "up-error-401", "job", "state", f"job_{'0' * 32}"} <= set(shown.split()), shown
    assert max(map(len, shown.splitlines())) <= 60


def test_progress_is_one_line() -> None:
    assert (
        job_summary.format_progress(make_job())
        == "620 of 1,200 · 51 % · 3 failed (rate_limit 2, server 1) · 16.2/s · $0.0213 · 2 min 24 s left"
    )


def test_progress_reaches_100_percent_only_when_every_call_has_ended() -> None:
    assert "99 %" in job_summary.format_progress(make_job(ended=1_199, left=1))


def test_unknown_figures_are_not_shown_as_zero() -> None:
    unknown = make_counts(cost_usd=None, cost_unknown=617, prompt_tokens=None, completion_tokens=5, unknown_usage=9)

    assert job_summary.format_cost(unknown) == "cost unknown"
    assert job_summary.format_cost(make_counts(cost_unknown=2)) == "$0.0213 + 2 unknown"
    assert job_summary.format_tokens(unknown, "prompt_tokens") == "unknown"
    assert job_summary.format_tokens(unknown, "completion_tokens") == "≥ 5"
    assert "left" not in job_summary.format_progress(make_job(left_s=None))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.9, "9.9 s"),
        (42, "42 s"),
        (60, "1 min"),
        (144, "2 min 24 s"),
        (7_300, "2 h 1 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert job_summary.format_duration(seconds) == text


def test_low_rates_are_shown_by_the_minute() -> None:
    assert (job_summary.format_rate(0.05), job_summary.format_rate(16.24), job_summary.format_rate(0)) == (
        "3.0/min",
        "16.2/s",
        "0.0/s",
    )


def test_a_terminal_has_a_bar_and_a_row_for_every_model_from_the_beginning() -> None:
    console, out = make_console(is_terminal=True)
    with JobProgress(console) as view:
        view.expect(["gpt-6-luna", "other", "other"], 400)
        view.show(make_job(), ["openai: paused for 12 s"])

    shown = out.getvalue()
    assert "━" in shown
    assert "job_1 · in.jsonl · 1,200 rows, 1,200 calls · running" in shown
    assert "620 of 400" in shown
    assert "0 of 800" in shown
    assert "3 (rate_limit 2, server 1)" in shown
    assert "openai: paused for 12 s" in shown


def test_the_rate_of_a_model_is_its_recent_one() -> None:
    console, out = make_console(is_terminal=True)
    with JobProgress(console) as view:
        view.show(make_job(make_counts(ended=600)))
        time.sleep(0.6)
        view.show(make_job(make_counts(ended=660)))

    assert "/s  1.21 s" in out.getvalue()


def test_in_a_pipe_a_new_note_is_printed_at_once_and_progress_at_intervals() -> None:
    console, out = make_console(is_terminal=False)
    with JobProgress(console) as view:
        for _ in range(3):
            view.show(make_job())
        view.show(make_job(), ["the database cannot be written"])
        view.show(make_job(), ["the database cannot be written"])

    assert out.getvalue().splitlines() == [f"job_1: {job_summary.format_progress(make_job())} · the database cannot be written"]


def test_more_models_than_lines_are_counted() -> None:
    console, out = make_console(is_terminal=True)
    with JobProgress(console) as view:
        view.show(make_job(*(make_counts(f"m{number}") for number in range(40))))

    assert "and 23 more" in out.getvalue()


def test_a_name_cannot_steer_the_terminal() -> None:
    console, out = make_console(is_terminal=False)
    job = make_job(make_counts("gpt\x1b[2J"))
    job["name"] = "a\x1b]0;b\x07"
    job_summary.print_job(console, job)

    assert "\x1b" not in out.getvalue()


NOW = datetime(2026, 11, 20, 12, 0, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", NOW + timedelta(hours=2)),
        ("1d12h", NOW + timedelta(days=1, hours=12)),
        ("90m", NOW + timedelta(minutes=90)),
        ("1h30min", NOW + timedelta(minutes=90)),
        ("45s", NOW + timedelta(seconds=45)),
        ("18:30", NOW.replace(hour=18, minute=30)),
        ("9:05", NOW.replace(day=21, hour=9, minute=5)),
        ("2026-11-20T10:30Z", datetime(2026, 11, 20, 10, 30, tzinfo=UTC)),
        ("2026-11-20T10:30", NOW.replace(hour=10, minute=30)),
        ("", None),
        ("2 hours", None),
        ("25:00", None),
        ("-1h", None),
        ("9999d9999d", None),
        ("99999999999d", None),
    ],
)
def test_a_deadline_is_a_duration_or_a_local_time(text: str, moment: datetime | None) -> None:
    assert parse_moment(text, NOW) == (moment.timestamp() if moment else None)
