"""Transactions whose failures are told as StoreErrors, and which come to their end though whoever asked has left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial, wraps
from typing import Any, TypeVar, cast

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from fanout.core.errors import StoreError
from fanout.store.engine.database import describe_error

Method = TypeVar("Method", bound=Callable[..., Coroutine[Any, Any, Any]])


@asynccontextmanager
async def told(transaction: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> AsyncGenerator[AsyncConnection]:
    """A transaction whose failure is told as a StoreError."""
    try:
        async with transaction() as connection:
            yield connection
    except (SQLAlchemyError, OSError) as error:
        raise StoreError(describe_error(error)) from error


def run_to_end(method: Method) -> Method:
    """A method that runs to its end in a task of its own, also where its caller is cancelled; `_database` waits for it.

    A statement that is cut off takes its connection with it, and a database in memory is its connection.
    """

    @wraps(method)
    async def shielded(self: Any, *args: Any, **kwargs: Any) -> Any:
        task = asyncio.create_task(method(self, *args, **kwargs), name=method.__name__)
        running: set[asyncio.Task[Any]] = self._database.running
        running.add(task)
        task.add_done_callback(partial(_ended, running))
        return await asyncio.shield(task)

    return cast(Method, shielded)


def _ended(running: set[asyncio.Task[Any]], task: asyncio.Task[Any]) -> None:
    running.discard(task)
    if not task.cancelled():
        task.exception()  # or asyncio complains where nobody waits for it any more
