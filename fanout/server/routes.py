"""The routes of a server: the few that it must have at once, and all others, which it imports when it listens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import HttpVersion11, web

from fanout.core.threads import run_in_thread
from fanout.server.openapi.endpoint import Endpoint, Handler


class Routes:
    """The routes of an application.

    Importing all endpoints is an eighth of a server's start (2026-11-28), so that most come in a thread once it listens. A
    request for one of those that comes sooner waits for that, and so does one whose path or method the first ones do not have.
    """

    def __init__(
        self,
        router: web.UrlDispatcher,
        first: tuple[Endpoint, ...],
        import_all: Callable[[], tuple[Endpoint, ...]] | None,
        wrap: Callable[[Endpoint], Handler],
    ) -> None:
        """Add the routes of the first endpoints to the application's router.

        Args:
            router: the application's.
            first: endpoints that it has from the start.
            import_all: imports and returns all endpoints, the first ones among them; `None`: there are no others.
            wrap: makes the handler of an endpoint's routes.
        """
        self.endpoints = first
        """Those that are known by now: all once `complete` has returned."""
        self.public_paths: frozenset[str] = frozenset()
        """Paths, as the router writes them, of those that are served without a key, even while the server stops."""
        self._import_all, self._wrap, self._lock = import_all, wrap, asyncio.Lock()
        self._others = _OtherRoutes(self.complete)
        self._add(router, first)
        if import_all:
            router.register_resource(self._others)

    @property
    def are_complete(self) -> bool:
        """Nothing is left to be imported."""
        return self._import_all is None or self._others.are_known

    async def complete(self) -> None:
        """Import the endpoints that are missing, and add their routes.

        Raises:
            OSError: their files cannot be read just now; the next call tries again.
        """
        async with self._lock:
            if self._import_all and not self._others.are_known:
                endpoints = await run_in_thread("setup", self._import_all)
                self._add(self._others.router, [endpoint for endpoint in endpoints if endpoint not in self.endpoints])
                self.endpoints = endpoints
                self._others.are_known = True

    def _add(self, router: web.UrlDispatcher, endpoints: Sequence[Endpoint]) -> None:
        for endpoint in endpoints:
            handler = self._wrap(endpoint)
            for method in ("HEAD", "GET") if endpoint.method == "GET" else (endpoint.method,):
                router.add_route(method, endpoint.path, handler, expect_handler=send_continue)
        self.public_paths |= {endpoint.template for endpoint in endpoints if endpoint.is_public}


ROUTES = web.AppKey("routes", Routes)


class _OtherRoutes(web.PlainResource):
    """The routes that are added once the application serves, when its own router takes none any more."""

    def __init__(self, complete: Callable[[], Awaitable[None]]) -> None:
        super().__init__("/")  # where a router looks last
        self.router, self.are_known, self._complete = web.UrlDispatcher(), False, complete
        self._reason = ""
        # One for all failures: aiohttp keeps every handler that it has called. As this resource has no routes, it is false, and
        # its path no route's name, nor a public one.
        self._failing = web.ResourceRoute("*", self._fail, self)

    async def resolve(self, request: web.Request) -> tuple[web.UrlMappingMatchInfo | None, set[str]]:
        if not self.are_known:
            try:
                await self._complete()
            except OSError as error:
                self._reason = str(error)
                return web.UrlMappingMatchInfo({}, self._failing), set()
        found = await self.router.resolve(request)
        refusal = found.http_exception
        if refusal is None:
            return found, set()
        return None, refusal.allowed_methods if isinstance(refusal, web.HTTPMethodNotAllowed) else set()

    async def _fail(self, _: web.Request) -> web.StreamResponse:
        # As a handler, whose failure is logged and answered as any other.
        raise OSError(f"endpoints cannot be imported: {self._reason}")


async def send_continue(request: web.Request) -> None:
    """Send `100 Continue` to a client that waits for it; ignore any other expectation.

    Source: RFC 9110 §10.1.1, which leaves it to the server. aiohttp's own handler answers 417 past the middlewares.
    """
    if request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
