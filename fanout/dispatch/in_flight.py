"""Calls in flight: their state, and the delivery of their pieces to the reader."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.query_size import count_characters
from fanout.core.schema import Call, Completion, Delta, Failure, Outcome, Timing
from fanout.dispatch import retries
from fanout.dispatch.fusing import MemberAnswer, fuse
from fanout.dispatch.fusion_plan import list_member_places
from fanout.dispatch.race import CallTask, Race
from fanout.dispatch.retries import Result
from fanout.limits.queue import Priority

if TYPE_CHECKING:
    from fanout.dispatch.routes import Route
    from fanout.observability.call_span import CallSpan

BUFFER_BYTES = 256 * 1024
"""Unread bytes of one call's stream, above which the call waits for its reader."""
CANCELLED = Failure("cancelled", "cancelled: enough other answers had come, or the caller left", code="cancelled")
STOPPED = Failure("cancelled", "cancelled: the server is stopping", code="server_stopping")

Ended = Completion | Failure | Exception | None
"""What an attempt came to: a result, or the bug of an adapter; `None`: nothing yet, or it was cancelled."""
Piece = Delta | Outcome


class Handle(Protocol):
    """A call's task, or what stands for one."""

    def done(self) -> bool:
        """Return whether it has ended."""

    def cancel(self) -> object:
        """End it soon."""


class Started(Handle, Protocol):
    """An attempt without a coroutine: see `StartedAttempt`."""

    running: InFlightCall
    ended: Ended
    is_done: bool
    has_rest: bool
    on_end: Callable[[Any], None] | None

    def end_now(self) -> None:
        """End it."""

    async def finish(self) -> Result:
        """Return its result."""


class Configuration(Protocol):
    """Providers and prices of one configuration, by which a call is made."""

    has_hooks: bool

    async def run_hooks(self, running: InFlightCall, attempt: Callable[[InFlightCall], Awaitable[Result]]) -> Result:
        """Make a call between hooks."""

    async def attempt(self, running: InFlightCall) -> Result:
        """Make one attempt."""

    def start(self, running: InFlightCall, context: Context) -> Started | None:
        """Make an attempt without waiting for anything, if it can be made so."""

    def find_row(self, call: Call) -> ProviderSettings:
        """Return the provider of a call."""


@dataclass(slots=True, eq=False)
class InFlightCall:
    """A call in flight, with the data of its future outcome."""

    call: Call
    deadline: float
    upstreams: Configuration
    """The configuration under which it runs to its end, also if there is another by then."""
    priority: Priority = Priority.INTERACTIVE
    inbox: Inbox | None = None
    """Destination of a streamed call's pieces."""
    created_at: float = field(default_factory=time.monotonic)
    queued_s: float = 0.0
    route: Route | None = None
    """Of its last attempt."""
    sent: Call | None = None
    """The call as hooks have changed it."""
    hooks_s: float | None = None
    attempts: int = 0
    started_at: float = 0.0
    """Start of the current attempt."""
    call_s: float | None = None
    first_token_s: float | None = None
    text: list[str] = field(default_factory=list)
    has_delivered: bool = False
    unread_bytes: int = 0
    room: asyncio.Event | None = None
    """Set once the reader has caught up; `None` unless the call waits for it."""
    reader_limited: bool = False
    cancelled_as: Failure = CANCELLED
    """The failure that answers the call if it is cancelled."""
    outcome: Outcome | None = None
    may_start: bool = True
    """The next attempt may need no coroutine: that has not just been tried."""
    members: Mapping[asyncio.Task[Outcome], InFlightCall] | None = None
    """Calls whose answers it waits for, if it is a fusion."""
    span: CallSpan | None = None
    """`None` unless traces are on."""

    def may_retry(self, failure: Failure) -> bool:
        """Return whether another attempt may follow, which is never the case after a delivered piece."""
        return not self.has_delivered and retries.is_transient(failure)

    def add_partial_text(self, failure: Failure) -> Failure:
        """Return a failure with the text that was delivered before it."""
        return failure if failure.partial is not None else replace(failure, partial="".join(self.text))

    def build_timing(self, result: Result) -> Timing:
        """Return the call's times, up to now."""
        has_answered = isinstance(result, Completion) and self.attempts > 0
        return Timing(
            queued_s=self.queued_s,
            first_token_s=self.first_token_s,
            call_s=self.call_s if has_answered else None,
            total_s=time.monotonic() - self.created_at,
            attempts=self.attempts,
            hooks_s=self.hooks_s,
            reader_limited=self.reader_limited,
        )


