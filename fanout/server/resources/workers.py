"""`GET /v1/workers`: the processes that share the store, and what each does."""

from __future__ import annotations

from aiohttp import web

from fanout.rendering.processes import ProcessListJson, render_process
from fanout.server.accounts.callers import require_admin
from fanout.server.lifecycle import PRESENCE, STORE
from fanout.server.openapi.endpoint import Endpoint, list_store_answers
from fanout.server.resources.listing import list_response
from fanout.server.resources.storage import needs_store


@needs_store
async def list_workers(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/workers`."""
    require_admin(request)  # it names jobs of all accounts, and hosts
    own = request.app[PRESENCE].row
    # Of itself it knows what is newer; alone on a SQLite file it has no row at all.
    others = [row for row in await request.app[STORE].processes.list_processes() if row.id != own.id]
    return await list_response([own, *others], render_process, {"object": "list"})


EXAMPLE = {
    "id": "worker-7|7c0ee4bd-0b8a-4c8e-9d0a-3f5f6f0f3f0e.pid:[4026531836]|12|88113",
    "object": "process",
    "kind": "worker",
    "host": "worker-7",
    "pid": 12,
    "version": "1.0.0",
    "state": "working",
    "accounts": ["openai", "anthropic"],
    "age_s": 86402.5,
    "seen_s": 2.1,
    "activity": {
        "jobs": [
            {
                "id": "job_5f0c8a8e0d0b4f0e9f6a1d2c3b4a5968",
                "chunks": 3,
                "calls_in_flight": 41,
                "waiting": 3,
                "calls_per_second": 12.4,
            },
        ],
        "calls_in_flight": 41,
        "calls_waiting": 0,
        "calls_per_second": {"openai": 8.3, "anthropic": 4.1},
    },
}
ENDPOINTS = (
    Endpoint(
        "GET /v1/workers",
        list_workers,
        id="workers",
        tag="Server",
        summary="Processes that share the store",
        description="For administrators. The server that answers comes first, the others by their age.",
        answers=list_store_answers(ProcessListJson, "All processes.", {"a worker": {"object": "list", "data": [EXAMPLE]}}),
    ),
)
