"""The memory of answers: within its bound, and whole again whoever fails, leaves or is released twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from fanout.core.errors import ProviderError
from fanout.limits import shared_room
from fanout.limits.answer_memory import BEGINNING_BYTES, NO_ROOM, STEP_BYTES, AnswerMemory, AnswerScope

LIMIT = 4 * 2**20


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_room, "MAX_STALL_S", 0.01)


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
    with scope.open_answer(0) as answer:
        await answer.grow(BEGINNING_BYTES + memory.rest.limit)
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


async def test_answers_of_unknown_length_that_grow_side_by_side_all_come_to_their_end() -> None:
    """Together they fit only one after the other: none may wait for the part of another that waits for its own."""
    memory, most = AnswerMemory(LIMIT), LIMIT // 4
    ended = 0

    async def read() -> None:
        nonlocal ended
        scope = memory.open_scope()
        with scope.open_answer(0) as answer:
            for size in range(0, most + 1, STEP_BYTES * 4):
                if size > answer.size:
                    await answer.grow(size, most)
                await asyncio.sleep(0)
            ended += 1
        scope.close()

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(read())
    assert (ended, memory.used) == (20, 0)


async def test_an_answer_waits_as_long_as_another_grows_and_gives_back_what_it_did_not_need() -> None:
    memory = AnswerMemory(LIMIT)
    scopes = [memory.open_scope() for _ in range(2)]
    first, second = (scope.open_answer(0) for scope in scopes)
    await first.grow(memory.rest.limit // 2 + 2 * BEGINNING_BYTES, LIMIT)
    assert memory.rest.used == memory.rest.limit, "all that it may need"
    waiting = asyncio.create_task(second.grow(2 * BEGINNING_BYTES, LIMIT))
    await asyncio.sleep(4 * shared_room.MAX_STALL_S)
    assert not waiting.done()
    first.end(2 * BEGINNING_BYTES)
    await waiting
    assert memory.rest.used == 2 * BEGINNING_BYTES


async def test_where_nothing_grows_the_latest_request_fails_and_the_others_go_on() -> None:
    """Each holds an answer that has ended, and waits for room for another one."""
    memory = AnswerMemory(LIMIT)
    scopes = [memory.open_scope() for _ in range(2)]
    half = memory.rest.limit // 2

    async def ask(scope: AnswerScope) -> None:
        with scope.open_answer(0) as answer:
            await answer.grow(BEGINNING_BYTES + half)
        try:
            await asyncio.gather(*(scope.open_answer(index).grow(2 * BEGINNING_BYTES) for index in (1, 2)))
        finally:
            scope.close()

    outcomes = await asyncio.gather(*map(ask, scopes), return_exceptions=True)
    assert outcomes[0] is None
    assert isinstance(outcomes[1], ProviderError)
    assert outcomes[1].failure is NO_ROOM
    await asyncio.sleep(0)
    del scopes
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
