"""A store that is full, or locked by somebody else: a clear word, nothing lost, and on it goes."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import Connection

from fanout.core.errors import StoreError
from fanout.jobs import unit_journal
from fanout.jobs.worker import JobWorker
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.upstream.server import Upstream


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant, not a piece of the code: half a minute of waiting proves nothing more than a second."""
    monkeypatch.setattr(unit_journal, "PATIENCE_S", 1.0)


async def limit_growth(kept: OpenJobs, pages: int) -> None:
    """The database may not grow beyond so many pages more, as on a full disk. (All records go through one connection.)"""

    def limit(connection: Connection) -> None:
        count = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {count + pages}")

    await kept.store.database.write(limit)


@pytest.mark.usefixtures("short_patience")
async def test_a_full_disk_stops_the_job_and_loses_nothing(upstream: Upstream, tmp_path: Path, log_lines: list[str]) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(400, "up/say-something", concurrency=8)
        await limit_growth(kept, pages=30)
        with pytest.raises(StoreError, match="full"):
            await kept.manager.run(job.id)
        written = len(await kept.list_results(job))
        assert 0 < written < 400
        # No more was sent than could be written down before.
        assert written <= len(upstream.requests) <= written + 8

        await limit_growth(kept, pages=10_000)
        sent = len(upstream.requests)
        job = await kept.manager.run(job.id)
        found = await kept.list_results(job)

    assert job.state == "done"
    assert len(found) == len({tuple(row[:3]) for row in found}) == 400
    assert len(upstream.requests) - sent == 400 - written
    assert any("job.write_failed" in line and "full" in line for line in log_lines)


async def test_a_job_waits_for_a_locked_store(upstream: Upstream, tmp_path: Path) -> None:
    """Somebody else writes for longer than SQLite itself would wait, and nothing is sent meanwhile."""
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(60, "up/sleep-0.01", concurrency=4)
        seen: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, seen.append))
        await upstream.wait_for_requests(10)
        other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await upstream.wait_until_idle()
        sent = len(upstream.requests)
        while seen[0].store_error is None:
            await asyncio.sleep(0.05)
        assert "locked" in str(seen[0].store_error)
        assert len(upstream.requests) == sent
        other.rollback()
        other.close()
        job = await running
        found = await kept.list_results(job)

    assert job.state == "done"
    assert len(found) == 60
    assert len(upstream.requests) == 60


@pytest.mark.usefixtures("short_patience")
async def test_a_store_that_stays_locked_ends_the_run_with_its_own_message(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.create(60, "up/sleep-0.01", concurrency=4)
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(10)
        other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            await running
        other.rollback()
        other.close()
        job = await kept.manager.run(job.id)

    assert job.state == "done"
    assert 60 <= len(upstream.requests) <= 60 + 4
