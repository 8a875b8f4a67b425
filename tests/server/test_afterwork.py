"""What has ended is counted, recorded and logged together, a moment later."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from fanout.server import afterwork as module
from fanout.server.afterwork import Afterwork
from tests.support.builders.outcomes import make_answer

OBSERVED, ENDED = ["2 observed"], ["a recorded", "b recorded", "a counted", "b counted"]


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def afterwork(done: list[str]) -> Afterwork:
    made = Afterwork()
    made.observers = [lambda *calls: done.append(f"{len(calls)} observed")]
    return made


def end_requests(afterwork: Afterwork, done: list[str], names: str) -> None:
    for name in names:
        afterwork.observe(make_answer())
        afterwork.add(partial(done.append, f"{name} recorded"), partial(done.append, f"{name} counted"))


@pytest.mark.parametrize("most", ["MAX_REQUESTS", "MAX_CALLS"])
async def test_as_many_as_may_wait_are_done_together_in_the_next_turn(
    afterwork: Afterwork, done: list[str], monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    monkeypatch.setattr(module, most, 2)
    monkeypatch.setattr(module, "DELAY_S", 60.0)
    end_requests(afterwork, done, "ab")
    assert done == []  # not before the answer has been written
    await asyncio.sleep(0)
    assert done == OBSERVED + ENDED


async def test_a_few_wait_for_others_for_a_moment(
    afterwork: Afterwork, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DELAY_S", 0.3)
    end_requests(afterwork, done, "ab")
    await asyncio.sleep(0)
    assert done == []
    async with asyncio.timeout(10):
        while not done:
            await asyncio.sleep(0.01)
    assert done == OBSERVED + ENDED


async def test_a_step_that_fails_is_logged_and_takes_no_other_with_it(
    afterwork: Afterwork, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(module, "log", logger := CapturingLogger())
    afterwork.observers = [fail, *afterwork.observers]
    afterwork.add(fail, fail)
    end_requests(afterwork, done, "ab")
    afterwork.finish()
    assert done == OBSERVED + ENDED
    assert [(call.method_name, *call.args) for call in logger.calls] == [("exception", "request.record_crashed")] * 3
