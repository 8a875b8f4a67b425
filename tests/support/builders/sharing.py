"""Processes that share a store: each a store and a dispatcher of its own, before one upstream that counts what arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from fanout.store.limits.sharing import SharedLimits
from fanout.store.opening import LIMITS_SUFFIX, open_store
from tests.support.builders.dispatcher import ObservedDispatcher, open_observed_dispatcher
from tests.support.upstream.server import Upstream

PROCESSES = 3


@asynccontextmanager
async def open_processes(
    location: str, upstream: Upstream, folder: Path, **limits: Any
) -> AsyncGenerator[list[ObservedDispatcher]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(PROCESSES):
            store = await stack.enter_async_context(open_store(location, shares_limits=True))
            assert store
            assert store.limits
            opened.append(
                await stack.enter_async_context(open_observed_dispatcher(upstream.url, folder, sharing=store.limits, **limits))
            )
        yield opened


def find_shared(process: ObservedDispatcher) -> SharedLimits:
    """Return what a process shares with the others."""
    limits = process.dispatcher.limiters.sharing
    assert isinstance(limits, SharedLimits)
    return limits


def find_limits_location(location: str) -> str:
    """Return the location of what processes share of their limits: of a file's processes, a file beside it."""
    return location if location.startswith("postgresql") else f"{location}{LIMITS_SUFFIX}"
