"""Endpoints that a server imports once it listens."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from operator import attrgetter
from typing import Any

import pytest
from aiohttp import web

from fanout.server.endpoints import ENDPOINTS
from fanout.server.openapi.endpoint import Endpoint
from fanout.server.routes import ROUTES, Routes
from tests.support.server import Server, serve

FIRST = ENDPOINTS[:1]
KEY = "key-one-abcdefghij"
AUTHORIZATION = {"Authorization": f"Bearer {KEY}"}


async def fetch(server: Server, path: str, **options: Any) -> tuple[int, str]:
    async with server.session.get(path, **options) as reply:
        return reply.status, await reply.text()


async def test_the_first_requests_for_endpoints_that_are_not_imported_yet_wait_for_them() -> None:
    async with serve() as server:
        assert len(server.app[ROUTES].endpoints) < len(ENDPOINTS)
        assert not server.app[ROUTES].are_complete
        paths = ("/v1/models", "/", "/v1/models/none", "/docs")
        replies = await asyncio.gather(*(fetch(server, path) for path in paths))

    assert [status for status, _ in replies] == [200, 200, 404, 200]
    assert server.app[ROUTES].endpoints == ENDPOINTS
    assert server.app[ROUTES].are_complete


async def test_a_first_endpoint_is_served_without_the_others() -> None:
    async with serve() as server, server.session.get("/livez") as reply:
        assert reply.status == 200
        assert len(server.app[ROUTES].endpoints) < len(ENDPOINTS)


async def test_an_unknown_path_and_a_wrong_method_are_refused_as_ever() -> None:
    async with serve() as server:
        async with server.session.get("/v1/modelz") as unknown:
            message = (await unknown.json())["error"]["message"]
        async with server.session.delete("/v1/completion") as first, server.session.delete("/v1/models") as later:
            pass

    assert (unknown.status, "/v1/models" in message) == (404, True)
    assert (first.status, first.headers["Allow"]) == (405, "POST")
    assert (later.status, later.headers["Allow"]) == (405, "GET,HEAD")


async def test_an_import_that_fails_is_an_error_in_its_envelope_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shortages = [OSError(errno.EMFILE, os.strerror(errno.EMFILE))] * 3  # of files, for three requests

    def import_all() -> tuple[Endpoint, ...]:
        if shortages:
            raise shortages.pop()
        return ENDPOINTS

    monkeypatch.setattr("fanout.server.app.import_endpoints", import_all)
    async with serve(FANOUT_API_KEYS=KEY) as server:
        strange, _ = await fetch(server, "/v1/models")
        paths = ("/v1/models", "/v1/jobs/x", "/livez", "/metrics", "/v1/models")
        replies = [await fetch(server, path, headers=AUTHORIZATION) for path in paths]
    (_, failure), page = replies[0], replies[3][1]

    assert (strange, [status for status, _ in replies]) == (401, [500, 500, 200, 200, 200])
    assert json.loads(failure)["error"]["code"] == "internal_error"
    assert '_count{http_request_method="GET",http_route="unknown",http_response_status_code="500"} 2.0' in page


async def test_endpoints_are_imported_once_and_off_the_event_loop() -> None:
    imports: list[bool] = []

    def import_all() -> tuple[Endpoint, ...]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            imports.append(True)
        return ENDPOINTS

    app = web.Application()
    routes = Routes(app.router, FIRST, import_all, attrgetter("handler"))
    await asyncio.gather(*(routes.complete() for _ in range(5)))

    assert (imports, routes.endpoints) == ([True], ENDPOINTS)
