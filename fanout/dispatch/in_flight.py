"""Calls under way: what each has come to so far, their pieces' way to the reader, and when enough have answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace

from fanout.core.errors import ProviderError
from fanout.core.schema import Call, Completion, Delta, Failure, Outcome, Timing
from fanout.dispatch import retries
from fanout.limits.queue import Priority

BUFFER_BYTES = 256 * 1024
"""What one call's stream may run ahead of its reader."""
CANCELLED = Failure("cancelled", "cancelled: enough other answers had come, or the caller left", code="cancelled")
STOPPED = Failure("cancelled", "cancelled: the server is stopping", code="server_stopping")

Piece = Delta | Outcome
Result = Completion | Failure


@dataclass(slots=True, eq=False)
class InFlightCall:
    """A call under way: what its outcome will be made of."""

    call: Call
    deadline: float
    priority: Priority
    inbox: Inbox | None = None
    """Where a streamed call's pieces go."""
    began: float = field(default_factory=time.monotonic)
    queued_s: float = 0.0
    attempts: int = 0
    started: float = 0.0
    call_s: float | None = None
    first_token_s: float | None = None
    text: list[str] = field(default_factory=list)
    delivered: bool = False
    waiting_bytes: int = 0
    room: asyncio.Event | None = None
    reader_limited: bool = False
    cancelled_as: Failure = CANCELLED
    outcome: Outcome | None = None

    def may_retry(self, failure: Failure) -> bool:
        return not self.delivered and retries.is_transient(failure)

    def with_partial(self, result: Result) -> Result:
        if isinstance(result, Failure) and result.partial is None and self.text:
            return replace(result, partial="".join(self.text))
        return result

    def timing(self, result: Result) -> Timing:
        answered = isinstance(result, Completion) and self.attempts > 0
        return Timing(
            queued_s=self.queued_s,
            first_token_s=self.first_token_s,
            call_s=self.call_s if answered else None,
            total_s=time.monotonic() - self.began,
            attempts=self.attempts,
            reader_limited=self.reader_limited,
        )


class Inbox:
    """Pieces on their way from many calls to one reader. Each call may be ahead of the reader by `BUFFER_BYTES`."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._ahead: dict[InFlightCall, int] = {}
        self._writing: dict[InFlightCall, int] = {}
        self._arrived = asyncio.Event()

    def put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._arrived.set()

    async def deliver(self, running: InFlightCall, delta: Delta) -> None:
        """Puts a piece; waits while this call is too far ahead, so that a slow reader slows its own upstreams only."""
        size = _size(delta)
        running.waiting_bytes += size
        self._ahead[running] = self._ahead.get(running, 0) + size
        self.put(delta)
        if running.waiting_bytes >= BUFFER_BYTES:
            running.reader_limited = True
            running.room = asyncio.Event()
            await running.room.wait()

    async def take(self, silence_s: float | None) -> list[Piece]:
        """All that has arrived, once anything has; nothing where nothing came for `silence_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(silence_s):
                await self._arrived.wait()
        self._arrived.clear()
        pieces, self._pieces = self._pieces, []
        self._writing, self._ahead = self._ahead, {}
        return pieces

    def written(self) -> None:
        """What was taken has left: its calls have room again."""
        for running, size in self._writing.items():
            running.waiting_bytes -= size
            if running.room and running.waiting_bytes < BUFFER_BYTES:
                running.room.set()
                running.room = None


class Race:
    """Cancels what still runs once enough entries have answered.

    An entry has answered when all its calls have ended and at least one gave an answer.
    """

    def __init__(self, calls: Iterable[Call], return_when: int | None) -> None:
        self._wanted = return_when
        self._left: dict[int, int] = {}
        for call in calls:
            self._left[call.entry] = self._left.get(call.entry, 0) + 1
        self._good: set[int] = set()
        self._tasks: list[asyncio.Task[Outcome]] = []

    def enter(self, task: asyncio.Task[Outcome]) -> None:
        if self._wanted is not None:
            self._tasks.append(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled() or task.exception() or self._wanted is None:
            return
        outcome = task.result()
        entry = outcome.call.entry
        self._left[entry] -= 1
        if isinstance(outcome.result, Completion):
            self._good.add(entry)
        if sum(not self._left[answered] for answered in self._good) >= self._wanted:
            for other in self._tasks:
                other.cancel()


async def relay(running: InFlightCall, pieces: AsyncGenerator[Delta | Completion]) -> Completion:
    """Passes an attempt's deltas on as they are read; the completion at its end."""
    inbox = running.inbox
    assert inbox is not None
    async with aclosing(pieces):
        async for piece in pieces:
            if not isinstance(piece, Delta):
                return piece
            if running.first_token_s is None and (
                piece.text or piece.reasoning or piece.tool_calls or piece.refusal or piece.extra
            ):
                running.first_token_s = time.monotonic() - running.started
            if piece.text and piece.choice_index == 0:
                running.text.append(piece.text)
            running.delivered = True
            await inbox.deliver(running, piece)
    raise ProviderError(Failure("malformed", "the answer ended without its end", code="stream_truncated"))


def _size(delta: Delta) -> int:
    """About how many bytes a piece holds; text, which nearly every piece is made of alone, first."""
    size = 64 + len(delta.text)
    if delta.reasoning or delta.refusal:
        size += len(delta.reasoning or "") + len(delta.refusal or "")
    if delta.tool_calls or delta.extra:
        size += len(str(delta.tool_calls)) + len(str(delta.extra))
    if delta.logprobs:
        size += sum(64 * (1 + len(item.top)) for item in delta.logprobs)
    return size
