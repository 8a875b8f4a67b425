"""Reading that comes to its end: whoever asked may leave, but a statement that is cut off takes its connection with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from fanout.core.errors import StoreError
from fanout.store.engine.database import describe_error

Answer = TypeVar("Answer")


class Readings:
    """Readings under way, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def of(self, reading: Coroutine[Any, Any, Answer]) -> Answer:
        """What a reading gives.

        Raises:
            StoreError: the database cannot be read.
        """
        task = asyncio.create_task(reading, name="reading")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        try:
            return await asyncio.shield(task)
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(describe_error(error)) from error

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # or asyncio complains where nobody waited for it any more

    async def ended(self) -> None:
        """Returns once none is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
