"""Export of a job's results: page by page, in memory that does not grow with the job, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from fanout.core.errors import StoreError
from fanout.core.threads import run_in_thread
from fanout.jobs.output_formats import RecordEncoder
from fanout.jobs.result_records import build_records
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Place, ResultFilter, ResultRow

PAGE_ROWS = 128
MAX_READS = 10
"""Attempts to read a page: half a file is of no use, and a database may be away for a moment."""
READ_INTERVAL_S = 1.0


async def encode_results(store: JobStore, number: int, encoder: RecordEncoder, filter_: ResultFilter) -> AsyncGenerator[bytes]:
    """Yield the results of a job, encoded; some pieces may be empty."""
    after: Place | None = None
    while page := await read_page(store, number, after, filter_):
        after = page[-1].place
        yield await run_in_thread("exports", _encode_page, encoder, page)
    yield await run_in_thread("exports", encoder.close)


def _encode_page(encoder: RecordEncoder, page: Sequence[ResultRow]) -> bytes:
    return encoder.encode(list(build_records(page)))


async def read_page(store: JobStore, number: int, after: Place | None, filter_: ResultFilter) -> Sequence[ResultRow]:
    """Return the results that follow a place, once the database is there again if it is away for a moment."""
    for _ in range(MAX_READS - 1):
        try:
            return (await store.results.read_page(number, after, PAGE_ROWS, filter_)).rows
        except StoreError:
            if after is None:  # nothing was written yet, so the caller can still get an error
                raise
            await asyncio.sleep(READ_INTERVAL_S)
    return (await store.results.read_page(number, after, PAGE_ROWS, filter_)).rows
