"""Result files of OpenAI's batches, made from the job's results when they are read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from fanout.core.schema import Call
from fanout.core.threads import run_in_thread
from fanout.jobs.job import Job, place_calls
from fanout.jobs.manager import JobManager
from fanout.jobs.openai_batches import FileSizes
from fanout.jobs.stored_outcome import StoredOutcome
from fanout.rendering.openai.batch_lines import FinishedCall, encode_output_line
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import EndedUnit
from fanout.store.jobs.results import ItemResults

PAGE_ITEMS = 32


async def measure_files(manager: JobManager, store: JobStore, job: Job) -> FileSizes:
    """Return the sizes of a job's two files."""
    # By writing everything once: a file's size is part of its listing, and the files themselves are stored nowhere.
    sizes = FileSizes()
    async for lines in _pages(manager, store, job):
        for is_answered, line in lines:
            if is_answered:
                sizes.output += len(line)
            else:
                sizes.errors += len(line)
    return sizes


async def read_file(manager: JobManager, store: JobStore, job: Job, *, answered: bool) -> AsyncIterator[bytes]:
    """Yield one of the two files piece by piece, in the order of the input: the answers, or the requests without one."""
    async for lines in _pages(manager, store, job):
        yield b"".join(line for is_answered, line in lines if is_answered is answered)


async def _pages(manager: JobManager, store: JobStore, job: Job) -> AsyncIterator[list[tuple[bool, bytes]]]:
    after = -1
    while page := await store.results.list_items(job.number, after, PAGE_ITEMS):
        after = page[-1][0].item
        # A page of long answers takes many milliseconds to render, for which the event loop must not stop.
        yield await run_in_thread("exports", _encode_page, manager, job, page)


def _encode_page(manager: JobManager, job: Job, page: Sequence[ItemResults]) -> list[tuple[bool, bytes]]:
    lines: list[tuple[bool, bytes]] = []
    for item, units in page:
        # Planned again from the stored row: the plan is pure, so the calls are those whose ends the store has.
        calls = sorted(place_calls(manager.planner.plan_item(job, item.body)), key=lambda placed: placed[0])
        for entry, placed in groupby(calls, key=lambda placed: placed[0][0]):
            finished = _pair_with_ends((call, units.get(place)) for place, call in placed)
            lines.append(encode_output_line(job, item, entry, list(finished)))
    return lines


def _pair_with_ends(calls: Iterator[tuple[Call, EndedUnit | None]]) -> Iterator[tuple[Call, FinishedCall | None]]:
    """Yield calls with how they ended, numbered as if their entry had been requested alone."""
    index = 0
    for call, row in calls:
        if row is None:
            yield call, None
        else:
            outcome = StoredOutcome.from_json(row.record).to_outcome(replace(call, index=index))
            yield call, FinishedCall(outcome, row.ended)
        # A call with `n` upstream takes as many places as it has choices.
        index += call.query.sampling.n or 1
