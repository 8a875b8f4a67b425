"""The backlog of accounts, by which workers are added and removed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fanout.jobs import backlog as backlog_module
from fanout.jobs.backlog import BacklogReader
from fanout.jobs.presence import Presence
from fanout.jobs.worker import JobWorker
from fanout.observability.backlog import AccountBacklog
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.upstream.server import Upstream

NOBODY = AccountBacklog(0, 0.0, 0.0, 0)
PER_MINUTE = 600


def make_reader(kept: OpenJobs) -> BacklogReader:
    return BacklogReader(kept.jobs, kept.store, lambda: kept.dispatcher.settings)


async def join(kept: OpenJobs, name: str, accounts: list[str] | None, **rates: float) -> None:
    """Enter a process of another machine."""
    activity = {"jobs": [], "calls_in_flight": 0, "calls_waiting": 0, "calls_per_second": rates}
    presence = Presence(kept.store.processes, "worker", "1", lambda: accounts, lambda: activity)  # type: ignore[arg-type, return-value]
    await kept.store.processes.record(presence.row._replace(id=f"elsewhere|another machine|{name}|1"))


async def test_the_backlog_of_an_account_follows_its_units_its_rate_and_its_limit(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    limits = {"requests_per_minute": PER_MINUTE}
    async with open_jobs(upstream.url, tmp_path, store=location, limits=limits) as kept:
        reader = make_reader(kept)
        assert reader.by_account == {}, "unknown before it is read"
        await reader.refresh()
        empty = reader.by_account["up"]
        job = await kept.create(20, "up/a", "up/b", unattended=True)
        await kept.create(5, "up/a")  # its command runs it, no worker
        await reader.refresh()
        waiting = reader.by_account["up"]
        await join(kept, "1", ["up"], up=2.0)
        await join(kept, "2", None, up=3.0)
        await join(kept, "3", ["other"])
        await reader.refresh()
        worked = reader.by_account["up"]
        await kept.manager.run(job.id)
        await reader.refresh()
        done = reader.by_account["up"]

    assert empty == NOBODY
    assert waiting == AccountBacklog(40, seconds=4.0, least_seconds=4.0, workers=0)
    assert worked == AccountBacklog(40, seconds=8.0, least_seconds=4.0, workers=2)
    assert done == AccountBacklog(0, seconds=0.0, least_seconds=0.0, workers=2)


async def test_without_a_rate_or_a_limit_the_time_of_a_backlog_is_unknown_and_so_is_all_that_is_old(
    upstream: Upstream, tmp_path: Path
) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        reader = make_reader(kept)
        await kept.create(3, "up/a", unattended=True)
        await reader.refresh()
        known = reader.by_account["up"]
        reader._read_at -= backlog_module.MAX_AGE_S

    assert known == AccountBacklog(3, seconds=None, least_seconds=None, workers=0)
    assert reader.by_account == {}


async def test_units_that_have_ended_are_counted_off_by_account(upstream: Upstream, tmp_path: Path) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        reader = make_reader(kept)
        job = await kept.create(4, "up/sleep-0.02", "local/ngram-2", unattended=True, concurrency=1)
        seen: list[JobWorker] = []
        running = asyncio.create_task(kept.manager.run(job.id, seen.append))
        await upstream.wait_for_requests(2)
        seen[0].stop("queued", None)
        await running
        await reader.refresh()
        counts = await kept.jobs.results.read_counts([job.number])
        left = {name: backlog.units for name, backlog in reader.by_account.items()}

    ended = {label: totals.calls for (label, _), totals in counts[job.number].items()}
    assert 0 < ended["up/sleep-0.02"] < 4
    assert left == {"up": 4 - ended["up/sleep-0.02"], "local": 4 - ended.get("local/ngram-2", 0)}
