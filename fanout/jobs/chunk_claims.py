"""Chunks of one job that this process has taken, and what goes on in each of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from fanout.core.errors import LeaseLostError, StoreError
from fanout.jobs.claims import Claim, WaitForStore
from fanout.jobs.job import Job
from fanout.jobs.model_queues import ModelQueue
from fanout.jobs.pending_unit import PendingUnit
from fanout.jobs.stopping import LOOKAHEAD_ITEMS
from fanout.store.jobs.job_store import JobStore
from fanout.store.jobs.records import Chunk, ChunkLoad, Fence, InputItem, JobState, Place, Standing, Unit

MAX_HELD_CHUNKS = 16
"""Of one job: as far as a fast model may be ahead of a slow one, and as much as others then have to wait for."""
MAX_CLAIMED_CHUNKS = 4
"""In one statement."""
WATCHED_ITEMS = LOOKAHEAD_ITEMS // 4
"""In a chunk of a job that stops when it is decided: its items end nearly in their order."""
AHEAD_S = 1.0
"""Time for which a claim lasts, at the recent rate."""


@dataclass(slots=True, eq=False)
class HeldChunk:
    """A chunk that this process has."""

    chunk: Chunk
    read: int = 0
    """Of its items."""
    planned: int = 0
    open: dict[Place, ModelQueue] = field(default_factory=dict)
    """Units that are to be sent and have not ended."""
    running: int = 0
    """Calls in flight."""
    left_open: dict[str, None] = field(default_factory=dict)
    """Why units of it are not sent."""
    is_ending: bool = False

    @property
    def unread(self) -> range:
        """The places that were not read yet."""
        return range(self.chunk.first + self.read, self.chunk.first + self.chunk.size)

    def count_read(self, items: int) -> None:
        """Count items that were read; none, if there is nothing at the places that are left."""
        if not items:
            self.planned += len(self.unread)
        self.read += items or len(self.unread)

    @property
    def is_done(self) -> bool:
        return self.planned >= self.chunk.size and not self.open and not self.running

    def drop(self, is_hopeless: Callable[[Place, ModelQueue], bool]) -> bool:
        """Forget units that will not be sent; return whether there were any."""
        count = len(self.open)
        self.open = {place: queue for place, queue in self.open.items() if not is_hopeless(place, queue)}
        return len(self.open) < count


class ChunkClaims:
    """The chunks of one job that this process has taken, one after the other, each as soon as there is room for it."""

    is_shared = True

    def __init__(self, store: JobStore, job: Job, owner: str) -> None:
        self._store, self._job, self._owner = store, job, owner
        self._held: dict[int, HeldChunk] = {}
        self._by_item: dict[int, HeldChunk] = {}
        self._unread: deque[HeldChunk] = deque()
        self._dead_owners = set(job.dead_owners)
        self._changed = asyncio.Event()
        self._wanted: tuple[JobState, str | None] | None = None
        """The end of the whole job, to be written."""
        self._is_leaving = False
        self._rate, self._chunk_items = 0.0, 1
        self._cut: int | None = None
        self._version = 0
        """Changes whenever a claim could find more than the last one."""
        self.get_reach: Callable[[], int] = lambda: job.items
        """Number of items, in the job's order, that may be sent by now."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when there may be more to read."""
        self.wait_for_store: WaitForStore = lambda transaction: transaction()

    async def start(self) -> bool:
        await self._claim(1)
        return bool(self._held)

    def poke(self, dead_owners: Iterable[str] = ()) -> None:
        """Look at the job at once: something of it has changed, or processes that had chunks of it are known to be dead."""
        self._dead_owners |= {*dead_owners}
        self._changed.set()
        self._tell()

    def _tell(self) -> None:
        self._version += 1
        self.on_change()

    async def take_places(self, after: int, limit: int) -> range | None:
        version = -1
        while not self._is_leaving and version != self._version:
            await self._end_chunks()
            if places := self._list_places(limit):
                return places
            version = self._version
            if len(self._held) < MAX_HELD_CHUNKS:
                await self.wait_for_store(lambda: self._claim(self._size_claim()))
            if not self._is_leaving and (places := self._list_places(limit)):
                return places
        is_at_end = not (self._held or self._is_leaving) and self.get_reach() >= self._job.items
        return range(0) if is_at_end else None

    def _list_places(self, limit: int) -> range:
        """Return the places that may be read next."""
        unread = self._unread[0].unread[:limit] if self._unread else range(0)
        return range(unread.start, min(unread.stop, self.get_reach()))

    def _size_claim(self) -> int:
        """Return the number of chunks that are worked through in `AHEAD_S`."""
        units = max(self._job.units // max(self._job.items, 1), 1) * self._chunk_items
        return max(min(int(self._rate * AHEAD_S / units), MAX_CLAIMED_CHUNKS, MAX_HELD_CHUNKS - len(self._held)), 1)

    async def _claim(self, most: int) -> None:
        found = await self._store.chunks.claim(
            *(self._job.number, self._owner, most),
            held=self._held.keys(),
            dead_owners=self._dead_owners,
            reach=self.get_reach(),
            size=WATCHED_ITEMS if self._job.spec.until_decided else None,
        )
        for chunk in found:
            self._held[chunk.number] = held = HeldChunk(chunk)
            self._unread.append(held)
            self._chunk_items, self._cut = max(self._chunk_items, chunk.size), chunk.cut
        # What a dead process has left comes before what may not be sent yet.
        self._unread = deque(sorted(self._unread, key=lambda held: held.chunk.number))

    def note_read(self, places: range, items: Sequence[InputItem]) -> bool:
        held = next((held for held in self._unread if held.unread.start == places.start), None)
        if held is None:  # it was given back while they were read
            return False
        held.count_read(len(items))
        self._by_item.update((item.item, held) for item in items)
        if not held.unread:
            self._unread.remove(held)
        return bool(items)

    def add_units(self, item: int, units: Mapping[Place, ModelQueue], closed_because: str | None, left_out: int) -> None:
        if (held := self._by_item.get(item)) is None:  # given back: the claim lets none of them begin
            return
        sent = {place: queue for place, queue in units.items() if not queue.closed_because}
        held.open |= sent
        held.planned += 1
        if closed_because and (left_out or len(sent) < len(units)):
            held.left_open[closed_because] = None

    def drop_units(self, fusions: Sequence[Place], closed_because: str | None) -> None:
        dropped = {*fusions}
        for held in self._held.values():
            if held.drop(lambda place, of: bool(of.closed_because) or place in dropped) and closed_because:
                held.left_open[closed_because] = None
        self._changed.set()

    def drop_entries(self, is_dropped: Callable[[int], bool]) -> None:
        for held in self._held.values():
            held.drop(lambda place, _: is_dropped(place[1]))
        self._changed.set()

    def get_fence(self, item: int) -> Fence:
        held = self._by_item.get(item)
        if held is None:
            raise LeaseLostError
        return Fence(held.chunk.number, held.chunk.epoch)

    def begin(self, unit: Unit) -> bool:
        held = self._by_item.get(unit.item)
        if held is None or self._is_leaving:
            return False
        held.running += 1
        return True

    def leave(self, unit: Unit) -> None:
        held = self._by_item[unit.item]
        held.running -= 1
        if self._is_leaving and not held.running:
            self._changed.set()

    async def end(self, unit: PendingUnit) -> None:
        held = self._by_item.get(unit.unit.item)
        if held and unit.has_ended:
            held.open.pop(unit.unit[1:], None)
            await self._end_chunks()

    async def _end_chunks(self) -> None:
        """End the chunks of which nothing more is to be sent."""
        for held in [held for held in self._held.values() if held.is_done and not held.is_ending]:
            held.is_ending = True
            reason = "; ".join(held.left_open) or None
            if not await self.wait_for_store(partial(self._store.chunks.end, self._job.number, held.chunk, reason)):
                raise LeaseLostError
            self._forget(held)
            self._tell()

    def _forget(self, held: HeldChunk) -> None:
        del self._held[held.chunk.number]
        self._by_item = {item: of for item, of in self._by_item.items() if of is not held}
        if held in self._unread:
            self._unread.remove(held)

    async def renew(self, rate: float | None, waiting: int) -> Standing | None:
        self._rate = rate or 0.0
        if self._wanted:
            await self._store.chunks.request_end(self._job.number, *self._wanted, self._cut)
            self._wanted = None
        await self._end_chunks()
        if self._is_leaving:
            await self._release(held for held in self._held.values() if not held.running)
        renewed = [held for held in self._held.values() if not held.is_ending]
        share = None if rate is None else rate / max(len(renewed), 1)
        loads = [
            ChunkLoad(held.chunk.number, held.chunk.epoch, held.running, 0 if number else waiting, share)
            for number, held in enumerate(renewed)
        ]
        standing, kept = await self._store.chunks.renew(self._job.number, loads)
        lost = {held.chunk.number for held in self._held.values() if held in renewed and not held.is_ending} - kept
        if not (self._unread or self._is_leaving):  # others may have given chunks back, and nobody here listens
            self._tell()
        return None if lost else standing

    async def wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    def stop(self, state: JobState, reason: str | None) -> None:
        self._is_leaving = True
        if state not in ("queued", "cancelled"):
            self._wanted = state, reason
        self._changed.set()

    async def finish(self, state: JobState, reason: str | None) -> bool:
        self.stop(state, reason)
        if self._wanted:
            await self._store.chunks.request_end(self._job.number, *self._wanted, self._cut)
        await self._end_chunks()
        await self._release(self._held.values())
        return await self._store.chunks.close(self._job.number, [self._owner, *self._dead_owners]) is not None

    async def abandon(self) -> None:
        with suppress(StoreError):  # then their leases run out
            await self._release(self._held.values())
            await self._store.chunks.close(self._job.number, [self._owner, *self._dead_owners])

    async def _release(self, some: Iterable[HeldChunk]) -> None:
        released = [held for held in some if not held.is_ending]
        for held in released:  # before it is written: nothing more of them may begin
            self._forget(held)
        await self._store.chunks.release(self._job.number, [held.chunk for held in released])


def count_chunks(claim: Claim) -> int | None:
    """Return the number of chunks that this process has now; `None`: it has the whole job."""
    return len(claim._held) if isinstance(claim, ChunkClaims) else None
