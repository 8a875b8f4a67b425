"""Quotas of a key on what its account keeps here: files, their bytes, rows, and jobs that have not ended."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, nullcontext
from weakref import WeakValueDictionary

from aiohttp import web

from fanout.core.errors import Fault, RequestError
from fanout.jobs.input_files import bound_rows
from fanout.jobs.input_formats.rows import BadRow, InputRow
from fanout.server.accounts.callers import find_caller
from fanout.server.lifecycle import BATCH_STORE, FILE_STORE, HOLD_TURN, JOB_STORE

QUOTA_CODE = "quota_exceeded"
QUOTAS = ("max_files", "max_stored_bytes", "max_rows", "max_running_jobs")
QUOTA_TURNS = web.AppKey("quota_turns", WeakValueDictionary[str, asyncio.Lock])
"""By account."""


@asynccontextmanager
async def take_turn(request: web.Request) -> AsyncGenerator[None]:
    """Let what an account adds be measured and added by one request at a time: two at once would pass a quota together."""
    caller = find_caller(request)
    if all(getattr(caller.limits, name) is None for name in QUOTAS):
        yield
        return
    lock = request.app[QUOTA_TURNS].setdefault(caller.account or "", asyncio.Lock())
    hold_turn = request.app.get(HOLD_TURN)
    async with lock, hold_turn(caller.account or "") if hold_turn else nullcontext():
        yield


async def check_file(request: web.Request, size: int) -> None:
    """Raise `RequestError` if an upload that was received is beyond the quotas by now."""
    limits, account = find_caller(request).limits, find_caller(request).account
    count, stored = await request.app[FILE_STORE].measure_account(account or "", with_unfinished=False)
    if limits.max_files is not None and count >= limits.max_files:
        raise _refuse("file", f"the account has other files by now, and this key allows {limits.max_files}")
    if limits.max_stored_bytes is not None and stored + size > limits.max_stored_bytes:
        raise _refuse(
            "file", f"the account's other files have {stored} bytes by now, and this key allows {limits.max_stored_bytes}"
        )


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
    waiting, loading = await request.app[BATCH_STORE].count_unread(account or "")
    running += waiting
    if limits.max_rows is not None and waiting + loading:
        raise _refuse(field, "the rows of another batch are being counted, and this key has a quota of rows: try again soon")
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
