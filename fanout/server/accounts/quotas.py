"""Quotas of a key on what its account keeps here: files, their bytes, rows, and jobs that have not ended."""

from __future__ import annotations

import math
from collections.abc import Iterable

from aiohttp import web

from fanout.core.errors import Fault, RequestError
from fanout.jobs.input_files import bound_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.server.accounts.callers import find_caller
from fanout.server.lifecycle import FILE_STORE, JOB_STORE

QUOTA_CODE = "quota_exceeded"


async def find_room_for_file(request: web.Request) -> float:
    """Return how many bytes a new file of the caller's account may have; infinite: as many as any.

    Raises:
        RequestError: with the kind `quota_exceeded`.
    """
    limits, account = find_caller(request).limits, find_caller(request).account
    if limits.max_files is None and limits.max_stored_bytes is None:
        return math.inf
    count, size = await request.app[FILE_STORE].measure_account(account or "")
    if limits.max_files is not None and count >= limits.max_files:
        raise _refuse("file", f"the account has {count} files, and this key allows {limits.max_files}: delete some first")
    if limits.max_stored_bytes is None:
        return math.inf
    left = limits.max_stored_bytes - size
    if left <= 0 or (request.content_length or 0) > left + MAX_FORM_BYTES:
        sentence = f"the account's files have {size} bytes, and this key allows {limits.max_stored_bytes}"
        raise _refuse("file", f"{sentence}: this one does not fit; delete some first")
    return left


MAX_FORM_BYTES = 64 * 1024
"""Of a form beside its file."""


async def find_room_for_job(request: web.Request, field: str) -> int | None:
    """Return how many rows a new job of the caller's account may have; `None`: as many as any.

    Raises:
        RequestError: with the kind `quota_exceeded`, and the field.
    """
    limits, account = find_caller(request).limits, find_caller(request).account
    if limits.max_rows is None and limits.max_running_jobs is None:
        return None
    running, rows = await request.app[JOB_STORE].measure_account(account or "")
    if limits.max_running_jobs is not None and running >= limits.max_running_jobs:
        sentence = f"the account has {running} jobs that have not ended, and this key allows {limits.max_running_jobs}"
        raise _refuse(field, f"{sentence}: wait for one, or cancel it")
    return None if limits.max_rows is None else max(limits.max_rows - rows, 0)


async def bound_new_job(request: web.Request, rows: Iterable[InputRow | BadRow], field: str) -> Iterable[InputRow | BadRow]:
    """Return the rows of a new job, which raise `RequestError` beyond the quota; for what it raises at once see above."""
    left = await find_room_for_job(request, field)
    return rows if left is None else bound_rows(rows, left)


async def check_fork(request: web.Request, rows: int) -> None:
    """Raise `RequestError` unless the quotas allow another job of so many rows."""
    left = await find_room_for_job(request, "fork")
    if left is not None and rows > left:
        raise _refuse("fork", f"the job has {rows} rows, and the quota of this key (`max_rows`) leaves {left}")


def _refuse(field: str, sentence: str) -> RequestError:
    return RequestError([Fault(field, sentence, QUOTA_CODE)])