class Inbox:
    """Pieces on their way from many calls to one reader. Each call may be ahead of the reader by `BUFFER_BYTES`."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self._unread: dict[InFlightCall, int] = {}
        self._taken: dict[InFlightCall, int] = {}
        self._arrived = asyncio.Event()

    def put(self, piece: Piece) -> None:
        """Append a piece and wake the reader."""
        self._pieces.append(piece)
        self._arrived.set()

    async def deliver(self, running: InFlightCall, delta: Delta) -> None:
        """Put a piece; wait while this call is too far ahead, so that a slow reader slows only its own upstreams."""
        size = _estimate_bytes(delta)
        running.unread_bytes += size
        self._unread[running] = self._unread.get(running, 0) + size
        # Put first, then wait: a piece larger than the whole buffer must also be delivered.
        self.put(delta)
        if running.unread_bytes >= BUFFER_BYTES:
            running.reader_limited = True
            running.room = asyncio.Event()
            await running.room.wait()

    async def take(self, silence_s: float | None) -> list[Piece]:
        """Wait for pieces and return all that have arrived; an empty list if none arrives for `silence_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(silence_s):
                await self._arrived.wait()
        self._arrived.clear()
        pieces, self._pieces = self._pieces, []
        # Room is freed only after writing, because unwritten pieces still take memory.
        self._taken, self._unread = self._unread, {}
        return pieces

    def free_room(self) -> None:
        """Free the room of the taken pieces, which have now been written."""
        for running, size in self._taken.items():
            running.unread_bytes -= size
            if running.room and running.unread_bytes < BUFFER_BYTES:
                running.room.set()
                running.room = None


class DiscardingInbox(Inbox):
    """An inbox that keeps nothing, for a stream of which only the times and the whole answer at its end are wanted."""

    async def deliver(self, running: InFlightCall, delta: Delta) -> None:
        """Drop a piece."""


DISCARDED = DiscardingInbox()


End = Callable[[InFlightCall], Outcome]
"""Returns the outcome of a call whose task has ended, perhaps before its first step."""


def connect(calls: Sequence[InFlightCall], tasks: list[CallTask], race: Race, end: End) -> list[CallTask]:
    """Let calls race, deliver their ends, and make fusions wait for their members, before any has run; return the tasks."""
    for running, task in zip(calls, tasks, strict=True):
        # As a callback: a task that is cancelled before its first step never runs.
        if running.inbox is not None:
            task.add_done_callback(partial(_deliver_end, running, running.inbox, end))
        race.add(task)
    if not any(running.call.fusion for running in calls):
        return tasks
    placed = {
        (running.call.entry, running.call.prompt_index, running.call.sample): (task, running)
        for running, task in zip(calls, tasks, strict=True)
    }
    for running in calls:
        if running.call.fusion:
            running.members = dict(placed[place] for place in list_member_places(running.call))
    return tasks


def _deliver_end(running: InFlightCall, inbox: Inbox, end: End, _: asyncio.Task[Outcome]) -> None:
    inbox.put(end(running))


async def join_members(running: InFlightCall, end: End) -> None:
    """Wait until the members of a fusion have ended, and put their answers into its question."""
    members = running.members or {}
    await asyncio.wait(members)
    running.call = await fuse(running.call, [MemberAnswer.from_outcome(end(member)) for member in members.values()])


async def relay(running: InFlightCall, pieces: AsyncGenerator[Delta | Completion], *, is_held: bool = False) -> Completion:
    """Pass an attempt's deltas on as they arrive, and return the completion at its end; without one, it is `malformed`.

    With `is_held` nothing is passed on before the end.
    """
    inbox = running.inbox
    assert inbox is not None
    async with aclosing(pieces):
        async for piece in pieces:
            if not isinstance(piece, Delta):
                return piece
            has_content = piece.text or piece.reasoning or piece.tool_calls or piece.refusal or piece.extra
            if running.first_token_s is None and has_content:
                running.first_token_s = time.monotonic() - running.started_at
            if is_held:
                continue
            # A failure reports one partial text, that of the first choice.
            if piece.text and piece.choice_index == 0:
                running.text.append(piece.text)
            # No retry from now on: a second attempt would give the reader another answer.
            running.has_delivered = True
            await inbox.deliver(running, piece)
    raise ProviderError(Failure("malformed", "the answer ended without its end", code="stream_truncated"))


def _estimate_bytes(delta: Delta) -> int:
    """Return the approximate bytes of a piece. Nearly every piece has only text, which costs one addition here."""
    size = 64 + len(delta.text)
    if delta.reasoning or delta.refusal:
        size += len(delta.reasoning or "") + len(delta.refusal or "")
    if delta.tool_calls or delta.extra:  # an image has megabytes, which nothing here may copy
        size += count_characters(delta.tool_calls) + count_characters(delta.extra or ())
    if delta.logprobs:
        size += sum(64 * (1 + len(item.top)) for item in delta.logprobs)
    return size
