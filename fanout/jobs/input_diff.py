"""What another input has otherwise than the one that a job was made of, row by row."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, zip_longest

from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import Job, RequestBuilder
from fanout.store.jobs.inputs import ROWS_AT_ONCE
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import InputItem

Read = tuple[int, str | None, str | None]
"""A row's line, its custom id, and what would be kept of it; `None`: it cannot be used."""


async def find_input_differences(
    store: JobStore, job: Job, builder: RequestBuilder, rows: Iterable[InputRow | BadRow]
) -> list[Fault]:
    """One sentence, or nothing where every row says the same: how a file is written does not matter.

    Args:
        rows: of the other input; read in a thread.
    """
    source = iter(rows)
    after, count, changed, first = -1, 0, 0, 0
    while True:
        kept = (await store.inputs.read_chunk(job.number, after)).items
        read = await asyncio.to_thread(_read, source, builder)
        if not kept and not read:
            break
        after = kept[-1].item if kept else after
        count += len(read)
        lines = [line for line, item in _pairs(read, kept) if item]
        changed += len(lines)
        first = first or (lines[0] if lines else 0)
    if not changed and count == job.items:
        return []
    more = count - job.items
    parts = [
        f"{changed} row{'' if changed == 1 else 's'} differ{'s' if changed == 1 else ''}, first on line {first}"
        if changed
        else "",
        f"{abs(more)} row{'' if abs(more) == 1 else 's'} {'more' if more > 0 else 'fewer'}" if more else "",
    ]
    return [Fault("input", f"is not what the job was made of: {'; '.join(part for part in parts if part)}", "changed")]


def _read(source: Iterator[InputRow | BadRow], builder: RequestBuilder) -> list[Read]:
    return [_understood(row, builder) for row in islice(source, ROWS_AT_ONCE)]


def _understood(row: InputRow | BadRow, builder: RequestBuilder) -> Read:
    if isinstance(row, BadRow):
        return row.line, None, None
    try:
        return row.line, *builder.parse_row(row.values)
    except RequestError:
        return row.line, None, None


def _pairs(read: Sequence[Read], kept: Sequence[InputItem]) -> Iterator[tuple[int, bool]]:
    """The line of every row that both have, and whether it differs."""
    for new, old in zip_longest(read, kept):
        if new is not None and old is not None:
            yield new[0], new[1:] != (old.custom_id, old.body)
