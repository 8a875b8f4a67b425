"""Export of results: no single record fails it, and long ones are read a few at a time."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from fanout.jobs.export import encode_results
from fanout.jobs.output_files import make_encoder
from fanout.jobs.result_records import UNREADABLE
from fanout.store.jobs import inputs
from fanout.store.jobs.records import ResultFilter
from tests.support.builders.jobs import open_jobs
from tests.support.upstream.server import Upstream


def decode(kind: str, content: bytes) -> list[Any]:
    if kind == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    if kind == "csv":
        return list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    return list(parquet.read_table(io.BytesIO(content)).to_pylist())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
async def test_a_record_that_cannot_be_read_is_one_line_of_the_export(
    kind: str, upstream: Upstream, tmp_path: Path, log_lines: list[str]
) -> None:
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.manager.run((await kept.create(5, "up/ok")).id)
        async with kept.store.database.write_transaction() as connection:
            await connection.exec_driver_sql("UPDATE units SET record = '{\"completion\": 7}', digest = NULL WHERE item = 2")
        pieces = [piece async for piece in encode_results(kept.jobs, job.number, make_encoder(kind), ResultFilter())]

    lines = decode(kind, b"".join(pieces))
    assert [int(line["item"]) for line in lines] == [0, 1, 2, 3, 4]
    assert [bool(line["text"]) for line in lines] == [True, True, False, True, True]
    assert lines[2]["error_code"] == "unreadable_record"
    assert lines[2]["error_message"] == UNREADABLE["error_message"]
    assert any("export.record_failed" in line for line in log_lines)


async def test_long_results_are_read_a_few_at_a_time_and_all_of_them(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_CHARS_AT_ONCE", 2_000)
    async with open_jobs(upstream.url, tmp_path) as kept:
        job = await kept.manager.run((await kept.create(30, "up/ok")).id)
        page = await kept.jobs.results.read_page(job.number, None, 128, ResultFilter())
        pieces = [piece async for piece in encode_results(kept.jobs, job.number, make_encoder("jsonl"), ResultFilter())]

        few = await kept.jobs.results.list_items(job.number, -1, 128)
        rest = await kept.jobs.results.read_page(job.number, page.rows[-1].place, 128, ResultFilter())
        counted = await kept.jobs.results.read_page(job.number, None, 2, ResultFilter())
        last = await kept.jobs.results.read_page(job.number, (27, 0, 0), 2, ResultFilter())

    assert 0 < len(page.rows) < 30
    assert 0 < len(few) < 30
    assert page.has_more
    assert rest.rows[0].item == page.rows[-1].item + 1
    assert [(row.item, counted.has_more) for row in counted.rows] == [(0, True), (1, True)]
    assert [(row.item, last.has_more) for row in last.rows] == [(28, False), (29, False)]
    assert [json.loads(line)["item"] for line in b"".join(pieces).splitlines()] == list(range(30))
