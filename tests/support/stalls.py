"""Stalls of the event loop: on a busy machine, timed events are late by so much and no more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

STEP_S = 0.005


@dataclass
class Stalls:
    """The longest stall seen so far."""

    longest_s: float = 0.0

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + STEP_S
            try:
                await asyncio.sleep(STEP_S)
            finally:
                self.longest_s = max(self.longest_s, time.monotonic() - due)


@asynccontextmanager
async def watch_stalls() -> AsyncGenerator[Stalls]:
    """Measure stalls while the context lasts."""
    seen = Stalls()
    watching = asyncio.create_task(seen.watch())
    try:
        yield seen
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
