"""The calls of one request without a task for each: one is made only for a call that must wait for something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from fanout.core.schema import Failure
from fanout.dispatch.in_flight import InFlightCall, Started
from fanout.dispatch.race import CallTask
from fanout.dispatch.retries import Result

if TYPE_CHECKING:
    from fanout.dispatch.call_runner import CallRunner

MAX_STARTED_AT_ONCE = 64
"""Of one request: so many are encoded in some 2 ms. Those behind them get tasks, between which others have their turn."""


class TasklessCalls:
    """Calls that were started where they were made, and end where their answers come.

    A task takes 8 µs, and the steps of its coroutines as much again (2026-11-28).

    Args:
        runner: of the calls.
        create_task: for a call that must wait after all: for a retry, or for an answer that is long.
    """

    def __init__(self, runner: CallRunner, create_task: Callable[..., CallTask]) -> None:
        self._runner, self._create_task = runner, create_task
        self._context = copy_context()
        self._attempts: list[Started] = []
        self._open = 0
        """Calls that have not ended."""
        self._woken: asyncio.Future[None] | None = None

    def start(self, calls: Sequence[InFlightCall]) -> list[InFlightCall]:
        """Start the calls that need not wait, and return the others."""
        others = [running for running in calls[:MAX_STARTED_AT_ONCE] if not self._start(running)]
        return [*others, *calls[MAX_STARTED_AT_ONCE:]]

    async def join(self) -> None:
        """Return when all have ended; end them if this is cancelled."""
        if not self._open:
            return
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        except BaseException:
            # At once, not with the tasks of the group: what ends from now on would ask it for another one.
            for started in self._attempts:
                started.end_now()
            raise

    def _start(self, running: InFlightCall) -> bool:
        """Start a call, or answer it; return whether that needs no task."""
        runner, upstreams = self._runner, running.upstreams
        # Hooks are coroutines.
        if upstreams.has_hooks:
            return False
        if (answer := runner.answer_locally(running.call)) is not None:
            self._finish(running, answer)
            return True
        try:
            started = upstreams.start(running, self._context)
        except Exception as error:
            runner.crash(running, error)
            return True
        if started is None:
            running.may_start = False  # its task need not try, and encode it, once more
            return False
        started.on_end = self._take
        self._open += 1
        self._attempts.append(started)
        runner.running[running] = started
        return True

    def _take(self, started: Started) -> None:
        """Take what an attempt has come to."""
        running, ended = started.running, started.ended
        if started.has_rest or (isinstance(ended, Failure) and running.may_retry(ended)):
            # A rest that has been cut off by its time limit is noticed by the task that was to take it.
            if not (started.has_rest and started.is_done):
                task = self._create_task(self._runner.run_call(running, partial(self._go_on, started)))
                self._runner.running[running] = task
                task.add_done_callback(partial(self._count_end, started))
            return
        if isinstance(ended, Exception):
            self._runner.crash(running, ended)
        else:
            self._finish(running, running.cancelled_as if ended is None else ended)
        self._open -= 1
        if not self._open:
            self._wake()

    def _finish(self, running: InFlightCall, result: Result) -> None:
        try:
            self._runner.finish(running, result)
        except Exception as error:  # a bug in the bookkeeping
            self._runner.crash(running, error)

    async def _go_on(self, started: Started, running: InFlightCall) -> Result:
        """Return the result of a call whose first attempt has ended, or has a rest."""
        return await self._runner.retry(await started.finish(), running)

    def _count_end(self, started: Started, _: object) -> None:
        started.end_now()  # its task may have been cancelled before it took what was left
        self._open -= 1
        if not self._open:
            self._wake()

    def _wake(self) -> None:
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)
