"""A real upstream on this machine that answers by the model's name, and remembers what it was asked and how clients left.

`Upstream` speaks the OpenAI wire format (any path that ends in `/chat/completions` or `/completions`, whole and streamed)
over a bare socket, so that it can also break it. The table of names is the docstring of `playbook.py`; in short:

    ok · echo · say-hello · chunks-100-gap-0.002 · tokens-500 · sleep-0.3 · first-0.2 · tail-0.2 · mb-50
    429-s-0.2 · 429-ms-200 · 429-date-1 · 429-s-soon · fail-2-then-ok · 429-times-3-s-0.1-then-ok · error-502
    hang · hang_body · drop · cut · rst · bad_http · bad_chunk · bad_json · bad_sse · empty_choices · no_usage · unfinished
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import trustme

from tests.support.answers import Answer
from tests.support.connection import Connection, Request
from tests.support.playbook import MATRIX, Script, parse, phase_of


class Upstream:
    """A server on 127.0.0.1 while its `async with` lasts; with `tls` its certificate is signed by nobody known."""

    def __init__(self, *, tls: bool = False) -> None:
        self.requests: list[Request] = []
        self.peak = 0
        """Most requests in flight at once."""
        self.peaks: Counter[str] = Counter()
        """The same by model."""
        self.connections = 0
        """How many were ever opened."""
        self.authority = trustme.CA() if tls else None
        self._calls: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._open: set[Connection] = set()
        self.faults: list[Exception] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), "127.0.0.1", 0, ssl=self._certified(), backlog=4096)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in tuple(self._open):
            connection.abort()
        await self.closed()
        await self._server.wait_closed()
        if self.faults:
            raise ExceptionGroup("in the upstream itself", self.faults)

    def _certified(self) -> ssl.SSLContext | None:
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
        return [request for request in self.requests if request.abandoned]

    def of(self, model: str) -> list[Request]:
        """The requests for one model, in order of arrival."""
        return [request for request in self.requests if request.model == model]

    async def arrived(self, count: int, timeout_s: float = 5.0) -> None:
        """Waits until `count` requests have arrived in all."""
        await self._until(lambda: len(self.requests) >= count, timeout_s, lambda: f"{len(self.requests)} of {count} arrived")

    async def quiet(self, timeout_s: float = 5.0) -> None:
        """Waits until no request is in flight."""
        await self._until(lambda: not self.in_flight, timeout_s, lambda: f"still in flight: {dict(+self._running)}")

    async def closed(self, timeout_s: float = 5.0) -> None:
        """Waits until no connection is open and no request in flight."""
        await self._until(
            lambda: not self._open and not self.in_flight, timeout_s, lambda: f"{self.open_connections} connections still open"
        )

    async def _until(self, reached: Callable[[], bool], timeout_s: float, complaint: Callable[[], str]) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not reached():
                    await self._changed.wait()
        except TimeoutError:
            raise TimeoutError(f"{complaint()} after {timeout_s} s") from None

    def _note(self) -> None:
        self._changed.set()  # wakes who waits now; nobody later, for it is cleared at once
        self._changed.clear()

    # What follows is told by the connections.

    def opened(self, connection: Connection) -> int:
        if not self._server.is_serving():  # accepted while we were closing
            connection.abort()
        self._open.add(connection)
        self.connections += 1
        self._note()
        return self.connections - 1

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._note()

    def begun(self, request: Request) -> Answer:
        self.requests.append(request)
        self._running[request.model] += 1
        self.peak = max(self.peak, self.in_flight)
        self.peaks[request.model] = max(self.peaks[request.model], self._running[request.model])
        self._note()
        return Answer(
            script=self._script(request),
            body=request.body,
            chat=request.path.endswith("/chat/completions"),
            number=len(self.requests),
            secret=request.headers.get("authorization", ""),
            origin=self.origin,
        )

    def ended(self, request: Request) -> None:
        self._running[request.model] -= 1
        self._note()

    def _script(self, request: Request) -> Script:
        if request.method == "POST" and request.path.endswith("/completions"):
            with suppress(ValueError):
                phases = parse(request.model)
                self._calls[request.model] += 1
                return phase_of(phases, self._calls[request.model] - 1)
        return Script(status=404, code="model_not_found")


@contextmanager
def refusing_url() -> Iterator[str]:
    """A `base_url` where connections are refused: the port is held, so nobody else can begin to listen on it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/v1"


def providers_file(
    upstream_url: str, folder: Path, *, more: Mapping[str, Mapping[str, Any]] | None = None, **provider_row: Any
) -> Path:
    """A providers.json for tests: provider `up` at `upstream_url` (its row as given), `local`, and a model for every fault.

    `up/<script>` calls any script; the names of `MATRIX` are also models of their own: `<script>` as a chat model,
    `<script>-text` as a text model. `more` adds to the sections: `{"models": {…}, "sets": {…}, "providers": {…}}`.
    """
    sections: dict[str, dict[str, Any]] = {
        "providers": {
            "up": {"adapter": "openai", "base_url": upstream_url, **provider_row},
            "local": {"adapter": "ngram", "default_kind": "both"},
        },
        "models": {name: {"provider": "up", "id": name, "kind": "chat"} for name in MATRIX}
        | {f"{name}-text": {"provider": "up", "id": name, "kind": "text"} for name in MATRIX},
    }
    for section, rows in (more or {}).items():
        sections.setdefault(section, {}).update(rows)
    path = folder / "providers.json"
    path.write_text(json.dumps({"extends": False, **sections}, indent=2))
    return path
