"""Threads: a pool for each kind of work, so that none starves another."""

from __future__ import annotations

import asyncio
import itertools
import re
import threading
from contextvars import ContextVar
from typing import get_args

import pytest

from fanout.core.threads import THREADS, WorkKind, run_in_thread, while_wanted
from tests.support.documents import ROOT


@pytest.mark.parametrize("kind", get_args(WorkKind))
async def test_work_of_one_kind_that_hangs_holds_up_no_other(kind: WorkKind) -> None:
    release, started = threading.Event(), []

    def hang() -> None:
        started.append(1)
        release.wait(10)

    hanging = [asyncio.create_task(run_in_thread(kind, hang)) for _ in range(THREADS[kind] + 20)]
    try:
        async with asyncio.timeout(5):
            for other in set(THREADS) - {kind}:
                assert await run_in_thread(other, int, "7") == 7
            while len(started) < THREADS[kind]:
                await asyncio.sleep(0.001)
        assert len(started) == THREADS[kind], "no more threads than its own"
    finally:
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
        release.set()
    assert await run_in_thread(kind, len, started) == THREADS[kind], "what was cancelled while it waited is never run"


async def test_work_sees_the_context_of_its_caller_and_passes_its_error_on() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    variable.set("the caller's")
    assert await run_in_thread("calls", variable.get) == "the caller's"
    with pytest.raises(ValueError, match="invalid literal"):
        await run_in_thread("calls", int, "x")


def test_nothing_runs_in_the_threads_that_asyncio_shares() -> None:
    # `_run_in_thread` of `fanout/api/questions.py` runs a whole loop beside the caller's own; a database file's
    # writer is a thread of its own, which belongs to its connection. What hooks may use is named to those who write them.
    elsewhere = re.compile(r"\bto_thread\b|\brun_in_executor\b|\bzlib_executor|\bThreadPoolExecutor\b|set_default_executor")
    found = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "fanout").rglob("*.py") if elsewhere.search(path.read_text())
    }
    own = {"fanout/core/threads.py", "fanout/api/questions.py", "fanout/store/engine/file_threads.py"}
    assert found == {*own, "fanout/dispatch/hooks.py"}


async def test_work_that_is_not_wanted_any_more_ends() -> None:
    """A report of hundreds of models would else keep its thread for minutes after its caller has left."""
    ended = threading.Event()

    def work() -> None:
        try:
            for _ in while_wanted(itertools.count()):
                pass
        finally:
            ended.set()

    task = asyncio.create_task(run_in_thread("reports", work))
    await asyncio.sleep(0.01)
    assert not ended.is_set()
    task.cancel()
    assert await asyncio.to_thread(ended.wait, 10)
    assert list(while_wanted([1, 2])) == [1, 2], "outside of such a thread it is always wanted"
