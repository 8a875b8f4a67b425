"""A configuration that changes under a running job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from fanout.config.settings import load_settings
from tests.support.builders.jobs import OpenJobs, open_jobs
from tests.support.builders.settings import write_providers_file
from tests.support.upstream.server import Upstream

ROW: dict[str, Any] = {"api_key_env": "UP_KEY", "limits": {"concurrency": 1}}


async def reload(kept: OpenJobs, upstream: Upstream, folder: Path, key: str, more: Any = None) -> None:
    """Make the job's calls by another key of the provider."""
    path = write_providers_file(upstream.url, folder, more=more, **ROW)
    await kept.dispatcher.reload(load_settings(path, {"HOME": str(folder), "UP_KEY": key}))


async def test_units_go_on_with_the_new_key_and_those_of_a_removed_provider_fail_alone(
    upstream: Upstream, tmp_path: Path
) -> None:
    gone = {"providers": {"gone": {"adapter": "openai", "base_url": upstream.url, "limits": {"concurrency": 1}}}}
    write_providers_file(upstream.url, tmp_path, more=gone, **ROW)
    async with open_jobs(upstream.url, tmp_path, environ={"UP_KEY": "sk-old-key"}, **ROW) as kept:
        await reload(kept, upstream, tmp_path, "sk-old-key", gone)
        job = await kept.create(30, "up/sleep-0.01", "gone/sleep-0.01-say-bye")
        running = asyncio.create_task(kept.manager.run(job.id))
        await upstream.wait_for_requests(8)
        await reload(kept, upstream, tmp_path, "sk-new-key")
        assert not running.done()
        job = await running
        results = await kept.list_results(job)

    assert job.state == "done"
    assert len(results) == 60
    assert all(row.result == "answered" for row in results if row.entry == 0)
    sent = [request.headers["authorization"] for request in upstream.requests_for("sleep-0.01")]
    assert set(sent) == {"Bearer sk-old-key", "Bearer sk-new-key"}
    assert sent == sorted(sent, reverse=True), "none with the old key after the new one"
    assert {row.result for row in results if row.entry == 1} <= {"answered", "not_found"}
