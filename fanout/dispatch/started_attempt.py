"""An attempt that runs without a coroutine: begun by its caller, ended by the connection that brings its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Protocol

from fanout.core.schema import Call, Completion, Failure
from fanout.dispatch.attempt_clock import AttemptClock
from fanout.dispatch.in_flight import Ended, InFlightCall
from fanout.dispatch.retries import Result
from fanout.dispatch.routes import Route
from fanout.limits.limiter import Limiter
from fanout.limits.queue import Permit
from fanout.providers import OnHeaders
from fanout.providers.transport.exchange import Exchange


class Attempts(Protocol):
    """The steps that attempts of either kind have."""

    def end_attempt(self, running: InFlightCall, limiter: Limiter, permit: Permit, result: Result | None) -> None:
        """Count the end of an attempt, and give its permit back."""

    def hide_secrets(self, call: Call, result: Result) -> Result:
        """Return a result without secrets."""

    def name_timeout(self, running: InFlightCall, route: Route) -> Failure:
        """Return the failure of an attempt that has taken all its time."""

    async def read_rest(self, started: StartedAttempt) -> Result:
        """Return the result of an attempt of which the rest takes a coroutine."""


class StartedAttempt:
    """An attempt whose request has been sent, or is as soon as there is a connection.

    `on_end` is called once, when it has ended, or when what is left of it takes a coroutine (`has_rest`).
    """

    __slots__ = (
        "_attempts",
        "_clock",
        "_context",
        "_limiter",
        "_permit",
        "ended",
        "exchange",
        "has_rest",
        "is_done",
        "on_end",
        "route",
        "running",
    )

    def __init__(
        self,
        attempts: Attempts,
        clock: AttemptClock,
        running: InFlightCall,
        route: Route,
        limiter: Limiter,
        permit: Permit,
        exchange: Exchange,
    ) -> None:
        self._attempts, self._clock, self._limiter, self._permit = attempts, clock, limiter, permit
        self.running, self.route, self.exchange = running, route, exchange
        self.is_done = self.has_rest = False
        self.ended: Ended = None
        self.on_end: Callable[[StartedAttempt], None] | None = None

    def send(self, context: Context, on_headers: OnHeaders) -> None:
        """Send the request, and have the attempt ended in time."""
        running, self._context = self.running, context
        # Watched first: a connection that breaks at once must find an attempt that can end.
        self._clock.add(self, min(running.started_at + self.route.settings.row.timeout_s, running.deadline))
        self.exchange.send(context, self._count_departure, on_headers, self._end, self._leave_rest)

    def done(self) -> bool:
        """Return whether it has ended, as a task does."""
        return self.is_done

    def cancel(self) -> None:
        """End it soon, with nothing, as a task does."""
        # Not within the caller's own step: it may be looking through all that is running.
        asyncio.get_running_loop().call_soon(self.end_now, context=self._context)

    def end_now(self) -> None:
        """End it with nothing, unless it has ended."""
        if not self.is_done:
            self.exchange.cancel()
            self._end(None)

    def expire(self) -> None:
        """End it for want of time."""
        self.exchange.cancel()
        self._context.run(self._end, self._attempts.name_timeout(self.running, self.route))

    async def finish(self) -> Result:
        """Return the result of an attempt that has ended, or of which the rest takes a coroutine."""
        if not self.is_done:
            return await self._attempts.read_rest(self)
        if isinstance(self.ended, Completion | Failure):
            return self.ended
        raise self.ended or AssertionError("an attempt that was cancelled has no result")

    def take_rest(self) -> tuple[Limiter, Permit]:
        """Return what a coroutine needs that ends the attempt instead."""
        self.is_done = True
        self._clock.remove(self)
        return self._limiter, self._permit

    def _count_departure(self) -> None:
        self._limiter.counted.count(self._permit)

    def _leave_rest(self) -> None:
        self.has_rest = True
        if self.on_end is not None:
            self.on_end(self)

    def _end(self, ended: Ended) -> None:
        self.is_done = True
        self._clock.remove(self)
        try:
            # Without a result only the place is given back: the call was cancelled, or an adapter has a bug.
            result = None
            if isinstance(ended, Completion | Failure):
                ended = result = self._attempts.hide_secrets(self.running.call, ended)
            self._attempts.end_attempt(self.running, self._limiter, self._permit, result)
        except Exception as error:  # a bug must leave nobody waiting
            ended = error
        self.ended = ended
        if (on_end := self.on_end) is not None:
            # Forgotten, for it refers to the one who holds this: a cycle would outlive the call.
            self.on_end = None
            on_end(self)
