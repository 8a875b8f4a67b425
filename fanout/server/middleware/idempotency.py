"""`Idempotency-Key`: the same request again has the same answer, and is not paid for again.

A key is its caller's own: it holds together with the path, the account, and every key that the request shows. What is kept for
a day is what was or may have been paid for; who asks while the first one is still being answered waits for that answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from fanout.core.errors import Fault, RequestError, StoreError
from fanout.core.schema import Completion, Failure, Outcome
from fanout.observability.logs import log
from fanout.rendering.errors import envelope
from fanout.server import request_body
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import history
from fanout.server.middleware.history import CLIENT_LEFT, COMPARISON, REQUEST_OUTCOMES, RequestOutcomes
from fanout.server.middleware.replayable_stream import MAX_BYTES, STREAM_RECORDING, ReplayableStream, StreamRecording
from fanout.store.idempotency import IdempotencyStore, StoredAnswer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADER, REPLAYED = "Idempotency-Key", "Idempotent-Replayed"
KEY_PATTERN = re.compile(r"[ -~]{1,255}")
MAX_MEMORY_BYTES = 32 * 2**20
"""Bytes of answers where there is no database for them, or none that can be written."""
WRITE_TIMEOUT_S = 2.0
"""How long an answer waits until it is on disk. After that it is given all the same, and kept in memory too."""
LONG_BODY_BYTES = 256 * 1024
EXTRA_WAIT_S = 60.0
"""How much longer than the longest deadline somebody waits for another's answer."""
BILLABLE = frozenset({"timeout", "malformed", "content_filter"})
"""Failures of calls that a provider may bill all the same. Its own errors and refusals it does not."""


class SharedRun:
    """A request under way, and all who wait for its answer."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.task: asyncio.Task[web.StreamResponse]
        self.present = 0
        """Who waits for it, its own client among them."""
        self.tape: StreamRecording | None = None
        self.left = False
        """Its own client did not wait."""
        self.kept: StoredAnswer | None = None
        """The answer, once it is there; also one that is not kept for later."""
        self.reused = False
        """The key came with another body before."""
        self.seen = RequestOutcomes()

    def take(self) -> list[Outcome]:
        """How its calls ended, for the log line of one request."""
        taken, self.seen.outcomes = self.seen.outcomes, []
        return taken


@dataclass(slots=True)
class _Memory:
    """Answers of late, the oldest given up first."""

    answers: OrderedDict[bytes, StoredAnswer] = field(default_factory=OrderedDict)
    size_bytes: int = 0

    def keep(self, scope: bytes, answer: StoredAnswer) -> None:
        self.forget(scope)
        self.answers[scope] = answer
        self.size_bytes += _size(answer)
        while self.size_bytes > MAX_MEMORY_BYTES:
            self.forget(next(iter(self.answers)))

    def forget(self, scope: bytes) -> None:
        if old := self.answers.pop(scope, None):
            self.size_bytes -= _size(old)

    def find(self, scope: bytes) -> StoredAnswer | None:
        found = self.answers.get(scope)
        return found if found and found.valid else None


class IdempotentRequests:
    """Requests with a key: those under way, and the answers of those that were."""

    def __init__(self, store: IdempotencyStore | None) -> None:
        self._store = store
        self._memory = _Memory()
        self._running: dict[bytes, SharedRun] = {}
        self._tasks: set[asyncio.Task[web.StreamResponse]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Ends what is still under way at its end."""
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answer(self, request: web.Request, handler: Handler, scope: bytes, fingerprint: bytes) -> web.StreamResponse:
        """The first one's answer, made or waited for."""
        while True:
            run = self._running.get(scope)
            first = run is None
            if run is None:
                run = self._begun(request, handler, scope, fingerprint)
            elif run.fingerprint != fingerprint:
                return _conflict()
            await self._waited(run, scope, first=first, request=request)
            if first:
                return run.task.result()
            if run.task.cancelled() or isinstance(run.task.exception(), ConnectionError):
                continue  # its client left while this one came
            run.task.result()
            return _again(run.kept) if run.kept else _conflict() if run.reused else _too_large()

    def _begun(self, request: web.Request, handler: Handler, scope: bytes, fingerprint: bytes) -> SharedRun:
        self._running[scope] = run = SharedRun(fingerprint)
        run.task = asyncio.create_task(self._found_or_made(request, handler, scope, run), name="request with a key")
        self._tasks.add(run.task)

        def ended(task: asyncio.Task[web.StreamResponse]) -> None:
            self._tasks.discard(task)
            self._forget(scope, run)
            if not task.cancelled():
                task.exception()

        run.task.add_done_callback(ended)
        return run

    def _forget(self, scope: bytes, run: SharedRun) -> None:
        if self._running.get(scope) is run:
            del self._running[scope]

    async def _waited(self, run: SharedRun, scope: bytes, *, first: bool, request: web.Request) -> None:
        """Waits for an answer. When nobody is left who waits for it, it is cancelled as any other request is."""
        longest_s = request.app[DISPATCHER].settings.environment.max_timeout_s + EXTRA_WAIT_S
        run.present += 1
        try:
            done, _ = await asyncio.wait({run.task}, timeout=None if first else longest_s)
            if not done:
                raise web.HTTPConflict(
                    text="the first request with this key is still being answered", headers={"Retry-After": "1"}
                )
        finally:
            run.present -= 1
            if not run.task.done():
                if run.present == 0:
                    self._forget(scope, run)
                    run.task.cancel()
                    await asyncio.wait({run.task})
                elif first:
                    run.left = True
                    if run.tape:
                        run.tape.alone = True
            seen = REQUEST_OUTCOMES.get()
            if seen and run.task.done():
                seen.outcomes += run.take()

    async def _found_or_made(self, request: web.Request, handler: Handler, scope: bytes, run: SharedRun) -> web.StreamResponse:
        if found := self._memory.find(scope) or (await self._store.find(scope) if self._store else None):
            if found.fingerprint != run.fingerprint:
                run.reused = True
                return _conflict()
            run.kept = found
            return _again(found)
        return await self._made(request, handler, scope, run)

    async def _made(self, request: web.Request, handler: Handler, scope: bytes, run: SharedRun) -> web.StreamResponse:
        """Answers the request as ever, except that its end is recorded here: its client may have left before."""
        REQUEST_OUTCOMES.set(run.seen)  # in this task alone

        async def ended(stream: ReplayableStream) -> None:
            if run.tape and run.tape.said is not None:
                await self._keep(scope, run, _kept(request, run, stream.status, stream.given, bytes(run.tape.said)))

        request[STREAM_RECORDING] = run.tape = StreamRecording(ended, lambda: run.present > 1)
        run.tape.alone = run.left
        began, status = time.perf_counter(), CLIENT_LEFT
        try:
            response = await handler(request)
            status = response.status
            if isinstance(response, web.Response) and isinstance(response.body, bytes | bytearray):
                await self._keep(scope, run, _kept(request, run, status, dict(response.headers), bytes(response.body)))
        finally:
            history.record_comparison(request, status, time.perf_counter() - began, run.seen)
        return response

    async def _keep(self, scope: bytes, run: SharedRun, answer: StoredAnswer) -> None:
        run.kept = answer
        if len(answer.body) > MAX_BYTES or not _is_worth(answer.status, run.seen.outcomes):
            return
        if self._store is None:
            self._memory.keep(scope, answer)
            return
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self._store.keep(scope, answer)
        except (StoreError, TimeoutError) as error:
            log.error("an answer is kept in memory alone: it cannot be written", reason=str(error) or "it takes too long")
            self._memory.keep(scope, answer)


