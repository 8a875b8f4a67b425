"""A real upstream on this machine that answers by the model's name and records the requests and how clients left.

`Upstream` speaks the OpenAI wire format (any path that ends in `/chat/completions` or `/completions`, whole and streamed)
over a bare socket, so that it can also break it. The table of names is the docstring of `script.py`; in short:

    ok · echo · say-hello · chunks-100-gap-0.002 · tokens-500 · sleep-0.3 · first-0.2 · tail-0.2 · mb-50
    429-s-0.2 · 429-ms-200 · 429-date-1 · 429-s-soon · fail-2-then-ok · 429-times-3-s-0.1-then-ok · error-502
    hang · hang_body · drop · cut · rst · bad_http · bad_chunk · bad_json · bad_sse · empty_choices · no_usage · unfinished
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

import trustme

from tests.support.upstream.answers import Answer
from tests.support.upstream.connection import Connection, Request
from tests.support.upstream.script import Script, choose_phase, parse_script


class Upstream:
    """A server on 127.0.0.1 while its `async with` lasts; with `tls` its certificate is signed by an unknown authority."""

    def __init__(self, *, tls: bool = False) -> None:
        self.requests: list[Request] = []
        self.peak = 0
        """Most requests in flight at once."""
        self.peaks: Counter[str] = Counter()
        """The same by model."""
        self.connections = 0
        """Number of connections ever opened."""
        self.authority = trustme.CA() if tls else None
        self._calls: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._open: set[Connection] = set()
        self.errors: list[Exception] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self), "127.0.0.1", 0, ssl=self._create_ssl_context(), backlog=4096
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in tuple(self._open):
            connection.abort()
        await self.wait_until_closed()
        await self._server.wait_closed()
        if self.errors:
            raise ExceptionGroup("in the upstream itself", self.errors)

    def _create_ssl_context(self) -> ssl.SSLContext | None:
        if self.authority is None:
            return None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.authority.issue_cert("127.0.0.1").configure_cert(context)
        return context

    @property
    def origin(self) -> str:
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The `base_url` of this provider."""
        return f"{self.origin}/v1"

    @property
    def in_flight(self) -> int:
        return self._running.total()

    @property
    def open_connections(self) -> int:
        return len(self._open)

    @property
    def abandoned(self) -> list[Request]:
        """The requests whose clients closed the connection before the end of the answer."""
        return [request for request in self.requests if request.is_abandoned]

    def requests_for(self, model: str) -> list[Request]:
        """Return the requests for one model, in order of arrival."""
        return [request for request in self.requests if request.model == model]

    async def wait_for_requests(self, count: int, timeout_s: float = 5.0) -> None:
        """Wait until `count` requests have arrived in all."""
        await self._wait_until(
            lambda: len(self.requests) >= count, timeout_s, lambda: f"{len(self.requests)} of {count} arrived"
        )

    async def wait_until_idle(self, timeout_s: float = 5.0) -> None:
        """Wait until no request is in flight."""
        await self._wait_until(lambda: not self.in_flight, timeout_s, lambda: f"still in flight: {dict(+self._running)}")

    async def wait_until_closed(self, timeout_s: float = 5.0) -> None:
        """Wait until no connection is open and no request in flight."""
        await self._wait_until(
            lambda: not self._open and not self.in_flight, timeout_s, lambda: f"{self.open_connections} connections still open"
        )

    async def _wait_until(self, reached: Callable[[], bool], timeout_s: float, complaint: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"{complaint()} after {timeout_s} s") from None

    def _notify(self) -> None:
        self._changed.set()  # wakes those who wait now and nobody later, because it is cleared at once
        self._changed.clear()

    def add_connection(self, connection: Connection) -> int:
        """Return the number of a new connection."""
        if not self._server.is_serving():  # accepted during closing
            connection.abort()
        self._open.add(connection)
        self.connections += 1
        self._notify()
        return self.connections - 1

    def remove_connection(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._notify()

    def begin_answer(self, request: Request) -> Answer:
        """Record a request that has arrived and return its answer."""
        self.requests.append(request)
        self._running[request.model] += 1
        self.peak = max(self.peak, self.in_flight)
        self.peaks[request.model] = max(self.peaks[request.model], self._running[request.model])
        self._notify()
        return Answer(
            script=self._choose_script(request),
            body=request.body,
            chat=request.path.endswith("/chat/completions"),
            number=len(self.requests),
            secret=request.headers.get("authorization", ""),
            origin=self.origin,
        )

    def end_answer(self, request: Request) -> None:
        self._running[request.model] -= 1
        self._notify()

    def _choose_script(self, request: Request) -> Script:
        if request.method == "POST" and request.path.endswith("/completions"):
            with suppress(ValueError):
                phases = parse_script(request.model)
                self._calls[request.model] += 1
                return choose_phase(phases, self._calls[request.model] - 1)
        return Script(status=404, code="model_not_found")


@contextmanager
def reserve_refusing_url() -> Iterator[str]:
    """Yield a `base_url` where connections are refused: the port is held, so that nobody else can listen on it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/v1"
