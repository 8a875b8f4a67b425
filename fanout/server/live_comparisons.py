"""Streams that can be taken up again: their calls run in a task of their own, and their events are kept for a while."""

from __future__ import annotations

import asyncio
import time
import zlib
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from aiohttp import web

from fanout.core.schema import Call, Completion, Failure, Outcome
from fanout.core.threads import run_in_thread
from fanout.rendering.errors import render_all_failed
from fanout.rendering.history import CLIENT_LEFT
from fanout.server import event_stream
from fanout.server.accounts.admission import ADMISSION
from fanout.server.event_stream import PING, PING_INTERVAL_S, READER_GRACE_S, EventEncoder
from fanout.server.excess import list_excess
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import history
from fanout.server.middleware.history import REQUEST_OUTCOMES, RequestOutcomes
from fanout.server.middleware.request_log import find_route
from fanout.server.responses import error_response

ABANDONED_S = 60.0
"""Time that the calls go on without any reader; then they are cancelled, as those of any other stream are at once."""
KEPT_S = 600.0
"""Time that the events of an ended stream are kept."""
MAX_STREAM_BYTES = 8 * 2**20
"""Events of one stream, nearly all of them compressed; beyond it the oldest are dropped."""
MAX_KEPT_BYTES = 128 * 2**20
"""Compressed events of all ended streams; beyond it the streams that ended first are dropped."""
MAX_ABANDONED = 64
"""Streams that go on without a reader; beyond it the one left first is cancelled."""
BLOCK_EVENTS, BLOCK_BYTES = 256, 64 * 1024
"""Events that are compressed together: so many, or so long."""
CANCELLED = Failure("cancelled", "stopped by the caller", code="cancelled")


class EventLog:
    """Numbered events. Full blocks are compressed, because events repeat all but a few bytes: to about a twentieth."""

    def __init__(self) -> None:
        self.last = 0
        """Number of the last event; the first is 1."""
        self.bytes = 0
        """Memory of the events, compressed or not."""
        self._blocks: deque[_Block] = deque()
        self._open: list[bytes] = []
        """Events that follow the last block."""
        self._open_bytes = 0

    async def append(self, frame: bytes) -> None:
        """Append the events of a frame, each with its number as `id`."""
        for event in frame.split(b"\n\n")[:-1]:
            self.last += 1
            self._open.append(b"id: %d\n%s\n\n" % (self.last, event))
            self.bytes += len(self._open[-1])
            self._open_bytes += len(self._open[-1])
            if len(self._open) == BLOCK_EVENTS or self._open_bytes > BLOCK_BYTES:
                await self.pack()
        while self.bytes > MAX_STREAM_BYTES and self._blocks:
            self.bytes -= len(self._blocks.popleft().packed)

    async def pack(self) -> None:
        """Make a block of the events that follow the last one."""
        if not self._open:
            return
        data = b"".join(self._open)
        is_short = len(data) <= 2 * BLOCK_BYTES  # else compressing it would hold up the event loop
        packed = zlib.compress(data, 1) if is_short else await run_in_thread("answers", zlib.compress, data, 1)
        self._blocks.append(_Block(self.last, packed))
        self.bytes += len(packed) - len(data)
        self._open.clear()
        self._open_bytes = 0

    def read(self, after: int) -> tuple[bytes, int] | None:
        """Return events that follow number `after`, at most a block, and the number of the last; `None`: they are dropped."""
        number = bisect_right(self._blocks, after, key=lambda block: block.last)
        if number < len(self._blocks):
            last, packed = self._blocks[number]
            events, wanted = zlib.decompress(packed).split(b"\n\n")[:-1], last - after
            if wanted > len(events):
                return None
            return b"".join(event + b"\n\n" for event in events[len(events) - wanted :]), last
        wanted = self.last - after
        return None if wanted > len(self._open) else (b"".join(self._open[len(self._open) - wanted :]), self.last)


class _Block(NamedTuple):
    """Compressed events, up to the number `last`."""

    last: int
    packed: bytes


class LiveComparison:
    """A comparison that runs without its request, and the sink of its stream."""

    def __init__(self, id_: str, account_id: str | None, calls: Sequence[Call]) -> None:
        self.id, self.account_id, self.calls = id_, account_id, calls
        self.log = EventLog()
        self.readers = 0
        self.left_at = time.monotonic()
        """Time at which the last reader left."""
        self._timer: asyncio.TimerHandle | None = None
        self.ended_at: float | None = None
        self.has_started = asyncio.Event()
        """Set once the status is known: something is sent, or every call has failed."""
        self.refused: Sequence[Outcome] | None = None
        """Outcomes, if every call failed before anything was sent."""
        self.collected = RequestOutcomes()
        self.task: asyncio.Task[None]
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Let the readers send their heads."""
        self.has_started.set()

    async def write(self, data: bytes) -> None:
        """Append a frame. Comments are the readers' own."""
        if data != PING:
            await self.log.append(data)
            self._notify()

    async def write_eof(self, data: bytes = b"") -> None:
        """Append the last frame."""
        await self.log.append(data)
        await self.log.pack()

    def join(self) -> None:
        """Count a reader."""
        self.readers += 1
        if self._timer:
            self._timer.cancel()

    def leave(self) -> None:
        """Count a reader less; after the last one, the calls go on for `ABANDONED_S`."""
        self.readers -= 1
        self.left_at = time.monotonic()
        if self.is_abandoned:
            self._timer = asyncio.get_running_loop().call_later(ABANDONED_S, self.task.cancel)

    @property
    def is_abandoned(self) -> bool:
        """It runs, and nobody reads it."""
        return self.ended_at is None and not self.readers

    def end(self) -> None:
        """Let the readers send their ends."""
        self.ended_at = time.monotonic()
        self.calls = ()  # they may hold a caller's own key, which nothing keeps longer than its call
        self.has_started.set()
        self._notify()

    async def wait(self, timeout_s: float) -> None:
        """Return once something has changed, or after a while."""
        changed = self._changed
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), timeout_s)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()  # whoever waits from now on waits for the next change


