"""Spike: chunk claims of our own. A claim has a lease that ends by the database's clock, and an epoch that fences its writes.

usage: claims_worker.py URL STEP_S CONCURRENCY
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg
from units import LEASE_S, RENEW_S, Arguments, call_units, connect, read_arguments, report

LEASE = timedelta(seconds=LEASE_S)
CREATE = """
CREATE TABLE chunks (
    number integer PRIMARY KEY, epoch integer NOT NULL DEFAULT 0, lease_until timestamptz, ended boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70);
CREATE INDEX chunks_fresh ON chunks (number) WHERE lease_until IS NULL AND NOT ended;
CREATE INDEX chunks_held ON chunks (lease_until) WHERE lease_until IS NOT NULL AND NOT ended;
"""
PLAN = "INSERT INTO chunks (number) SELECT * FROM generate_series($1::integer, $2::integer)"
CLAIM = """
UPDATE chunks SET epoch = epoch + 1, lease_until = clock_timestamp() + $1
WHERE number = ANY(ARRAY(SELECT number FROM chunks WHERE {which} AND NOT ended ORDER BY number LIMIT $2 FOR UPDATE SKIP LOCKED))
RETURNING number, epoch"""
CLAIM_FRESH = CLAIM.format(which="lease_until IS NULL AND number > $3")
CLAIM_EXPIRED = CLAIM.format(which="lease_until < statement_timestamp()")
RENEW = """
UPDATE chunks SET lease_until = clock_timestamp() + $1 FROM unnest($2::integer[], $3::integer[]) AS held (number, epoch)
WHERE chunks.number = held.number AND chunks.epoch = held.epoch AND NOT ended"""
END = """
WITH held AS (UPDATE chunks SET ended = true WHERE number = $1 AND epoch = $2 AND NOT ended RETURNING number, epoch)
INSERT INTO records SELECT number * 100 + place - 1, epoch, answer
FROM held, unnest($3::text[]) WITH ORDINALITY AS one (answer, place)"""
LOST_CONNECTION = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


class ClaimsWorker:
    """A process that claims chunks, as many at once as it has room for."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._held: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._pool: Any = None
        self._after = -1
        """All chunks up to this one have been claimed: dead versions of their rows are not looked at again."""
        self._look_at = 0.0

    async def run(self) -> None:
        self._pool = await self._ask(lambda: connect(self._arguments.url))
        side = [asyncio.create_task(self._renew()), asyncio.create_task(self._listen())]
        while all(not task.done() for task in side):
            self._news.clear()
            room = self._arguments.concurrency - len(self._tasks)
            if room and (claimed := await self._claim(room)):
                for number, epoch in claimed:
                    self._held[number] = epoch
                    task = asyncio.create_task(self._carry(number, epoch))
                    self._tasks.add(task)
                    task.add_done_callback(self._end)
            elif room:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), RENEW_S)
            else:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._news.set()

    async def _claim(self, room: int) -> list[Any]:
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + RENEW_S
            if found := await self._fetch(CLAIM_EXPIRED, LEASE, room):
                return found
        found = await self._fetch(CLAIM_FRESH, LEASE, room, self._after)
        self._after = max((number for number, _ in found), default=-1)
        return found

    async def _carry(self, number: int, epoch: int) -> None:
        report("start", number, epoch)
        try:
            answers = await call_units(number, self._arguments.step_s)
            status = await self._ask(lambda: self._pool.execute(END, number, epoch, answers))
        finally:  # a lease must not outlive its task: renewed for ever, the chunk would be nobody's
            if self._held.get(number) == epoch:
                del self._held[number]
        report("end" if status == "INSERT 0 100" else "refused", number, epoch)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            if self._held:
                # Those that it knows of: a claim whose answer was lost must run out.
                numbers, epochs = list(self._held), list(self._held.values())
                with suppress(*LOST_CONNECTION):
                    await self._pool.execute(RENEW, LEASE, numbers, epochs)

    async def _listen(self) -> None:
        while True:
            with suppress(*LOST_CONNECTION):
                connection = await asyncpg.connect(self._arguments.url, timeout=5)
                ended = asyncio.Event()
                connection.add_termination_listener(lambda _, ended=ended: ended.set())
                await connection.add_listener("chunks", lambda *_: self._news.set())
                await ended.wait()
            await asyncio.sleep(0.3)

    async def _fetch(self, sql: str, *values: Any) -> list[Any]:
        found: list[Any] = await self._ask(lambda: self._pool.fetch(sql, *values))
        return found

    async def _ask(self, work: Callable[[], Any]) -> Any:
        """Try until the database has answered."""
        while True:
            try:
                return await work()
            except LOST_CONNECTION:
                await asyncio.sleep(0.3)


if __name__ == "__main__":
    asyncio.run(ClaimsWorker(read_arguments()).run())