IDEMPOTENCY = web.AppKey("idempotency", IdempotentRequests)


async def respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers a request that has a key.

    Raises:
        RequestError: the key is none, or stands before a body that may not be held in memory.
    """
    key = _key(request)
    if request.content_type.startswith("multipart/"):
        raise RequestError([Fault(HEADER, "is not taken for a file that is sent: send the file again, or the rest as JSON")])
    raw = await request_body.read_raw_body(request)
    long = len(raw) > LONG_BODY_BYTES
    fingerprint = await asyncio.to_thread(_digest, raw) if long else _digest(raw)
    try:
        return await request.app[IDEMPOTENCY].answer(request, handler, _scope(request, key), fingerprint)
    except StoreError as error:
        log.error("answers cannot be looked up", reason=str(error))
        message = f"whether this `{HEADER}` was answered before cannot be looked up now; nothing was called"
        return envelope(503, message, type_="server_error", code="store_unavailable", headers={"Retry-After": "1"})


def _key(request: web.Request) -> str:
    given = request.headers.getall(HEADER)
    if len(given) > 1:
        raise RequestError([Fault(HEADER, f"is given {len(given)} times: once is allowed")])
    if not KEY_PATTERN.fullmatch(given[0]):
        raise RequestError([Fault(HEADER, f"{given[0][:80]!a} is not allowed: 1 to 255 printable ASCII characters")])
    return given[0]


def _scope(request: web.Request, key: str) -> bytes:
    """Whose key this is. Who shows other keys, Fanout's or a provider's, or names another account, is somebody else."""
    providers = request.app[DISPATCHER].settings.providers.values()
    own = sorted({provider.row.key_header for provider in providers if provider.row.key_header})
    names = ("Authorization", "x-api-key", "x-selected-account-id", *own)
    shown = (f"{name}: {request.headers.get(name, '')}" for name in names)
    return _digest("\n".join((request.rel_url.raw_path_qs, *shown, key)).encode(errors="surrogateescape"))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _kept(request: web.Request, run: SharedRun, status: int, given: dict[str, str], said: bytes) -> StoredAnswer:
    if comparison := request.get(COMPARISON):
        given = {**given, "x-comparison-id": comparison.id}
    headers = {name: value for name, value in given.items() if name != "Content-Length"}
    return StoredAnswer(run.fingerprint, status, headers, said, time.time())


def _is_worth(status: int, outcomes: list[Outcome]) -> bool:
    """Whether an answer was paid for, or may have been; or, where nobody was called, whether something was done."""
    if not outcomes:
        return 200 <= status < 300
    return any(isinstance(outcome.result, Completion) or _may_be_billed(outcome) for outcome in outcomes)


def _may_be_billed(outcome: Outcome) -> bool:
    result = outcome.result
    return isinstance(result, Failure) and outcome.timing.attempts > 0 and (result.kind in BILLABLE or bool(result.partial))


def _again(kept: StoredAnswer) -> web.Response:
    return web.Response(status=kept.status, headers={**kept.headers, REPLAYED: "true"}, body=kept.body)


def _conflict() -> web.Response:
    message = f"this `{HEADER}` came with another body before: one key stands for one request; send a new key"
    return envelope(409, message, param=HEADER, code="idempotency_key_reused", headers={"x-should-retry": "false"})


def _too_large() -> web.Response:
    message = f"the answer was given to the first request with this key; it has more than {MAX_BYTES} bytes and is not kept"
    return envelope(409, message, param=HEADER, code="idempotency_answer_too_large", headers={"x-should-retry": "false"})


def _size(answer: StoredAnswer) -> int:
    return len(answer.body) + 1024
