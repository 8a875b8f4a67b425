"""The server's state, and the typed keys of the values stored in the application and in a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web

from fanout.core.lulls import LULLS
from fanout.dispatch.dispatcher import Dispatcher
from fanout.evaluate.judging.judging import Judging
from fanout.jobs.manager import JobManager
from fanout.jobs.openai_batches import OpenAIBatchWorker
from fanout.jobs.presence import Presence
from fanout.observability.account_health import RecentCalls
from fanout.observability.metrics import Metrics
from fanout.store.batches import BatchStore
from fanout.store.files import FileStore
from fanout.store.jobs.job_store import JobStore
from fanout.store.opening import Store


class Lifecycle:
    """The server between its start and its end, and the requests that are running."""

    def __init__(self) -> None:
        self.is_ready = False
        # Before stopping: requests are served, but load balancers see that they should send no more.
        self.is_draining = False
        self.is_stopping = False
        self.running_requests = 0
        # An event, so that a stopping server exits with its last request and not at the next poll.
        self._idle = asyncio.Event()
        self._idle.set()

    def begin_request(self) -> None:
        """Count an arriving request."""
        self.running_requests += 1
        LULLS.begin_request()
        self._idle.clear()

    def end_request(self) -> None:
        """Count a request that was answered, or whose client has disconnected."""
        self.running_requests -= 1
        LULLS.end_request()
        if not self.running_requests:
            self._idle.set()

    async def wait_until_idle(self) -> None:
        """Return once no request is running."""
        await self._idle.wait()


DISPATCHER = web.AppKey("dispatcher", Dispatcher)
METRICS = web.AppKey("metrics", Metrics)
ACCOUNT_HEALTH = web.AppKey("account_health", RecentCalls)
LIFECYCLE = web.AppKey("lifecycle", Lifecycle)
STORE = web.AppKey("store", Store)
"""Absent if FANOUT_STORE is `off`, like the seven keys that follow."""
JOB_MANAGER = web.AppKey("job_manager", JobManager)
PRESENCE = web.AppKey("presence", Presence)
JOB_STORE = web.AppKey("job_store", JobStore)
FILE_STORE = web.AppKey("file_store", FileStore)
JUDGING = web.AppKey("judging", Judging)
BATCH_STORE = web.AppKey("batch_store", BatchStore)
BATCH_WORKER = web.AppKey("batch_worker", OpenAIBatchWorker)
FORWARD = web.AppKey[Callable[[web.Request, bytes], Awaitable[web.StreamResponse] | None]]("forward")
"""Has one process of several answer all requests of a scope; `None`: it is this one. Absent in a server of one process."""
HOLD_TURN = web.AppKey[Callable[[str], AbstractAsyncContextManager[None]]]("hold_turn")
"""Holds a lock that all processes of a server share, by its name. Absent in a server of one process."""
REQUEST_ID = web.RequestKey("request_id", str)
