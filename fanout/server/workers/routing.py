"""The worker that must answer a request, where not any can."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from aiohttp import web

from fanout.server.live_comparisons import LIVE_COMPARISONS
from fanout.server.openapi.endpoint import Endpoint, Handler
from fanout.server.resources import keys
from fanout.server.workers.peers import PEERS
from fanout.server.workers.seat import LEADER

FindOwner = Callable[[web.Request], Awaitable[int | None]]
"""Returns the number of the worker that must answer a request; `None`: this one."""


async def _find_leader(request: web.Request) -> int | None:
    return LEADER


async def _find_holder(request: web.Request) -> int | None:
    id_ = request.match_info["id"]
    return None if request.app[LIVE_COMPARISONS].find(id_, None) else await request.app[PEERS].find_holder(id_)


async def _find_home(request: web.Request) -> int | None:
    return request.app[PEERS].choose_home(request.match_info["key_id"].encode())


OWNERS: Mapping[str, FindOwner] = {
    "GET /metrics": _find_leader,
    "POST /v1/config/reload": _find_leader,
    f"GET {keys.ONE}": _find_home,
    "GET /v1/comparisons/{id}/events": _find_holder,
    "POST /v1/comparisons/{id}/cancel": _find_holder,
}
"""By endpoint. Requests with an `Idempotency-Key` are sent on where the key is read."""


def send_to_owner(endpoint: Endpoint) -> Handler:
    """Return the handler of an endpoint that sends each request to the worker that must answer it."""
    find_owner = OWNERS.get(f"{endpoint.method} {endpoint.path}")
    return endpoint.handler if find_owner is None else partial(_answer, endpoint.handler, find_owner)


async def _answer(handler: Handler, find_owner: FindOwner, request: web.Request) -> web.StreamResponse:
    peers = request.app[PEERS]
    owner = await find_owner(request)
    return await (handler(request) if owner in (None, peers.seat.number) else peers.forward(request, owner))
