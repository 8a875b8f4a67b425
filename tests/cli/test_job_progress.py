"""What a person sees of a job: words and tables, lines where nobody watches, how deadlines are written."""

from __future__ import annotations

import io
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from rich.console import Console

from fanout.cli import job_summary
from fanout.cli.batch.options import parse_moment
from fanout.cli.job_progress import JobProgress


def counted(model: str = "gpt-5", **fields: Any) -> dict[str, Any]:
    return {
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


def job(*counts: dict[str, Any], state: str = "running", **progress: Any) -> dict[str, Any]:
    figures = {"ended": 620, "failed": 3, "left": 580, "calls_per_second": 16.24, "left_s": 144.2, "cost_usd": 0.0213}
    return {
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
        "counts": list(counts or [counted()]),
    }


def console(*, watched: bool, width: int = 100) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, height=24, force_terminal=watched, color_system=None, _environ={}), out


def test_facts_are_one_line() -> None:
    assert (
        job_summary.format_progress(job())
        == "620 of 1,200 · 51 % · 3 failed (rate_limit 2, server 1) · 16.2/s · $0.0213 · 2 min 24 s left"
    )


def test_it_is_all_only_when_all_has_ended() -> None:
    assert "99 %" in job_summary.format_progress(job(ended=1_199, left=1))


def test_what_is_not_known_is_not_nought() -> None:
    unknown = counted(cost_usd=None, cost_unknown=617, prompt_tokens=None, completion_tokens=5, unknown_usage=9)

    assert job_summary.format_cost(unknown) == "cost unknown"
    assert job_summary.format_cost(counted(cost_unknown=2)) == "$0.0213 + 2 unknown"
    assert job_summary.format_tokens(unknown, "prompt_tokens") == "unknown"
    assert job_summary.format_tokens(unknown, "completion_tokens") == "≥ 5"
    assert "left" not in job_summary.format_progress(job(left_s=None))


@pytest.mark.parametrize(
    ("seconds", "said"),
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
def test_durations_are_said_in_two_units(seconds: float, said: str) -> None:
    assert job_summary.format_duration(seconds) == said


def test_slow_paces_are_by_the_minute() -> None:
    assert (job_summary.format_rate(0.05), job_summary.format_rate(16.24), job_summary.format_rate(0)) == (
        "3.0/min",
        "16.2/s",
        "0.0/s",
    )


def test_a_terminal_has_a_bar_and_a_row_for_every_model_from_the_beginning() -> None:
    made, out = console(watched=True)
    with JobProgress(made) as view:
        view.expect(["gpt-5", "other", "other"], 400)
        view.show(job(), ["openai: paused for 12 s"])

    shown = out.getvalue()
    assert "━" in shown
    assert "job_1 · in.jsonl · 1,200 rows, 1,200 calls · running" in shown
    assert "620 of 400" in shown
    assert "0 of 800" in shown
    assert "3 (rate_limit 2, server 1)" in shown
    assert "openai: paused for 12 s" in shown


def test_a_models_own_pace_is_that_of_late() -> None:
    made, out = console(watched=True)
    with JobProgress(made) as view:
        view.show(job(counted(ended=600)))
        time.sleep(0.6)
        view.show(job(counted(ended=660)))

    assert "/s  1.21 s" in out.getvalue()


def test_where_nobody_watches_news_is_a_line_at_once_and_the_rest_now_and_then() -> None:
    made, out = console(watched=False)
    with JobProgress(made) as view:
        for _ in range(3):
            view.show(job())
        view.show(job(), ["the database cannot be written"])
        view.show(job(), ["the database cannot be written"])

    assert out.getvalue().splitlines() == [f"job_1: {job_summary.format_progress(job())} · the database cannot be written"]


def test_more_models_than_lines_are_counted() -> None:
    made, out = console(watched=True)
    with JobProgress(made) as view:
        view.show(job(*(counted(f"m{number}") for number in range(40))))

    assert "and 23 more" in out.getvalue()


def test_a_name_cannot_steer_the_terminal() -> None:
    made, out = console(watched=False)
    job_summary.print_job(made, job(counted("gpt\x1b[2J")) | {"name": "a\x1b]0;b\x07"})

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
def test_a_deadline_is_a_duration_or_a_time_of_this_machine(text: str, moment: datetime | None) -> None:
    assert parse_moment(text, NOW) == (moment.timestamp() if moment else None)
