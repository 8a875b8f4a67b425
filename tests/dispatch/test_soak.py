"""2,000 requests, of which a fifth meet a fault, half are streamed and a tenth are abandoned by their client, leave nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.server.lifecycle import LIFECYCLE
from tests.support.builders.settings import write_providers_file
from tests.support.server import Server, serve
from tests.support.upstream.script import FAULT_SCRIPTS
from tests.support.upstream.server import Upstream, reserve_refusing_url

REQUESTS, QUARTERS, CLIENTS = 2_000, 4, 40
FAULTS = [*(f"up/{fault}" for fault in FAULT_SCRIPTS if fault not in ("ok", "mb-50")), "gone/refused"]
MAX_NEW_BYTES = 4 * 2**20
"""Growth of the process that is allowed from the second to the last quarter: 4 KiB a request."""
MAX_NEW_OBJECTS = 400
"""Growth that is allowed in objects known to the collector: less than one for each streamed request."""


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Memory in use after a quarter of the requests."""

    objects: int
    resident_bytes: int


def count_open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def settle(server: Server, upstream: Upstream, log_lines: list[str], idle: tuple[int, int]) -> Leftovers:
    """Wait until no request, connection, task or file is left, which must be soon, and count."""
    await upstream.wait_until_idle()
    for connection in tuple(upstream._open):  # those that wait to be used again
        connection.transport.close()
    async with asyncio.timeout(15):
        while server.app[LIFECYCLE].running_requests or not (
            count_open_files() <= idle[0] and len(asyncio.all_tasks()) <= idle[1]
        ):
            await asyncio.sleep(0.01)
    assert server.in_flight == 0
    assert all(limiter.is_idle for limiter in server.dispatcher.limiters)
    assert not any('"level":"error"' in line for line in log_lines)
    log_lines.clear()
    upstream.requests.clear()
    gc.collect()
    return Leftovers(
        objects=len(gc.get_objects()),
        resident_bytes=int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
    )


async def send_quarter(url: str, dice: random.Random) -> Counter[str]:
    """Send a quarter of the requests through `CLIENTS` clients; return how they ended."""
    ends: Counter[str] = Counter()
    numbers = iter(range(REQUESTS // QUARTERS))

    async def run_client() -> None:
        async with aiohttp.ClientSession(url) as session:
            for _ in numbers:
                ends[await send_random_request(session, dice)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(run_client())
    return ends


async def send_random_request(session: aiohttp.ClientSession, dice: random.Random) -> str:
    fault, leaves, stream = dice.random() < 0.2, dice.random() < 0.1, dice.random() < 0.5
    models = ["up/chunks-9", dice.choice(FAULTS) if fault else "up/say-hello"]
    dice.shuffle(models)
    body: dict[str, Any] = {"prompt": "hi", "model": models, "stream": stream, "timeout_s": 30}
    with suppress(TimeoutError):
        async with asyncio.timeout(dice.uniform(0, 0.02) if leaves else None):
            async with session.post("/v1/completion", json=body) as response:
                answer = await response.read()
                whole = answer.endswith(b"data: [DONE]\n\n") if stream else response.status == 200
                return "fault" if whole and fault else "whole" if whole else f"status {response.status}"
    return "left"


async def test_two_thousand_requests_leave_nothing_behind(
    upstream: Upstream, tmp_path: Path, log_lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, "asyncio")  # it warns, and pytest keeps it, when the upstream writes to who has left
    dice = random.Random(2026)
    row = {"timeout_s": 1, "retries": {"attempts": 2, "max_delay_s": 0.02}, "limits": {"concurrency": 64}}
    files = count_open_files()
    with reserve_refusing_url() as gone:
        more = {"providers": {"gone": {"adapter": "openai", "base_url": gone, **row}}}
        async with serve(write_providers_file(upstream.url, tmp_path, more=more, **row)) as server:
            idle, ends, found = (count_open_files(), len(asyncio.all_tasks())), Counter[str](), []
            for _ in range(QUARTERS):
                ends += await send_quarter(server.url, dice)
                found.append(await settle(server, upstream, log_lines, idle))
        await upstream.wait_until_closed()

    assert ends.keys() == {"whole", "fault", "left"}
    assert ends.total() == REQUESTS
    assert min(ends["fault"], ends["left"]) > REQUESTS / 20
    assert count_open_files() == files
    assert found[-1].objects - found[1].objects < MAX_NEW_OBJECTS
    assert found[-1].resident_bytes - found[1].resident_bytes < MAX_NEW_BYTES