class LiveComparisons:
    """The comparisons that run without their requests, and those that ended lately."""

    def __init__(self) -> None:
        self._found: dict[str, LiveComparison] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Cancel on exit whatever still runs."""
        try:
            yield
        finally:
            tasks = [live.task for live in self._found.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def start(
        self, request: web.Request, encoder: EventEncoder, live: LiveComparison, deadline_s: float, return_when: int | None
    ) -> None:
        """Make the calls of a comparison in a task."""
        self._drop_old()
        self._found[live.id] = live
        abandoned = sorted((other for other in self._found.values() if other.is_abandoned), key=lambda other: other.left_at)
        for other in list_excess(abandoned, MAX_ABANDONED, lambda _: 1):
            other.task.cancel()
        if admission := request.get(ADMISSION):
            admission.is_detached = True
        live.task = asyncio.create_task(_run(request, encoder, live, deadline_s, return_when), name="live comparison")

    def find(self, id_: str, account_id: str | None) -> LiveComparison | None:
        """Return a comparison that the account may see, if its events are kept."""
        self._drop_old()
        live = self._found.get(id_)
        return live if live and account_id in (None, live.account_id) else None

    def _drop_old(self) -> None:
        ended = [live for live in self._found.values() if live.ended_at is not None and not live.readers]
        now = time.monotonic()
        ended.sort(key=lambda live: live.ended_at or now)
        kept = [live for live in ended if now - (live.ended_at or now) <= KEPT_S]
        excess = list_excess(kept, MAX_KEPT_BYTES, lambda live: live.log.bytes)
        for live in (*(live for live in ended if live not in kept), *excess):
            del self._found[live.id]


LIVE_COMPARISONS = web.AppKey("live_comparisons", LiveComparisons)


async def _run(
    request: web.Request, encoder: EventEncoder, live: LiveComparison, deadline_s: float, return_when: int | None
) -> None:
    REQUEST_OUTCOMES.set(live.collected)  # in this task alone
    bursts = request.app[DISPATCHER].stream_bursts(
        live.calls, deadline_s=deadline_s, return_when=return_when, silence_s=PING_INTERVAL_S
    )
    began = time.perf_counter()
    status = CLIENT_LEFT
    try:
        async with aclosing(bursts):
            live.refused = await event_stream.relay(live, encoder, bursts)
        status = 200 if live.refused is None else render_all_failed(live.refused).status
    finally:
        # Here and not at the end of the request, whose client may have left long before.
        live.collected.close()
        history.record_comparison(request, find_route(request), status, time.perf_counter() - began, live.collected)
        live.collected.outcomes = [_drop_answer(outcome) for outcome in live.collected.outcomes]
        if admission := request.get(ADMISSION):
            admission.close()
        for call in live.calls:
            call.scope.release_answer(call.index)
        live.end()


def _drop_answer(outcome: Outcome) -> Outcome:
    """Return an outcome without its texts, which the events keep, compressed and within bounds."""
    result = outcome.result
    if isinstance(result, Completion):
        return replace(outcome, result=replace(result, choices=()))
    return replace(outcome, result=replace(result, partial=result.partial and result.partial[:1]))  # there was one


async def follow(request: web.Request, live: LiveComparison, after: int) -> web.StreamResponse:
    """Send the events of a comparison that follow number `after`, until its end or that of what is kept."""
    limit_s = request.app[DISPATCHER].settings.environment.max_timeout_s + READER_GRACE_S
    live.join()
    try:
        async with event_stream.cut_off(request, limit_s):
            # As in any other stream, the status waits for the first answer: if every call fails, it is an error's.
            await live.has_started.wait()
            if live.refused is not None:
                return error_response(request, render_all_failed(live.refused))
            response = await event_stream.start(request)
            sent_at = time.monotonic()
            while found := live.log.read(after):
                data, after = found
                if data:
                    await response.write(data)
                    sent_at = time.monotonic()
                elif live.ended_at is not None:
                    break
                else:
                    await live.wait(PING_INTERVAL_S)
                    if time.monotonic() - sent_at >= PING_INTERVAL_S:
                        await response.write(PING)
                        sent_at = time.monotonic()
            await response.write_eof()
            return response
    finally:
        live.leave()
        # Once: they belong in the log line of one request.
        if live.ended_at is not None and (collected := REQUEST_OUTCOMES.get()):
            collected.outcomes += live.collected.outcomes
            live.collected.outcomes = []
