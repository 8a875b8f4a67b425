"""Feed of a job's units: one reader of its input for all model queues, so that each row is planned once for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

from fanout.jobs.job import Job
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.store.jobs.inputs import ROWS_AT_ONCE
from fanout.store.jobs.records import InputChunk, InputItem

MAX_BUFFERED_UNITS = 4_096
"""Units planned ahead, in all queues of a job together."""
MAX_BUFFERED_BYTES = 64 * 2**20
"""Bytes of the rows of buffered units; an empty queue always gets one unit, even above this limit."""

ReadChunk = Callable[[int, int], Awaitable[InputChunk | None]]
"""Reads the items after a place, up to a count; `None`: there are none for now."""
ReadItems = Callable[[Sequence[int], Sequence[int] | None], Awaitable[InputChunk]]
"""Reads items by number, with their recorded results; limited to the given entries, if any."""
PlanItem = Callable[[InputItem, InputChunk, Sequence[int] | None], Iterable[tuple[ModelQueue, PendingUnit]]]
"""Plans the open units of an item; limited to the given entries, if any."""


class UnitFeed:
    """The reader of one job's input. When any queue runs empty, the feed reads more rows and fills every queue that has room.

    For a queue without room the feed keeps only the numbers of its rows, and reads these rows again when the queue is
    empty, so a slow model does not block the others, and its units take no memory.
    """

    def __init__(
        self, job: Job, queues: Sequence[ModelQueue], read_chunk: ReadChunk, read_items: ReadItems, plan_item: PlanItem
    ) -> None:
        self._queues, self._read_chunk, self._read_items, self._plan_item = queues, read_chunk, read_items, plan_item
        units_of_item = -(-job.units // max(job.items, 1))
        self._max_rows = min(max(MAX_BUFFERED_UNITS // max(units_of_item, 1), 1), ROWS_AT_ONCE)
        self._chunk_rows = 1  # doubled with each chunk: the first call need not wait for hundreds of rows
        self._share = max(MAX_BUFFERED_UNITS // max(len(queues), 1), 1)
        self._buffered_units = self._buffered_bytes = 0
        self._after = -1
        """The last item that was read, by its place in the job's order."""
        self.limit: Callable[[], int] | None = None
        """Number of items that may be read by now; `None`: all."""
        self.is_full: Callable[[], bool] = lambda: False
        """Tells that no further row may be read, because too many fusions wait."""
        self._is_at_end = self._is_closed = False
        self._lock = asyncio.Lock()

    def close(self) -> None:
        """Stop reading."""
        self._is_closed = True

    async def take(self, queue: ModelQueue) -> PendingUnit | None:
        """Return the next new unit of a queue, or `None` if the queue is exhausted or closed."""
        if not queue.buffer:
            await self._refill(queue)
        if not queue.buffer:
            return None
        unit = queue.buffer.popleft()
        self._buffered_units -= 1
        self._buffered_bytes -= unit.row_bytes
        return unit

    async def _refill(self, queue: ModelQueue) -> None:
        async with self._lock:
            # While this waited for the lock, another queue's refill may have filled this queue.
            while not (queue.buffer or queue.exhausted or queue.closed_because or self._is_closed):
                if queue.backlog:
                    await self._read_backlog(queue)
                elif self._is_at_end:
                    queue.exhausted = True
                elif self.is_full() or (left := self._count_allowed_units()) <= 0 or not await self._read_on(left):
                    queue.is_ahead = True
                    return

    def _count_allowed_units(self) -> int:
        return self._max_rows if self.limit is None else self.limit() - self._after - 1

    async def _read_on(self, most: int) -> bool:
        """Read and plan the next rows for all queues; return whether there may be more now."""
        chunk = await self._read_chunk(self._after, min(self._chunk_rows, most))
        if chunk is None:
            return False
        self._is_at_end = not chunk.items
        self._chunk_rows = min(2 * self._chunk_rows, self._max_rows)
        for item in chunk.items:
            await asyncio.sleep(0)  # planning a whole chunk at once would block the event loop
            found: dict[int, tuple[ModelQueue, list[PendingUnit]]] = {}
            for queue, unit in self._plan_item(item, chunk, None):
                found.setdefault(id(queue), (queue, []))[1].append(unit)
            for queue, units in found.values():
                if self._has_room(queue):
                    self._put(queue, units)
                elif not queue.closed_because:  # the units of a closed queue stay open for a later run
                    queue.backlog.append(item.item)
            self._after += 1
        return True

    async def _read_backlog(self, queue: ModelQueue) -> None:
        """Read again the next rows that a queue had no room for, and plan the units of this queue."""
        numbers = queue.backlog.peek(min(self._share, ROWS_AT_ONCE))
        chunk = await self._read_items(numbers, queue.entries)
        for item in chunk.items:
            await asyncio.sleep(0)
            self._put(queue, [unit for of, unit in self._plan_item(item, chunk, queue.entries) if of is queue])
            queue.backlog.drop_first()

    def _put(self, queue: ModelQueue, units: Sequence[PendingUnit]) -> None:
        queue.buffer.extend(units)
        self._buffered_units += len(units)
        self._buffered_bytes += sum(unit.row_bytes for unit in units)

    def _has_room(self, queue: ModelQueue) -> bool:
        if queue.backlog or queue.closed_because:  # keeps the order: earlier rows are already waiting
            return False
        # More than its share while the others leave room: models of one speed drift apart, and what had no room is read and
        # planned again, as is all that follows until the queue has caught up.
        has_share = len(queue.buffer) < self._share or self._buffered_units < MAX_BUFFERED_UNITS
        return not queue.buffer or (has_share and self._buffered_bytes < MAX_BUFFERED_BYTES)
