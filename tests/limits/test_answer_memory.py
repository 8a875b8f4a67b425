"""The memory of answers: within its bound, and whole again whoever fails, leaves or is released twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from fanout.core.errors import ProviderError
from fanout.limits import answer_memory
from fanout.limits.answer_memory import BEGINNING_BYTES, NO_ROOM, STEP_BYTES, AnswerMemory

LIMIT = 4 * 2**20


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_memory, "MAX_WAIT_S", 0.05)


async def test_an_answer_takes_its_memory_in_steps_and_gives_it_back_once() -> None:
    memory = AnswerMemory(LIMIT)
    scope = memory.open_scope()
    answer = scope.open_answer(0)
    assert memory.used == 0
    await answer.grow(1)
    assert answer.size == memory.used == STEP_BYTES
    await answer.grow(BEGINNING_BYTES + 1)
    assert answer.size == memory.used == 2 * BEGINNING_BYTES
    await answer.grow(10)
    assert memory.used == 2 * BEGINNING_BYTES, "it never shrinks"
    answer.release()
    answer.release()
    scope.release_answer(0)
    scope.close()
    assert memory.used == 0


async def test_another_attempt_replaces_the_answer_of_the_one_before() -> None:
    memory = AnswerMemory(LIMIT)
    scope = memory.open_scope()
    for _ in range(5):
        await scope.open_answer(3).grow(100)
    await scope.open_answer(4).grow(100)
    assert memory.used == 2 * STEP_BYTES
    scope.release_answer(3)
    assert memory.used == STEP_BYTES
    del scope
    assert memory.used == 0, "a scope that is forgotten gives back all"


async def test_large_answers_leave_the_beginnings_of_others_their_room() -> None:
    memory = AnswerMemory(LIMIT)
    scope = memory.open_scope()
    await scope.open_answer(0).grow(BEGINNING_BYTES + memory.rest.limit)
    with pytest.raises(ProviderError) as caught:
        await scope.open_answer(1).grow(BEGINNING_BYTES + 1)
    assert caught.value.failure is NO_ROOM
    await scope.open_answer(2).grow(BEGINNING_BYTES)


async def test_an_answer_that_waits_goes_on_when_another_one_ends() -> None:
    memory = AnswerMemory(LIMIT)
    first, second = memory.open_scope(), memory.open_scope()
    await first.open_answer(0).grow(memory.rest.limit)
    waiting = asyncio.create_task(second.open_answer(0).grow(memory.rest.limit))
    await asyncio.sleep(0)
    first.close()
    await waiting
    assert second._answers[0].size >= memory.rest.limit


async def test_an_answer_released_while_it_waits_keeps_nothing() -> None:
    memory = AnswerMemory(LIMIT)
    first, second = memory.open_scope(), memory.open_scope()
    await first.open_answer(0).grow(memory.rest.limit)
    waiting = asyncio.create_task(second.open_answer(0).grow(memory.rest.limit))
    await asyncio.sleep(0)
    second.close()
    first.close()
    await waiting
    assert memory.used == 0


@pytest.mark.parametrize("seed", range(5))
async def test_the_bound_holds_and_nothing_is_lost_whatever_happens(seed: int) -> None:
    chance, memory = random.Random(seed), AnswerMemory(2**20)
    highest = 0

    async def work() -> None:
        nonlocal highest
        scope = memory.open_scope()
        for index in range(chance.randrange(4)):
            with suppress(ProviderError), scope.open_answer(index) as answer:
                for _ in range(4):
                    await answer.grow(answer.size + chance.randrange(2**18))
                    highest = max(highest, memory.used)
                    await asyncio.sleep(0)
        if chance.random() < 0.5:
            scope.close()

    tasks = [asyncio.create_task(work()) for _ in range(60)]
    for task in chance.sample(tasks, 20):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert 2**19 < highest <= 2**20
    assert memory.used == 0
