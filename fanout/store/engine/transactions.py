"""Store methods that run to their end although their caller was cancelled."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from fanout.store.engine.database import Database

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class HasDatabase(Protocol):
    """A store of some kind."""

    _database: Database


Store = TypeVar("Store", bound=HasDatabase)
Method = Callable[Concatenate[Store, Parameters], Coroutine[Any, Any, Result]]


def run_to_end(method: Method[Store, Parameters, Result]) -> Method[Store, Parameters, Result]:
    """Decorate a store's method so that it is never cut off in the middle of a statement; see `Database.shield`."""

    @wraps(method)
    async def run(self: Store, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return await self._database.shield(method(self, *args, **kwargs))

    return run
