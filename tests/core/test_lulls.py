"""Work in the background waits for a lull, and not for long."""

from __future__ import annotations

import asyncio
import time

import pytest

from fanout.core import lulls
from fanout.core.lulls import LULLS, Lulls
from fanout.server.afterwork import Afterwork
from fanout.server.lifecycle import Lifecycle


async def test_nothing_waits_while_no_request_runs() -> None:
    waiting = Lulls()
    waiting.begin_request()
    waiting.end_request()
    task = asyncio.create_task(waiting.wait())
    await asyncio.sleep(0)
    assert task.done()


async def test_what_waits_is_done_once_an_answer_has_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with the request's own record, while the next request runs."""
    monkeypatch.setattr(lulls, "MAX_WAIT_S", 60.0)
    lifecycle, afterwork, recorded = Lifecycle(), Afterwork(), list[bool]()
    lifecycle.begin_request()
    try:
        task = asyncio.create_task(LULLS.wait())
        await asyncio.sleep(0.05)
        assert not task.done()
        afterwork.add(lambda: recorded.append(True), lambda: None)
        await asyncio.wait_for(task, 10)
        assert recorded
    finally:
        lifecycle.end_request()


async def test_a_long_request_holds_nothing_up_for_long() -> None:
    waiting = Lulls()
    waiting.begin_request()
    start = time.monotonic()
    await waiting.wait()
    assert lulls.MAX_WAIT_S - 0.02 <= time.monotonic() - start < 10


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    waiting = Lulls()
    waiting.begin_request()
    task = asyncio.create_task(waiting.wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting.note()
    again = asyncio.create_task(waiting.wait())
    await asyncio.sleep(0)
    waiting.note()
    await asyncio.wait_for(again, 10)
