"""Callers may be cancelled at any moment: their statements run to the end, and the database stays usable."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fanout.core.errors import StoreError
from fanout.store.files import FileStore
from fanout.store.opening import open_store


async def test_a_database_in_memory_survives_callers_that_are_cancelled_in_the_middle_of_a_statement() -> None:
    async with open_store(":memory:") as store:
        assert store
        files = FileStore(store.database)
        await files.begin_upload("file-1", created=time.time())
        await files.finish_upload("file-1", size_bytes=0, filename="x", purpose="batch")
        for n in range(60):
            task = asyncio.create_task(files.list_files(limit=10) if n % 2 else files.add_part("file-1", n, b"x"))
            await asyncio.sleep(n * 1e-4 / 6)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        assert await files.find("file-1") is not None


async def test_closing_waits_for_the_statements_of_cancelled_callers(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "a.db")) as store:
        assert store
        files = FileStore(store.database)
        await files.begin_upload("file-1", created=time.time())
        left = [asyncio.create_task(files.add_part("file-1", n, b"x")) for n in range(20)]
        await asyncio.sleep(0)
        for task in left:
            task.cancel()

    async with open_store(str(tmp_path / "a.db")) as store:
        assert store
        files = FileStore(store.database)
        assert [await files.read_part("file-1", n) for n in range(20)] == [b"x"] * 20


async def test_a_failure_of_the_database_is_a_store_error(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "a.db")) as store:
        assert store
        files = FileStore(store.database)
        await files.begin_upload("file-1", created=time.time())

        with pytest.raises(StoreError, match="UNIQUE"):
            await files.begin_upload("file-1", created=time.time())


async def test_sweeping_deletes_abandoned_uploads_and_expired_files(tmp_path: Path) -> None:
    async with open_store(str(tmp_path / "a.db")) as store:
        assert store
        files, now = FileStore(store.database), time.time()
        for file_id, created in (("abandoned", now - 2 * 86_400), ("begun", now), ("expired", now), ("kept", now)):
            await files.begin_upload(file_id, created=created)
            await files.add_part(file_id, 0, b"x")
        await files.finish_upload("expired", size_bytes=1, filename="x", purpose="batch", expires=now - 1)
        await files.finish_upload("kept", size_bytes=1, filename="x", purpose="batch", expires=now + 3600)

        await files.sweep()

        assert [await files.read_part(file_id, 0) for file_id in ("abandoned", "begun", "expired", "kept")] == [
            None,
            b"x",
            None,
            b"x",
        ]
