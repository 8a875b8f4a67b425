"""A store that an earlier version has written, as SQL: it is brought up to date, and holds all that it held.

The files in `versions/` were dumped from stores that the Fanout of that version had filled over HTTP.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from fanout.store.engine.upgrade import HEAD
from tests.support.databases import query
from tests.support.postgres import connect
from tests.support.server import serve

VERSIONS = Path(__file__).parent / "versions"
UNTOUCHED = ("usage", "jobs", "items", "units", "attempts", "scores", "comparisons", "answers", "votes", "files", "batches")


async def load(sql: str, location: str) -> None:
    if "://" not in location:
        with closing(sqlite3.connect(location)) as database:
            database.executescript(sql)
        return
    connection = await connect(location)
    await connection.execute(sql)
    await connection.close()


def count_rows(location: str) -> dict[str, int]:
    rows = query(location, " UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in UNTOUCHED))
    return {str(name): int(count) for name, count in rows}


async def test_a_store_of_version_0009_is_opened_with_all_that_it_holds(bare_location: str) -> None:
    location, system = bare_location, "postgresql" if "://" in bare_location else "sqlite"
    sql = (VERSIONS / f"v0009.{system}.sql").read_text()
    await load(sql, location)
    before = await asyncio.to_thread(count_rows, location)
    job = re.search(r"job_\w{32}", sql)
    assert job

    # Kept for ever, or the test would fail a month after the dump.
    async with serve(None, FANOUT_STORE=location, FANOUT_HISTORY_DAYS="0", FANOUT_USAGE_DAYS="0") as server:

        async def read(path: str) -> Any:
            async with server.session.get(path) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        comparisons = (await read("/v1/comparisons"))["data"]
        results = (await read(f"/v1/jobs/{job[0]}/results"))["data"]
        report = await read(f"/v1/jobs/{job[0]}/report")
        usage = await read("/v1/usage?from=2020-01-01")
        lists = {name: len((await read(f"/v1/{name}"))["data"]) for name in ("jobs", "files", "batches", "votes")}
        again = await server.session.post(f"/v1/jobs/{job[0]}/ballots", json={})

    assert query(location, "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert await asyncio.to_thread(count_rows, location) == before | {"votes": before["votes"] + 1}
    assert [len(comparison["entries"]) for comparison in comparisons] == [3, 2, 2]
    assert [bool(result["text"]) and "rouge_l" in str(result["scores"]) for result in results] == [True] * 4
    assert len(report["models"]) == 2
    assert usage["data"]
    assert lists == {"jobs": 2, "files": 2, "batches": 1, "votes": 1}
    assert again.status == 201, "what it holds can be worked with"
