"""Threads for work that would hold up the event loop: a pool for each kind of work, so that none starves another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import cache, partial
from typing import Literal, ParamSpec, TypeVar

WorkKind = Literal[
    "answers", "bodies", "calls", "embedded", "exports", "figures", "inputs", "records", "reports", "scoring", "setup"
]
THREADS: Mapping[WorkKind, int] = {
    "answers": 2,  # answers that are compressed
    "bodies": 2,  # request bodies that are validated or hashed
    "calls": 4,  # requests to providers, and their answers, that are written and read
    "embedded": 1,  # tokens of the embedded models that take long
    "exports": 4,  # results that are written as files
    "figures": 1,  # the page of metrics
    "inputs": 4,  # files of rows that are read
    "records": 2,  # the history
    "reports": 2,  # statistics of jobs
    "scoring": 2,  # scorers, whose patterns may take long: more threads would only wait for the interpreter
    "setup": 4,  # what is loaded once: prices, credentials, the embedded models
}
"""Threads of each kind. Host names are looked up in others: see `providers/transport/resolver.py`."""
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Item = TypeVar("Item")


class _Caller:
    """Whoever waits for a function that runs in a thread."""

    __slots__ = ("has_left",)

    def __init__(self) -> None:
        self.has_left = False


_CALLER: ContextVar[_Caller | None] = ContextVar("caller", default=None)


@cache
def _get_pool(kind: WorkKind) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS[kind], thread_name_prefix=kind)


async def run_in_thread(
    kind: WorkKind, function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Return what a function returns that runs in a thread of its kind, with the caller's context variables.

    If the caller is cancelled while the function waits for a thread, it is never run. One that runs is not interrupted: long
    work is split into steps, or looks by itself whether it is still wanted: see `while_wanted`.
    """
    caller, context = _Caller(), copy_context()
    context.run(_CALLER.set, caller)
    try:
        return await asyncio.get_running_loop().run_in_executor(
            _get_pool(kind), partial(context.run, function, *args, **kwargs)
        )
    except asyncio.CancelledError:
        # The thread cannot be ended from here; what it runs may ask.
        caller.has_left = True
        raise


def while_wanted(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items for as long as somebody waits for the function that runs in this thread; then raise `CancelledError`."""
    caller = _CALLER.get()
    for item in items:
        if caller is not None and caller.has_left:
            raise asyncio.CancelledError
        yield item
