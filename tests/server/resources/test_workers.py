"""`GET /v1/workers` of a server that is alone on its store."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.support.cli import run_fanout
from tests.support.databases import query
from tests.support.server import serve


async def test_a_server_alone_on_a_sqlite_file_knows_itself_and_writes_nothing_for_others(tmp_path: Path) -> None:
    location = str(tmp_path / "fanout.db")
    async with serve(None, FANOUT_STORE=location) as server:
        async with server.session.get("/v1/workers") as response:
            (process,) = (await response.json())["data"]
        async with server.session.get("/metrics") as response:
            metrics = await response.text()
        tasks = {task.get_name() for task in asyncio.all_tasks()}
        listed = await run_fanout("workers", FANOUT_STORE=location)

    assert (process["kind"], process["pid"], process["state"], process["accounts"]) == ("serve", os.getpid(), "working", None)
    assert process["seen_s"] == 0
    assert (listed.code, listed.out) == (0, "")
    assert "no process shares this store now" in listed.err
    assert query(location, "SELECT * FROM processes") == []
    assert "presence" not in tasks
    assert "fanout_workers{" not in metrics


async def test_a_server_that_runs_no_jobs_needs_a_store_that_others_can_reach(tmp_path: Path) -> None:
    refused = await run_fanout("serve", "--no-work", "--port", "0", FANOUT_STORE=":memory:")

    assert refused.code == 2
    assert "FANOUT_WORK: is `off`, but nobody else could run the jobs of a store in memory" in refused.err
