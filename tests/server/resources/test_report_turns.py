"""Turns at reports: of one account one at a time, of several side by side."""

from __future__ import annotations

import asyncio

from fanout.server.resources.report_turns import ReportTurns


async def test_an_account_that_asks_for_many_reports_leaves_the_threads_to_others() -> None:
    turns, done = ReportTurns(), list[str]()

    async def make(account: str | None, report: str, *, takes: asyncio.Event | None = None) -> None:
        async with turns.of_account(account):
            if takes:
                await takes.wait()
            done.append(report)

    long = asyncio.Event()
    tasks = [asyncio.create_task(make(*one, takes=long)) for one in (("a", "a1"), ("a", "a2"), (None, "n1"))]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await make("b", "b1")
    assert done == ["b1"]
    tasks[0].cancel()  # its caller leaves
    long.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(done[1:]) == ["a2", "n1"]
