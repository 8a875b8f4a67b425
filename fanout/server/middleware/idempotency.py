"""`Idempotency-Key`: a repeated request gets the same answer, and is not charged again.

A key belongs to its caller: the path, the account and the keys for providers are part of its scope. Answers that were charged,
or may have been, are stored for a day. A repetition that arrives while the first request is running waits for its answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.core.schema import Completion, Outcome
from fanout.core.threads import run_in_thread
from fanout.observability.logs import log
from fanout.rendering.errors import render_error
from fanout.rendering.history import CLIENT_LEFT
from fanout.server import request_body
from fanout.server.lifecycle import DISPATCHER, FORWARD
from fanout.server.middleware import auth, history
from fanout.server.middleware.history import COMPARISON, REQUEST_OUTCOMES, RequestOutcomes
from fanout.server.middleware.replayable_stream import MAX_BYTES, STREAM_RECORDING, ReplayableStream, StreamRecording
from fanout.server.middleware.request_log import find_route
from fanout.server.openapi.endpoint import Handler
from fanout.server.responses import error_response
from fanout.store.idempotency import IdempotencyStore, RecentAnswers, StoredAnswer

HEADER, REPLAYED = "Idempotency-Key", "Idempotent-Replayed"
KEYS_PATH = "/v1/keys"
KEY_PATTERN = re.compile(r"[ -~]{1,255}")
WRITE_TIMEOUT_S = 2.0
"""Longest wait of an answer for its write to disk. A slower write leaves it only in memory, and it is sent."""
LONG_BODY_BYTES = 256 * 1024
"""Size above which bodies are hashed in a thread."""
EXTRA_WAIT_S = 60.0
"""Time beyond the longest deadline in which a repetition waits for the first request's answer."""
BILLABLE = frozenset({"timeout", "malformed", "content_filter"})
"""Kinds of failures that a provider may bill nevertheless. Its own errors and refusals are not billed."""


class SharedRun:
    """A running request with a key, and all clients that wait for its answer."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.task: asyncio.Task[web.StreamResponse]
        self.waiters = 0  # its own client among them
        self.recording: StreamRecording | None = None
        self.is_abandoned = False  # by its own client
        self.answer: StoredAnswer | None = None
        """The answer once it exists, even if it is not stored."""
        self.is_key_reused = False
        """The key was used with another body before."""
        self.collected = RequestOutcomes()

    def abandon(self) -> None:
        """Continue without the run's own client, for the clients that still wait."""
        self.is_abandoned = True
        if self.recording:
            self.recording.is_abandoned = True


