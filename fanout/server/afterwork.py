"""Work that no answer waits for: calls and requests are counted, logged and recorded together, a moment after their end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from aiohttp import web

from fanout.core.lulls import LULLS
from fanout.core.schema import Outcome, Retry
from fanout.observability.logs import log

Step = Callable[[], None]
DELAY_S = 0.01
"""Longest wait of what has ended; until then its answers are kept, too."""
MAX_REQUESTS = 32
"""Requests after whose end nothing more is waited for: each part of their work holds the event loop for half a millisecond."""
MAX_CALLS = 128


class Afterwork:
    """Work to be done once answers have been sent.

    Together, because the code of a single one has left the processor's caches by the next: see docs/performance.md.
    """

    def __init__(self) -> None:
        self.observers: Sequence[Callable[..., None]] = ()
        """Notified of calls that have ended or are repeated, many at once."""
        self._calls: list[Outcome | Retry] = []
        self._requests: list[tuple[Step, Step]] = []
        self._parts: deque[Sequence[Step]] = deque()
        """The same steps of all that has ended, each part for a turn of the event loop."""
        self._timer: asyncio.TimerHandle | None = None

    def observe(self, event: Outcome | Retry) -> None:
        """Notify the observers later. An observer of the Dispatcher."""
        self._calls.append(event)
        self._schedule(is_full=len(self._calls) == MAX_CALLS)

    def add(self, record: Step, count: Step) -> None:
        """Have the end of a request recorded, then logged and counted, later, and not before its answer has been written."""
        self._requests.append((record, count))
        self._schedule(is_full=len(self._requests) == MAX_REQUESTS)

    def _schedule(self, *, is_full: bool) -> None:
        if is_full:
            asyncio.get_running_loop().call_soon(self._begin)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_S, self._begin_in_time)

    def _begin_in_time(self) -> None:
        self._timer = None
        self._begin()
        LULLS.note()

    def _begin(self) -> None:
        self._divide()
        self._go_on()

    def _divide(self) -> None:
        calls, self._calls = self._calls, []
        requests, self._requests = self._requests, []
        if calls:
            self._parts.append([partial(observer, *calls) for observer in self.observers])
        if requests:
            self._parts += zip(*requests, strict=True)  # the first step of all of them, then the second: see the class

    def _go_on(self) -> None:
        """Do one part, and the next one after whatever else the event loop has to do."""
        if self._parts:
            self._do_part()
        if self._parts:
            asyncio.get_running_loop().call_soon(self._go_on)

    def finish(self) -> None:
        """Do now what is to be done, before somebody reads what it changes."""
        self._divide()
        while self._parts:
            self._do_part()

    def _do_part(self) -> None:
        for step in self._parts.popleft():
            try:
                step()
            except Exception:  # the others must not be lost with it
                log.exception("request.record_crashed")


AFTERWORK = web.AppKey("afterwork", Afterwork)
