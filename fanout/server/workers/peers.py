"""What the workers of a server do for each other: requests go to the worker that can answer them, and questions to all.

Each worker has two sockets in a folder that nobody else may enter: one serves requests that another worker has received, one
answers the other workers' own questions.
"""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.reduction import ForkingPickler
from typing import NamedTuple

import aiohttp
from aiohttp import web
from pydantic_core import to_json
from yarl import URL

from fanout.config.settings import Settings
from fanout.core.errors import ConfigError, StoreError
from fanout.observability.logs import log
from fanout.server.accounts.admission import KEY_LEDGER
from fanout.server.accounts.directory import KEY_DIRECTORY
from fanout.server.afterwork import AFTERWORK
from fanout.server.lifecycle import JOB_MANAGER, METRICS, REQUEST_ID, STORE
from fanout.server.listening import BACKLOG, RescueSite, Site
from fanout.server.live_comparisons import LIVE_COMPARISONS
from fanout.server.middleware.request import FORWARDED
from fanout.server.reloading import RELOADER
from fanout.server.request_body import read_raw_body
from fanout.server.workers.figures import WorkersFigures
from fanout.server.workers.seat import SETTINGS, Seat

QUESTION_TIMEOUT_S = 2.0
"""The longest wait for another worker's answer to a question."""
REACH_TIMEOUT_S = 3.0
"""The longest wait for a worker that is being replaced."""
REACH_PAUSE_S = 0.05
HOP_HEADERS = frozenset(
    ("connection", "keep-alive", "trailer", "transfer-encoding", "upgrade", "expect", "content-length", "date")
)
"""Headers of one connection, not of the request or its answer. Source: RFC 9110 §7.6.1."""


class WorkerAnswer(NamedTuple):
    """A worker's answer to a question."""

    number: int
    is_yes: bool
    body: bytes


class UnreachableError(web.HTTPServiceUnavailable):
    """The worker that must answer a request does not answer."""

    def __init__(self) -> None:
        super().__init__(text="the process that must answer this is being replaced", headers={"Retry-After": "1"})


