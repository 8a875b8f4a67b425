"""The load of both spikes: chunks of 100 units, each unit called once at a pretended upstream and recorded once."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from typing import Any

UNITS = 100
STEPS = 10
LEASE_S = 5.0
RENEW_S = 1.0
ANSWER = "An answer of some eighty characters, which is what a short classification has. "
CREATE_RECORDS = (
    "CREATE TABLE records (unit integer PRIMARY KEY, epoch integer NOT NULL, answer text NOT NULL);"
    "CREATE INDEX records_by_epoch ON records (epoch) WHERE epoch > 1"
)


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of a worker: URL STEP_S CONCURRENCY."""

    url: str
    step_s: float
    concurrency: int


def read_arguments() -> Arguments:
    url, step_s, concurrency = sys.argv[1:]
    return Arguments(url, float(step_s), int(concurrency))


def report(event: str, chunk: int, *numbers: int) -> None:
    """Tell the bake-off, through a pipe that all workers share; so short a line is written whole or not at all."""
    os.write(1, json.dumps([os.getpid(), event, chunk, *numbers]).encode() + b"\n")


async def call_units(chunk: int, step_s: float) -> list[str]:
    """Pretend to call the units of a chunk, in ten steps that each take `step_s`."""
    steps = STEPS if step_s else 1
    for step in range(steps):
        report("call", chunk, step, UNITS // steps)
        if step_s:
            await asyncio.sleep(step_s)
    return [ANSWER] * UNITS


async def connect(url: str) -> Any:
    """Open a pool of asyncpg's."""
    import asyncpg

    return await asyncpg.create_pool(url, min_size=1, max_size=2, timeout=5, command_timeout=5)