class IdempotentRequests:
    """Running requests with a key, and the answers to earlier ones."""

    def __init__(self, store: IdempotencyStore | None) -> None:
        self._store = store
        self._recent = RecentAnswers()
        self._running: dict[bytes, SharedRun] = {}
        self._tasks: set[asyncio.Task[web.StreamResponse]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Cancel on exit all requests that are still running."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def respond(self, request: web.Request, handler: Handler, scope: bytes, fingerprint: bytes) -> web.StreamResponse:
        """Return the answer to the first request of a scope (key and caller): make it, wait for it, or find it."""
        while True:
            run = self._running.get(scope)
            is_first = run is None
            if run is None:
                run = self._start(request, handler, scope, fingerprint)
            elif run.fingerprint != fingerprint:
                return _key_reused_response(request)
            await self._wait(run, scope, is_first=is_first, request=request)
            if is_first:
                return run.task.result()
            if run.task.cancelled() or isinstance(run.task.exception(), ConnectionError):
                continue  # the first client disconnected at the same moment, which cancelled its run: start a new run
            run.task.result()
            if run.answer:
                return _replay(run.answer)
            return _key_reused_response(request) if run.is_key_reused else _too_large_response(request)

    def _start(self, request: web.Request, handler: Handler, scope: bytes, fingerprint: bytes) -> SharedRun:
        # In a task of its own, which can outlive its client.
        self._running[scope] = run = SharedRun(fingerprint)
        run.task = asyncio.create_task(self._find_or_run(request, handler, scope, run), name="request with a key")
        self._tasks.add(run.task)

        def forget(task: asyncio.Task[web.StreamResponse]) -> None:
            self._tasks.discard(task)
            self._forget(scope, run)
            if not task.cancelled():
                task.exception()  # marks the exception as retrieved, which asyncio would otherwise log

        run.task.add_done_callback(forget)
        return run

    def _forget(self, scope: bytes, run: SharedRun) -> None:
        if self._running.get(scope) is run:
            del self._running[scope]

    async def _wait(self, run: SharedRun, scope: bytes, *, is_first: bool, request: web.Request) -> None:
        """Wait for the end of a run. After the last client has left, cancel the run, like any abandoned request."""
        limit_s = request.app[DISPATCHER].settings.environment.max_timeout_s + EXTRA_WAIT_S
        run.waiters += 1
        try:
            # `wait`, not `await`: a client that disconnects cancels only its own wait, not the run of all clients.
            done, _ = await asyncio.wait({run.task}, timeout=None if is_first else limit_s)
            if not done:  # longer than any request may take
                raise web.HTTPConflict(
                    text="the first request with this key is still being answered", headers={"Retry-After": "1"}
                )
        finally:
            run.waiters -= 1
            if not run.task.done():
                if run.waiters == 0:
                    self._forget(scope, run)  # before the task ends, so that a request arriving now starts its own run
                    run.task.cancel()
                    await asyncio.wait({run.task})  # until its upstream sockets are closed
                elif is_first:
                    run.abandon()
            collected = REQUEST_OUTCOMES.get()
            if collected and run.task.done():
                # Passed on once, because they belong in the log line of one request only.
                collected.outcomes += run.collected.outcomes
                run.collected.outcomes = []

    async def _find_or_run(self, request: web.Request, handler: Handler, scope: bytes, run: SharedRun) -> web.StreamResponse:
        # Memory first: with a database, it holds only the answers that could not be written.
        if found := self._recent.find(scope) or (await self._store.find(scope) if self._store else None):
            if found.fingerprint != run.fingerprint:
                run.is_key_reused = True
                return _key_reused_response(request)
            run.answer = found
            return _replay(found)
        return await self._run(request, handler, scope, run)

    async def _run(self, request: web.Request, handler: Handler, scope: bytes, run: SharedRun) -> web.StreamResponse:
        REQUEST_OUTCOMES.set(run.collected)  # in this task alone

        async def keep_stream(stream: ReplayableStream) -> None:
            if run.recording and run.recording.data is not None:
                answer = _make_answer(request, run, stream.status, stream.own_headers, bytes(run.recording.data))
                await self._keep(scope, run, answer)

        request[STREAM_RECORDING] = run.recording = StreamRecording(keep_stream, lambda: run.waiters > 1)
        run.recording.is_abandoned = run.is_abandoned
        began, status = time.perf_counter(), CLIENT_LEFT
        try:
            response = await handler(request)
            status = response.status
            if isinstance(response, web.Response) and isinstance(response.body, bytes | bytearray):
                await self._keep(scope, run, _make_answer(request, run, status, dict(response.headers), bytes(response.body)))
        finally:
            # Here as well as in the request's middleware, because its own client may have disconnected.
            history.record_comparison(request, find_route(request), status, time.perf_counter() - began, run.collected)
        return response

    async def _keep(self, scope: bytes, run: SharedRun, answer: StoredAnswer) -> None:
        run.answer = answer  # waiting clients get the answer even if it is not stored
        if len(answer.body) > MAX_BYTES or not _is_worth_keeping(answer.status, run.collected.outcomes):
            return
        if self._store is None:
            self._recent.keep(scope, answer)
            return
        try:
            # Stored before the last bytes are sent, so that a crash loses no answer that was charged and received; but a locked
            # database must not delay the answer for long.
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._store.keep(scope, answer)
        except (StoreError, TimeoutError) as error:
            log.error("answer.write_failed", reason=str(error) or "it takes too long")
            self._recent.keep(scope, answer)


IDEMPOTENCY = web.AppKey("idempotency", IdempotentRequests)


async def respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request that has a key, or raise `RequestError` if it is malformed."""
    key = _parse_key(request)
    # A file is too large to be held in memory and hashed.
    if request.content_type.startswith("multipart/"):
        raise RequestError([Fault(HEADER, "is not accepted with a file upload: leave it out, or send JSON")])
    if request.path.startswith(KEYS_PATH):
        raise RequestError([Fault(HEADER, "is not accepted here: the answer holds a key, which nothing may keep")])
    raw = await request_body.read_raw_body(request)
    is_long = len(raw) > LONG_BODY_BYTES
    fingerprint = await run_in_thread("bodies", _digest, raw) if is_long else _digest(raw)
    scope = _scope(request, key)
    if FORWARD in request.app and (forward := request.app[FORWARD](request, scope)) is not None:
        return await forward
    try:
        return await request.app[IDEMPOTENCY].respond(request, handler, scope, fingerprint)
    except StoreError as error:
        log.error("answer.read_failed", reason=str(error))
        message = f"whether this `{HEADER}` was answered before cannot be looked up now; nothing was called"
        headers = {"Retry-After": "1"}
        reply = render_error(503, message, type_="server_error", code="store_unavailable", headers=headers)
        return error_response(request, reply)


def _parse_key(request: web.Request) -> str:
    given = request.headers.getall(HEADER)
    if len(given) > 1:
        raise RequestError([Fault(HEADER, f"is given {len(given)} times: once is allowed")])
    if not KEY_PATTERN.fullmatch(given[0]):
        raise RequestError([Fault(HEADER, f"{given[0][:80]!a} is not allowed: 1 to 255 printable ASCII characters")])
    return given[0]


def _scope(request: web.Request, key: str) -> bytes:
    # Account and provider keys identify the caller, who must never receive another caller's answer.
    providers = request.app[DISPATCHER].settings.providers.values()
    # Sorted, so that a restart with providers.json in another order finds the same answers.
    own = sorted({provider.row.key_header for provider in providers if provider.row.key_header})
    # With keys by account, not by key, so that a key can be replaced between a request and its repetition.
    account = auth.find_account(request)
    caller = ("Authorization", "x-api-key", auth.ACCOUNT_HEADER) if account is None else ()
    shown = (f"{name}: {request.headers.get(name, '')}" for name in (*caller, *own))
    return _digest("\n".join((request.rel_url.raw_path_qs, account or "", *shown, key)).encode(errors="surrogateescape"))


def _digest(data: bytes | bytearray) -> bytes:
    return hashlib.sha256(data).digest()


def _make_answer(request: web.Request, run: SharedRun, status: int, headers: dict[str, str], body: bytes) -> StoredAnswer:
    if comparison := request.get(COMPARISON):
        headers = {**headers, "x-comparison-id": comparison.id}
    kept = {name: value for name, value in headers.items() if name != "Content-Length"}  # aiohttp computes it again
    return StoredAnswer(run.fingerprint, status, kept, body, time.time())


def _is_worth_keeping(status: int, outcomes: list[Outcome]) -> bool:
    # Only answers that were charged, or may have been: after a failure without cost, a repetition should call again.
    if not outcomes:
        return 200 <= status < 300  # no model was called, but the request had an effect, such as a new job
    return any(
        isinstance(result := outcome.result, Completion)
        or (outcome.timing.attempts > 0 and (result.kind in BILLABLE or bool(result.partial)))
        for outcome in outcomes
    )


def _replay(answer: StoredAnswer) -> web.Response:
    return web.Response(status=answer.status, headers={**answer.headers, REPLAYED: "true"}, body=answer.body)


def _key_reused_response(request: web.Request) -> web.Response:
    message = f"this `{HEADER}` came with another body before: one key stands for one request; send a new key"
    return _refuse(request, message, "idempotency_key_reused")


def _too_large_response(request: web.Request) -> web.Response:
    message = f"the answer was given to the first request with this key; it has more than {MAX_BYTES} bytes and is not kept"
    return _refuse(request, message, "idempotency_answer_too_large")


def _refuse(request: web.Request, message: str, code: str) -> web.Response:
    reply = render_error(409, message, param=HEADER, code=code, headers={"x-should-retry": "false"})
    return error_response(request, reply)