class Peers:
    """The other workers."""

    def __init__(self, seat: Seat, app: web.Application) -> None:
        self.seat = seat
        self._app = app
        self._figures = WorkersFigures(seat)
        self._forwarders: dict[int, aiohttp.ClientSession] = {}
        self._askers: dict[int, aiohttp.ClientSession] = {}

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Answer the others' questions, and be able to ask."""
        async with AsyncExitStack() as stack:
            for number in range(self.seat.count):
                if number != self.seat.number:
                    self._forwarders[number] = await stack.enter_async_context(_connect(self._name_socket(number, "forwarded")))
                    self._askers[number] = await stack.enter_async_context(_connect(self._name_socket(number, "control")))
            # Apart from forwarded requests, so that callers, however many, do not hold up the workers' own questions.
            control = web.AppRunner(self._make_control_app(), access_log=None, shutdown_timeout=0)
            await control.setup()
            stack.push_async_callback(control.cleanup)
            await web.UnixSite(control, self._name_socket(self.seat.number, "control")).start()
            if store := self._app.get(STORE):
                store.database.before_reading = self._have_written
            if manager := self._app.get(JOB_MANAGER):
                manager.on_cancel = self._stop_job
            self._app[RELOADER].spread = self._spread
            yield

    async def open_sites(self, runner: web.AppRunner) -> Sequence[Site]:
        """Serve the port, and requests that other workers have received."""
        forwarded = web.UnixSite(runner, self._name_socket(self.seat.number, "forwarded"))
        others = [one for number, of in enumerate(self.seat.listeners) if number != self.seat.number for one in of]
        own = (web.SockSite(runner, one, backlog=BACKLOG) for one in self.seat.listeners[self.seat.number])
        sites: list[Site] = [forwarded, *own, RescueSite(runner, others)]
        for site in sites:
            await site.start()
        if self.seat.is_leader and self.seat.is_replacement:
            # The one before may have died while it gave a new configuration to the others.
            await self.tell("settings", _pack(self.seat.settings))
        return sites

    def _name_socket(self, number: int, kind: str) -> str:
        return str(self.seat.folder / f"{number}.{kind}")

    async def forward(self, request: web.Request, number: int) -> web.StreamResponse:
        """Have another worker answer a request; raise `HTTPServiceUnavailable` if it cannot be reached."""
        body = await read_raw_body(request) if request.body_exists else None
        # What was read is unpacked; and the id is ours, also where that of the caller could not be taken.
        dropped = HOP_HEADERS | {"x-request-id"} | ({"content-encoding"} if body is not None else set())
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
        headers.append(("x-request-id", request[REQUEST_ID]))
        url = URL(f"http://worker{request.rel_url.raw_path_qs}", encoded=True)
        async with AsyncExitStack() as stack:
            for _ in range(int(REACH_TIMEOUT_S / REACH_PAUSE_S)):
                try:
                    call = self._forwarders[number].request(request.method, url, headers=headers, data=body)
                    answer = await stack.enter_async_context(call)
                    break
                except aiohttp.ClientConnectorError:
                    # Nothing was sent: whoever takes its place can answer it, half a second later.
                    await asyncio.sleep(REACH_PAUSE_S)
                except aiohttp.ClientError as error:
                    # It died with the request, which may have made calls: not to be sent a second time by us.
                    raise UnreachableError from error
            else:
                raise UnreachableError
            request[FORWARDED] = True
            return await _relay(request, answer)

    async def tell(self, subject: str, body: bytes = b"", *, needs_all: bool = True) -> list[WorkerAnswer]:
        """Ask all other workers, at once; those that are dead have no answer.

        Raises:
            HTTPServiceUnavailable: one lives and does not answer, but all must.
        """
        asked = (self._ask(number, subject, body) for number in self._askers)
        answers = await asyncio.gather(*asked, return_exceptions=not needs_all)
        return [answer for answer in answers if isinstance(answer, WorkerAnswer)]

    async def _ask(self, number: int, subject: str, body: bytes) -> WorkerAnswer | None:
        try:
            async with self._askers[number].post(f"http://worker/{subject}", data=body) as response:
                return WorkerAnswer(number, response.status == 200, await response.read())
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return None
        except TimeoutError as error:
            log.warning("worker.silent", worker=number, question=subject.partition("/")[0])
            raise UnreachableError from error

    def choose_home(self, scope: bytes) -> int:
        """Return the worker of a scope: always the same one."""
        return zlib.crc32(scope) % self.seat.count

    def forward_by_scope(self, request: web.Request, scope: bytes) -> Awaitable[web.StreamResponse] | None:
        """Have one worker answer all requests of a scope, so that it can tell which are repetitions; `None`: it is this one."""
        owner = self.choose_home(scope)
        return None if owner == self.seat.number or is_forwarded(request) else self.forward(request, owner)

    async def find_holder(self, comparison_id: str) -> int | None:
        """Return the worker that keeps the events of a comparison."""
        answers = await self.tell("holding", comparison_id.encode(errors="replace"))
        return next((answer.number for answer in answers if answer.is_yes), None)

    async def render_metrics(self) -> bytes:
        """Return the page of metrics, summed over all workers; for the leader."""
        return await self._figures.render(
            self._app[METRICS], {one.number: one.body for one in await self.tell("figures", needs_all=False)}
        )

    async def _have_written(self) -> None:
        """Have the other workers write what they keep back, so that the store has everything that has ended."""
        # Of one that does not answer, what is there can be read all the same.
        await self.tell("write", needs_all=False)

    async def _stop_job(self, number: int) -> None:
        # One that does not answer finds out when it renews its lease.
        await self.tell("cancelled", str(number).encode(), needs_all=False)

    async def _spread(self, settings: Settings) -> None:
        """Give all workers a configuration, also those to come."""
        await self.seat.keep(SETTINGS, settings)  # first: then it is whole even if this process dies here
        await self.tell("settings", _pack(settings))

    def _make_control_app(self) -> web.Application:
        control = web.Application(client_max_size=2**26)
        for path, handler in (
            ("/figures", self._answer_figures),
            ("/write", self._write),
            ("/keys", self._refresh_keys),
            ("/cancelled", self._stop_cancelled),
            ("/settings", self._take_settings),
            ("/holding", self._answer_holding),
        ):
            control.router.add_post(path, handler)
        return control

    async def _answer_figures(self, _: web.Request) -> web.Response:
        self._app[AFTERWORK].finish()
        return web.Response(body=to_json(self._app[METRICS].export() | {"pid": os.getpid()}))

    async def _write(self, _: web.Request) -> web.Response:
        await write_all(self._app)
        return web.Response()

    async def _refresh_keys(self, _: web.Request) -> web.Response:
        try:
            await self._app[KEY_DIRECTORY].refresh()
        except StoreError:  # it looks again within two seconds
            return web.Response(status=503)
        return web.Response()

    async def _stop_cancelled(self, request: web.Request) -> web.Response:
        if manager := self._app.get(JOB_MANAGER):
            manager.stop_here(int(await request.read()))
        return web.Response()

    async def _take_settings(self, request: web.Request) -> web.Response:
        try:
            await self._app[RELOADER].take(ForkingPickler.loads(await request.read()))
        except ConfigError as error:
            # It was good for the leader. Whoever takes this place begins with it.
            log.error("config.reload_failed", worker=self.seat.number, faults=str(error).splitlines())
            return web.Response(status=409)
        return web.Response()

    async def _answer_holding(self, request: web.Request) -> web.Response:
        found = self._app[LIVE_COMPARISONS].find(await request.text(), None)
        return web.Response(status=200 if found else 404)


PEERS = web.AppKey("peers", Peers)
"""Absent in a server of one process."""


def is_forwarded(request: web.Request) -> bool:
    """Return whether another worker has received a request and sent it on."""
    return request.transport is not None and isinstance(request.transport.get_extra_info("sockname"), str)


async def write_all(app: web.Application) -> None:
    """Write at once what is kept back to be written."""
    app[AFTERWORK].finish()
    if store := app.get(STORE):
        await asyncio.gather(store.write(), app[KEY_LEDGER].write())


async def refresh_keys(app: web.Application) -> None:
    """Have a change of keys count in all workers before its answer leaves; raise `StoreError` if they cannot be read."""
    await app[KEY_DIRECTORY].refresh()
    if peers := app.get(PEERS):
        await peers.tell("keys")


def _pack(settings: Settings) -> bytes:
    return bytes(ForkingPickler.dumps(settings))


def _connect(path: str) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=QUESTION_TIMEOUT_S if path.endswith("control") else None)
    return aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(path, limit=0),
        timeout=timeout,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
    )


async def _relay(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Send another worker's answer on, as it comes."""
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in HOP_HEADERS:
            response.headers.add(name, value)
    if answer.content_length is not None:
        response.content_length = answer.content_length
    if answer.headers.get("Connection", "").lower() == "close":
        response.force_close()
    await response.prepare(request)
    try:
        async for piece in answer.content.iter_any():
            await response.write(piece)
    except aiohttp.ClientError as error:
        # It died amid its answer. The head has been sent, and an orderly end would make the part look like the whole.
        if request.transport:
            request.transport.abort()
        raise ConnectionResetError("the worker is gone") from error
    await response.write_eof()
    return response
