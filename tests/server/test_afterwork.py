"""What has ended is counted, recorded and logged together, in parts between which the event loop has its turn."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from fanout.server import afterwork as module
from fanout.server.afterwork import Afterwork
from tests.support.builders.outcomes import make_answer


@pytest.fixture
def done() -> list[str]:
    return []


@pytest.fixture
def afterwork(done: list[str]) -> Afterwork:
    made = Afterwork()
    made.observers = [lambda *calls: done.append(f"{len(calls)} observed")]
    return made


def add(afterwork: Afterwork, done: list[str], names: str) -> None:
    for name in names:
        afterwork.observe(make_answer())
        afterwork.add(partial(done.append, f"{name} recorded"), partial(done.append, f"{name} counted"))


ALL = ["2 observed", "a recorded", "b recorded", "a counted", "b counted"]


async def test_each_part_has_a_turn_of_its_own(afterwork: Afterwork, done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REQUESTS", 2)
    add(afterwork, done, "ab")
    assert done == []  # not before the answer has been written
    seen = []
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append(len(done))
    assert seen == [1, 3, 5, 5]
    assert done == ALL


async def test_all_is_done_at_once_before_somebody_reads(
    afterwork: Afterwork, done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REQUESTS", 2)
    add(afterwork, done, "ab")
    await asyncio.sleep(0)  # the first part is done now
    add(afterwork, done, "c")
    afterwork.finish()
    assert done == [*ALL, "1 observed", "c recorded", "c counted"]
    await asyncio.sleep(2 * module.DELAY_S)
    assert len(done) == 8


async def test_a_single_request_waits_for_others_a_moment(afterwork: Afterwork, done: list[str]) -> None:
    add(afterwork, done, "a")
    await asyncio.sleep(module.DELAY_S / 4)
    assert done == []
    await asyncio.sleep(10 * module.DELAY_S)
    assert done == ["1 observed", "a recorded", "a counted"]


async def test_a_step_that_fails_takes_no_other_with_it(afterwork: Afterwork, done: list[str]) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    afterwork.observers = [fail, *afterwork.observers]
    afterwork.add(fail, partial(done.append, "x counted"))
    add(afterwork, done, "a")
    afterwork.finish()
    assert done == ["1 observed", "a recorded", "x counted", "a counted"]
