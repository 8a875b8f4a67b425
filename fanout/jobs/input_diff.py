"""Differences between an input and the one that a job was made of, row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice

from fanout.core.errors import Fault, RequestError
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.jobs.job import Job, RequestBuilder
from fanout.jobs.loading import LoadingBudget, load_in_thread
from fanout.store.jobs.inputs import ROWS_AT_ONCE
from fanout.store.jobs.job_store import JobStore

ParsedRow = tuple[int, str | None, str | None]
"""A row's line, its custom id and its body as it would be stored; both `None`: it cannot be used."""


async def find_input_differences(
    store: JobStore, job: Job, builder: RequestBuilder, rows: Iterable[InputRow | BadRow], budget: LoadingBudget
) -> list[Fault]:
    """Return one fault, or none where every row is the same. How the file is written does not matter.

    The rows of the other input are read in a thread.
    """
    source = iter(rows)
    after, count, changed, first = -1, 0, 0, 0
    while True:
        items = (await store.inputs.read_chunk(job.number, after)).items
        parsed = await load_in_thread(partial(_parse_chunk, source, builder, len(items) or ROWS_AT_ONCE), budget)
        if not items and not parsed:
            break
        after = items[-1].item if items else after
        count += len(parsed)
        lines = [line for (line, *row), item in zip(parsed, items, strict=False) if row != [item.custom_id, item.body]]
        changed += len(lines)
        first = first or (lines[0] if lines else 0)
    sentences = list(_describe(changed, first, count - job.items))
    return [Fault("input", f"is not what the job was made of: {'; '.join(sentences)}", "changed")] if sentences else []


def _describe(changed: int, first: int, more: int) -> Iterator[str]:
    if changed:
        yield f"{changed} row{'' if changed == 1 else 's'} differ{'s' if changed == 1 else ''}, first on line {first}"
    if more:
        yield f"{abs(more)} row{'' if abs(more) == 1 else 's'} {'more' if more > 0 else 'fewer'}"


def _parse_chunk(source: Iterator[InputRow | BadRow], builder: RequestBuilder, limit: int) -> list[ParsedRow]:
    return [_parse(row, builder) for row in islice(source, limit)]


def _parse(row: InputRow | BadRow, builder: RequestBuilder) -> ParsedRow:
    if isinstance(row, BadRow):
        return row.line, None, None
    try:
        return row.line, *builder.parse_row(row.values)
    except RequestError:
        return row.line, None, None
