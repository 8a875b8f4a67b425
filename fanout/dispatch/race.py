"""The race between the entries of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fanout.core.schema import Call, Completion, Outcome

CallTask = asyncio.Task[Outcome]


class Race:
    """A race between entries: once enough of them have answered, the calls that still run are cancelled.

    An entry has answered when all its calls have ended and at least one gave an answer.
    """

    def __init__(self, calls: Iterable[Call], return_when: int | None) -> None:
        self._wanted = return_when
        self._unfinished: dict[int, int] = {}
        for call in calls:
            if not call.is_member:  # nobody waits for it but a fusion
                self._unfinished[call.entry] = self._unfinished.get(call.entry, 0) + 1
        self._answered: set[int] = set()
        self._tasks: list[CallTask] = []

    def add(self, task: asyncio.Task[Outcome]) -> None:
        """Add a call's task to the race."""
        if self._wanted is not None:  # without it no call is ever cancelled
            self._tasks.append(task)
            task.add_done_callback(self._judge)

    def _judge(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled() or task.exception() or self._wanted is None:
            return
        outcome = task.result()
        entry = outcome.call.entry
        if entry not in self._unfinished:
            return
        self._unfinished[entry] -= 1
        if isinstance(outcome.result, Completion):
            self._answered.add(entry)
        if sum(not self._unfinished[answered] for answered in self._answered) >= self._wanted:
            for other in self._tasks:
                other.cancel()  # has no effect on tasks that have ended
