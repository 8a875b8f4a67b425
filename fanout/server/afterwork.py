"""Work that no answer waits for: calls and requests are counted, logged and recorded together, a moment after their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

from aiohttp import web

from fanout.core.lulls import LULLS
from fanout.core.schema import Outcome, Retry
from fanout.observability.logs import log

Step = Callable[[], None]
DELAY_S = 0.01
"""Longest wait of what has ended; until then its answers are kept, too."""
MAX_REQUESTS = 8
"""Requests after whose end nothing more is waited for: their work holds the event loop for half a millisecond."""
MAX_CALLS = 64


class Afterwork:
    """Work to be done once answers have been sent.

    Together, because the code of a single one has left the processor's caches by the next: see docs/performance.md.
    """

    def __init__(self) -> None:
        self.observers: Sequence[Callable[..., None]] = ()
        """Notified of calls that have ended or are repeated, many at once."""
        self._calls: list[Outcome | Retry] = []
        self._requests: list[tuple[Step, Step]] = []
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
            asyncio.get_running_loop().call_soon(self.finish)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DELAY_S, self._finish_in_time)

    def _finish_in_time(self) -> None:
        self._timer = None
        self.finish()
        LULLS.note()

    def finish(self) -> None:
        """Do now what is to be done, before somebody reads what it changes."""
        calls, self._calls = self._calls, []
        requests, self._requests = self._requests, []
        observing = [partial(observer, *calls) for observer in self.observers] if calls else []
        # The first step of all requests, then the second: see the class.
        for step in chain(observing, *zip(*requests, strict=True)):
            try:
                step()
            except Exception:  # the others must not be lost with it
                log.exception("request.record_crashed")


AFTERWORK = web.AppKey("afterwork", Afterwork)
