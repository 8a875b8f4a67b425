"""All calls of one request, made at once: each through its account's limits, with its retries, within one deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import aiohttp

from fanout.config.ca_file import make_ssl_context
from fanout.config.settings import Settings
from fanout.core.schema import (
    Call,
    Failure,
    Observer,
    Outcome,
)
from fanout.dispatch.call_runner import CallRunner
from fanout.dispatch.in_flight import (
    CANCELLED,
    DISCARDED,
    STOPPED,
    Inbox,
    InFlightCall,
    Piece,
    connect,
)
from fanout.dispatch.race import CallTask, Race
from fanout.dispatch.taskless import TasklessCalls
from fanout.dispatch.tracing import open_tracing
from fanout.limits.queue import Priority
from fanout.limits.registry import Sharing
from fanout.providers.transport.connection_errors import PARSER_LIMITS
from fanout.providers.transport.connector import UpstreamConnector
from fanout.providers.transport.departures import WatchedRequest


class Dispatcher(CallRunner):
    """Maker of upstream calls. Open a dispatcher with `open_dispatcher` and keep it: it holds the connections and limits."""

    async def attempt(self, call: Call, *, deadline_s: float, stream: bool = False) -> Outcome:
        """Make one attempt for a job, with batch priority: all interactive calls go first. The caller decides about retries.

        It is made in the caller's task, which must await nothing else meanwhile.
        With `stream`, the provider streams its answer, so that the first token has a time.
        """
        upstreams = self.choose_newest(call)
        running = InFlightCall(call, time.monotonic() + deadline_s, upstreams, Priority.BATCH, DISCARDED if stream else None)
        task = asyncio.current_task()
        assert task
        self.running[running] = task
        try:
            return await self.run_call(running, upstreams.attempt)
        except asyncio.CancelledError:
            if running.cancelled_as is CANCELLED or task.uncancel():
                raise  # the task itself was cancelled, not only its call
            return self.finish(running, running.cancelled_as)
        finally:
            del self.running[running]

    async def run(self, calls: Sequence[Call], *, deadline_s: float, return_when: int | None = None) -> list[Outcome]:
        """Return every call's outcome, in the order of the calls; an upstream's failure is an outcome, never an exception.

        Args:
            calls: the calls to make.
            deadline_s: from now; covers queueing, all retries and the answers.
            return_when: number of entries that must answer before the rest is cancelled; `None`: all.
        """
        now = time.monotonic()
        running = [InFlightCall(call, now + deadline_s, self.find_upstreams(call), created_at=now) for call in calls]
        try:
            async with asyncio.TaskGroup() as group:
                taskless = TasklessCalls(self, group.create_task)
                # A race cancels tasks, a fusion waits for some, and a span is that of a task's context.
                may_start = return_when is None and self.tracing is None and not [call for call in calls if call.fusion]
                if others := taskless.start(running) if may_start else running:
                    self._start(others, group.create_task, Race(calls, return_when))
                await taskless.join()
        finally:  # a task that is cancelled before its first step cannot finish its call itself
            outcomes = [self.end(item) for item in running]
            self._release_answers(calls)
        return outcomes

    async def stream(
        self, calls: Sequence[Call], *, deadline_s: float, return_when: int | None = None
    ) -> AsyncGenerator[Piece]:
        """Yield the deltas of all calls as they arrive, and each call's outcome when it ends. Arguments as for `run`."""
        async with aclosing(self.stream_bursts(calls, deadline_s=deadline_s, return_when=return_when)) as bursts:
            async for burst in bursts:
                for piece in burst:
                    yield piece

    async def stream_bursts(
        self, calls: Sequence[Call], *, deadline_s: float, return_when: int | None = None, silence_s: float | None = None
    ) -> AsyncGenerator[list[Piece]]:
        """Stream, with the pieces that arrived together in one list, so that one write sends them on.

        Whenever nothing has arrived for `silence_s`, an empty list is yielded. Other arguments as for `run`.
        """
        deadline = time.monotonic() + deadline_s
        race, inbox = Race(calls, return_when), Inbox()
        tasks: list[asyncio.Task[Outcome]] = []
        started = [InFlightCall(call, deadline, self.find_upstreams(call), inbox=inbox) for call in calls]
        try:
            tasks += self._start(started, asyncio.create_task, race)
            unfinished = len(calls)
            while unfinished:
                burst = await inbox.take(silence_s)
                unfinished -= sum(isinstance(piece, Outcome) for piece in burst)
                yield burst
                inbox.free_room()
        finally:
            # The reader may stop at any piece; a call that went on would cost money for nobody.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._release_answers(calls)

    def stop(self) -> None:
        """End all calls in flight, and refuse all later calls, with a failure that states the reason."""
        self._is_stopping = True
        self.cancel(lambda _: True, STOPPED)

    def cancel(self, matches: Callable[[Call], bool], failure: Failure, *, waiting_only: bool = False) -> list[Call]:
        """End the matching calls, which get `failure`, and return them; `waiting_only`: those that are not sent yet."""
        found = []
        for running, task in list(self.running.items()):
            # An attempt is counted before it is sent: a call that may cost money does not only wait.
            if not task.done() and not (waiting_only and running.attempts) and matches(running.call):
                running.cancelled_as = failure
                task.cancel()
                found.append(running.call)
        return found

    def _release_answers(self, calls: Sequence[Call]) -> None:
        for call in () if self._is_serving else calls:  # a server's count until its caller has received them
            call.scope.release_answer(call.index)

    def _start(self, running: Sequence[InFlightCall], create_task: Callable[..., CallTask], race: Race) -> list[CallTask]:
        tasks = [create_task(self.run_call(item, self.attempt_with_retries)) for item in running]
        self.running.update(zip(running, tasks, strict=True))
        return connect(running, tasks, race, self.end)


@asynccontextmanager
async def open_dispatcher(
    settings: Settings, observers: Sequence[Observer] = (), *, is_serving: bool = False, sharing: Sharing | None = None
) -> AsyncGenerator[Dispatcher]:
    """Open a dispatcher with its connections, which are closed at the end.

    Args:
        settings: of the operator.
        observers: notified of every retry and outcome.
        is_serving: the sentences of failures speak to a server's callers, who cannot set its variables, and answers count
            against `FANOUT_MAX_HELD_BYTES` until the scope of their calls is closed, not until they are returned.
        sharing: the store's `limits`, where several processes keep to the limits together.

    Raises:
        ConfigError: an adapter, or what traces need, cannot be loaded.
    """
    # No cookies: one caller's session at an upstream must not leak into another's call.
    jar, environment = aiohttp.DummyCookieJar(), settings.environment
    may_write_heads = environment.http_client == "own"
    async with (
        open_tracing(is_on=environment.traces == "on") as tracing,
        aiohttp.ClientSession(
            connector=UpstreamConnector(make_ssl_context(environment.ca_file), may_write_heads=may_write_heads),
            cookie_jar=jar,
            request_class=WatchedRequest,
            **PARSER_LIMITS,
        ) as session,
    ):
        yield Dispatcher(settings, session, observers, is_serving=is_serving, tracing=tracing, sharing=sharing)
