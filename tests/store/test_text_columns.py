"""No text that a caller sends is refused: PostgreSQL takes no NUL, and no database takes half a character."""

from __future__ import annotations

import time
from typing import Any

import pytest

from fanout.core.usage import WorkTotals
from fanout.store.batches import BatchRow, BatchStore
from fanout.store.files import FileStore
from fanout.store.history.queries import ComparisonFilter
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.journal import AttemptFailed, AttemptStarted, UnitEnded
from fanout.store.jobs.records import InputItem, NewJobRow, ResultFilter, Unit
from fanout.store.opening import open_store

ODD = "nul\0 half \ud83d"
KEPT = "nul\ufffd half ?"


async def test_the_texts_of_a_job_are_stored_and_found_again(location: str) -> None:
    async with open_store(location) as store:
        assert store
        jobs = JobStore(store.database)
        new = NewJobRow("job_1", time.time(), ODD, spec="{}", fingerprint="{}", forked_from=ODD)
        number, epoch = await jobs.create(new, f"{ODD}|machine|1|1")
        await jobs.inputs.add(number, [InputItem(0, 1, ODD, f'{{"prompt":"{ODD}"}}'), InputItem(1, 2, None, ODD * 500)], epoch)
        ends = ("up/ok", "answered", f'{{"label":"{ODD}"}}'), (ODD, "server", ODD * 500)
        async with jobs.journal.run():
            for item, (model, result, record) in enumerate(ends):
                unit, failure = Unit(number, item, 0, 0), None if result == "answered" else ODD
                await jobs.journal.put(AttemptStarted(unit, 1, epoch, 1.0))
                await jobs.journal.put(AttemptFailed(unit, 1, epoch, 2.0, "server", ODD))
                await jobs.journal.put(
                    UnitEnded(
                        unit, 2, epoch, 3.0, model, result, record, WorkTotals(1), failure=failure, text=ODD, cached_from=ODD
                    )
                )
        await jobs.update(number, {"state": "stopped", "reason": ODD})

        found = await jobs.results.list_results(number)
        assert [row.model for row in found] == ["up/ok", KEPT]
        assert [row.body for row in found] == [f'{{"prompt":"{KEPT}"}}', KEPT * 500]
        assert [row.record for row in found] == [f'{{"label":"{KEPT}"}}', KEPT * 500]
        assert [row.item for row in await jobs.results.list_results(number, filter_=ResultFilter(model=ODD))] == [1]
        assert await jobs.results.list_results(number, filter_=ResultFilter(kind=ODD)) == []
        (row,) = await jobs.list_jobs(limit=5, account_id=ODD)
        assert (row.account_id, row.reason) == (KEPT, KEPT)
        assert await jobs.list_jobs(limit=5, prefix=ODD) == []
        assert await jobs.find(ODD) is None


async def test_the_texts_of_a_file_and_a_batch_are_stored_and_found_again(location: str) -> None:
    async with open_store(location) as store:
        assert store
        files, batches = FileStore(store.database), BatchStore(store.database)
        await files.begin_upload("file-1", created=1.0, account_id=ODD)
        await files.add_part("file-1", 0, b"\0\xff")
        await files.finish_upload("file-1", size_bytes=2, filename=ODD, purpose=ODD, expires=None)
        await batches.create(BatchRow("batch_1", 1.0, ODD, request=f'{{"metadata":{{"a":"{ODD}"}}}}'))
        await batches.update("batch_1", {"errors": ODD})

        (file,) = await files.list_files(limit=5, purpose=ODD, account_id=ODD)
        assert (file.filename, await files.read_part("file-1", 0)) == (KEPT, b"\0\xff")
        (batch,) = await batches.list_batches(limit=5, account_id=ODD)
        assert (batch.errors, batch.account_id) == (KEPT, KEPT)
        assert await files.find(ODD) is None
        assert await files.read_part(ODD, 0) is None
        assert await batches.find(ODD) is None
        await files.delete(ODD)


@pytest.mark.parametrize("word", ["account_id", "model", "label", "metadata"])
async def test_the_history_can_be_searched_for_any_text(word: str, location: str) -> None:
    async with open_store(location) as store:
        assert store
        words: dict[str, Any] = {word: {ODD: ODD} if word == "metadata" else ODD}
        filter_ = ComparisonFilter(**words)

        assert await store.history.list_comparisons(filter_) == []
        assert await store.history.find(ODD) is None
        assert await store.history.find_number(ODD) is None
