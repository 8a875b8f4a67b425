"""Threads for scoring and statistics: their own and few, so that files and databases never wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

THREADS = 2
"""A pattern that takes long holds up one of them; more would only wait for the interpreter."""
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="evaluate")


async def run_in_thread(
    function: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Return a function's result, from one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(_threads(), lambda: function(*args, **kwargs))
