"""Time limits of attempts: all by one timer, and each as `asyncio.timeout` would be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from fanout.dispatch.attempt_clock import AttemptClock


@pytest.fixture
async def clock() -> AsyncIterator[AttemptClock]:
    """A clock that must watch nothing at the end."""
    clock = AttemptClock()
    yield clock
    assert not clock._limits


async def wait_within(clock: AttemptClock, seconds: float, name: str, ends: list[str]) -> None:
    with pytest.raises(TimeoutError), clock.limit(seconds):
        await asyncio.Event().wait()
    ends.append(name)
    await asyncio.sleep(0)  # not cancelled any more
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_attempts_end_at_their_own_limits_in_whatever_order_they_began(clock: AttemptClock) -> None:
    ends: list[str] = []
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for seconds, name in ((0.09, "third"), (0.03, "first"), (3600.0, "never"), (0.06, "second")):
            group.create_task(wait_within(clock, seconds, name, ends))
        while len(ends) < 3:
            await asyncio.sleep(0.005)
        for limit in list(clock._limits):
            limit.expire()
    assert ends == ["first", "second", "third", "never"]


async def test_a_thousand_attempts_have_one_timer(clock: AttemptClock) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def count(*arguments: object, **options: object) -> asyncio.TimerHandle:
        timers.append(arguments)
        return call_at(*arguments, **options)  # type: ignore[arg-type]

    loop.call_at = count  # type: ignore[method-assign]
    for _ in range(1000):
        with clock.limit(60):
            pass
    assert len(timers) == 1


async def test_what_ends_in_time_is_left_alone_by_the_timer_of_what_was_before_it(clock: AttemptClock) -> None:
    with clock.limit(0.01):
        pass
    with clock.limit(10):
        await asyncio.sleep(0.05)


async def test_a_cancellation_by_somebody_else_stays_one(clock: AttemptClock) -> None:
    """Also where the limit was reached in the same turn."""
    for is_expired in (False, True):

        async def wait() -> None:
            with clock.limit(3600):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        if is_expired:
            next(iter(clock._limits)).expire()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_another_exception_of_an_attempt_that_is_cancelled_passes(clock: AttemptClock) -> None:
    """And leaves its task uncancelled."""

    async def wait_and_break() -> None:
        with clock.limit(0.01):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("broken") from None

    async def count_cancellations() -> int:
        with pytest.raises(ValueError, match="broken"):
            await wait_and_break()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        return task.cancelling() if task else -1

    assert await asyncio.create_task(count_cancellations()) == 0
