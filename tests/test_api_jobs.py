"""Jobs in a program: results in the order of the rows, progress, a store that is gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

import fanout
from fanout.config.settings import Settings, load_settings
from fanout.core.errors import RequestError
from fanout.jobs.job import Progress
from tests.support.builders.settings import write_providers_file
from tests.support.upstream.server import Upstream


@pytest.fixture
def settings(upstream: Upstream, tmp_path: Path) -> Settings:
    """Settings with the scripted upstream."""
    return load_settings(write_providers_file(upstream.url, tmp_path, prices="", retries={"attempts": 1}), {})


async def test_every_row_is_sent_to_every_model_and_results_come_in_the_order_of_the_rows(
    settings: Settings, upstream: Upstream
) -> None:
    seen: list[Progress] = []
    rows: list[str | dict[str, str]] = ["first", {"prompt": "second", "reference": "one", "custom_id": "b"}]
    results = await fanout.run_job(
        rows, ["up/say-one", "up/500"], settings=settings, repeats=2, max_tokens=5, on_progress=seen.append
    )

    assert (results.state, len(results)) == ("done", 8)
    places = [(result["item"], result["entry"], result["repeat"]) for result in results]
    assert places == sorted(places)
    assert [result["text"] for result in results if result["error_kind"] is None] == ["one"] * 4
    assert {result["error_kind"] for result in results if result["entry"] == 1} == {"server"}
    assert results.to_records()[-1]["custom_id"] == "b"
    assert (seen[-1].ended, seen[-1].answered, seen[-1].remaining) == (8, 4, 0)
    assert upstream.requests[0].body["max_tokens"] == 5
    assert repr(results).endswith(": done, 4 of 8 calls answered>")


async def test_results_are_there_while_the_job_runs_and_leaving_stops_it(settings: Settings, upstream: Upstream) -> None:
    async with fanout.open_job(
        (f"row {number}" for number in range(50)), "up/ok-sleep-0.05", settings=settings, concurrency=1
    ) as job:
        async for result in job:
            assert result["item"] == 0
            assert job.progress.remaining > 0
            break
    await upstream.wait_until_idle()
    assert len(upstream.requests) < 50


async def test_a_kept_job_goes_on_where_it_stopped(settings: Settings, upstream: Upstream, tmp_path: Path) -> None:
    # Many, because results are looked for five times a second.
    rows, store = [f"row {number}" for number in range(40)], tmp_path / "jobs.db"
    async with fanout.open_job(rows, "up/ok-sleep-0.05", settings=settings, store=store, concurrency=1) as job:
        async for _ in job:
            break
        name = job.id
    sent = len(upstream.requests)
    results = await fanout.run_job(resume=name, store=store, settings=settings)

    assert sent < len(rows)
    assert (results.state, len(results)) == ("done", len(rows))
    assert len(upstream.requests) == len(rows), "a call that was answered is never made again"
    assert len(await fanout.run_job(resume=name, store=store, settings=settings)) == len(rows)


async def test_a_file_is_read_as_the_command_line_reads_it_and_answers_are_scored(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,reference\nwhat?,one\n")
    results = await fanout.run_job(
        tmp_path / "rows.csv", "up/say-one", settings=settings, template="Say: {{question}}", scorers=[{"type": "exact"}]
    )
    assert [score["value"] for score in results.results[0]["scores"].values()] == [1.0]


async def test_what_cannot_be_sent_is_refused_before_anything_is(settings: Settings, upstream: Upstream) -> None:
    with pytest.raises(RequestError, match="line 2"):
        await fanout.run_job(["a", {"promt": "b"}], "up/ok", settings=settings)
    with pytest.raises(RequestError, match=r"temprature.*did you mean"):
        await fanout.run_job(["a"], "up/ok", settings=settings, temprature=1)  # type: ignore[call-arg]
    with pytest.raises(RequestError, match="resume: needs `store`"):
        await fanout.run_job(resume="job_x", settings=settings)
    assert upstream.requests == []
