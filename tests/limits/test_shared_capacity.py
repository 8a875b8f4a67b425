"""A capacity that tasks share: bounded, in order, and whole again whoever is cancelled."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from fanout.limits.shared_capacity import SharedCapacity


async def test_units_are_given_in_the_order_of_waiting() -> None:
    """A small wish does not pass a large one, which would wait for ever."""
    capacity, order = SharedCapacity(10), list[str]()

    async def work(name: str, units: int) -> None:
        async with capacity.hold(units):
            order.append(name)
            await asyncio.sleep(0)

    assert capacity.take_now(5)
    async with asyncio.TaskGroup() as group:
        for name, units in (("large", 9), ("small", 1), ("too large", 99)):
            group.create_task(work(name, units))
        await asyncio.sleep(0.01)
        assert order == []
        assert not capacity.take_now(1), "it passed those that wait"
        capacity.give_back(5)
    assert (order, capacity.used) == (["large", "small", "too large"], 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 3), st.booleans()), max_size=20))
def test_the_capacity_is_never_exceeded_and_whole_again_in_the_end(wishes: list[tuple[int, int, bool]]) -> None:
    capacity = SharedCapacity(12)

    async def work(units: int, steps: int) -> None:
        async with capacity.hold(units):
            assert capacity.used <= capacity.limit
            for _ in range(steps):
                await asyncio.sleep(0)

    async def run() -> None:
        tasks = [(asyncio.create_task(work(units, steps)), is_left) for units, steps, is_left in wishes]
        for task, is_left in tasks:
            await asyncio.sleep(0)
            if is_left:
                task.cancel()
        await asyncio.gather(*(task for task, _ in tasks), return_exceptions=True)
        assert capacity.used == 0
        assert capacity.take_now(12)

    asyncio.run(run())
