"""Every operation of the OpenAPI document, called by everybody: who is let in, who is refused, and for whom nothing exists."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.server.endpoints import ENDPOINTS
from fanout.server.openapi.endpoint import Endpoint
from fanout.server.page.assets import load_assets
from tests.server.accounts.conftest import ADMIN, MODEL, Team, write_config
from tests.server.middleware.test_accounts import make_everything
from tests.support.client import Client, Reply
from tests.support.server import serve

CALLERS = ("owner", "second", "other", "admin", "viewer", "metrics", "none")
ALLOWED: Mapping[str, str] = {
    "public": "owner second other admin viewer metrics none",
    "work": "owner second other admin",  # calls models, or makes something of the caller's own
    "read": "owner second other admin viewer",  # of the server, or a list of the caller's own
    "metrics": "admin metrics",
    "keys": "admin",
    "self": "owner second other admin viewer metrics",
    "object": "owner second viewer",  # of the account `team`: to read it
    "change": "owner second",  # of the account `team`: to change it
}
"""Who is let in, by the kind of operation; for the others of "object" and "change" who may do the like, nothing is there."""
ROWS: Mapping[str, str] = {
    "GET /livez": "public",
    "GET /health": "public",
    "GET /readyz": "public",
    "GET /openapi.json": "public",
    "GET /docs": "public",
    "GET /": "public",
    "GET /assets/{digest}/{name}": "public",
    "GET /favicon.ico": "public",
    "GET /metrics": "metrics",
    "POST /v1/completion": "work",
    "POST /v1/completions": "work",
    "POST /v1/chat/completions": "work",
    "POST /openai/deployments/{model}/chat/completions": "work",
    "POST /openai/deployments/{model}/completions": "work",
    "POST /openai/deployments/{model}/embeddings": "work",
    "POST /v1/responses": "work",
    "POST /v1/embeddings": "work",
    "POST /v1/tokenize": "work",
    "POST /tokenize": "work",
    "POST /v2/completions": "work",
    "POST /v3/completions": "work",
    "POST /v4/completions": "work",
    "POST /v4/chat-completions": "work",
    "POST /v1/files": "work",
    "POST /v1/batches": "work",
    "POST /v1/jobs": "work",
    "POST /v1/votes": "work",
    "GET /v4/models": "read",
    "GET /user-info": "read",
    "GET /v1/models": "read",
    "GET /v1/models/{model}": "read",
    "GET /v1/providers": "read",
    "GET /v1/providers/figures": "read",
    "GET /v1/usage": "read",
    "GET /v1/files": "read",
    "GET /v1/batches": "read",
    "GET /v1/jobs": "read",
    "GET /v1/comparisons": "read",
    "GET /v1/votes": "read",
    "GET /v1/responses/{id}": "object",
    "GET /v1/files/{file_id}": "object",
    "GET /v1/files/{file_id}/content": "object",
    "GET /v1/batches/{batch_id}": "object",
    "GET /v1/jobs/{job_id}": "object",
    "GET /v1/jobs/{job_id}/results": "object",
    "GET /v1/jobs/{job_id}/results.{format}": "object",
    "GET /v1/jobs/{job_id}/items": "object",
    "GET /v1/jobs/{job_id}/report": "object",
    "GET /v1/jobs/{job_id}/gate": "object",
    "GET /v1/jobs/{job_id}/plan": "object",
    "GET /v1/jobs/{job_id}/events": "object",
    "GET /v1/comparisons/{id}": "object",
    "GET /v1/comparisons/{id}/events": "object",
    "POST /v1/batches/{batch_id}/cancel": "change",
    "POST /v1/jobs/{job_id}/cancel": "change",
    "POST /v1/jobs/{job_id}/resume": "change",
    "POST /v1/jobs/{job_id}/retry": "change",
    "POST /v1/jobs/{job_id}/scores": "change",
    "POST /v1/jobs/{job_id}/ballots": "change",
    "POST /v1/comparisons/{id}/ballots": "change",
    "POST /v1/comparisons/{id}/cancel": "change",
    "DELETE /v1/files/{file_id}": "change",
    "GET /v1/keys/self": "self",
    "POST /v1/keys": "keys",
    "GET /v1/keys": "keys",
    "GET /v1/keys/{key_id}": "keys",
    "PATCH /v1/keys/{key_id}": "keys",
    "POST /v1/keys/{key_id}/rotate": "keys",
    "DELETE /v1/keys/{key_id}": "keys",
    "GET /v1/audit": "keys",
    "GET /v1/workers": "keys",
    "POST /v1/config/reload": "keys",
}
BODIES: Mapping[str, Any] = {"POST /v1/jobs/{job_id}/scores": {"scorers": ["length"]}}
QUERIES = {"/gate": f"?model={MODEL}&baseline={MODEL}&margin=1", "/plan": "?difference=1"}


@pytest.fixture
async def team(tmp_path: Path) -> AsyncIterator[Team]:
    environ = {"FANOUT_API_KEYS": f"operator:{ADMIN}", "FANOUT_STORE": ":memory:", "FANOUT_HISTORY": "full"}
    async with serve(write_config(tmp_path), **environ) as server:
        yield Team(Client(server))


async def test_every_operation_lets_in_whom_it_should_and_nobody_else(team: Team) -> None:
    document = (await team.send(None, "GET", "/openapi.json")).json
    operations = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert operations == set(ROWS), "a new endpoint needs a row: who may call it?"

    keys: dict[str, str | None] = {"none": None}
    for name in CALLERS[:-1]:
        role = name if name in ("admin", "viewer", "metrics") else "user"
        account = "team" if name in ("owner", "second", "viewer") else name
        keys[name] = (await team.make_key(role=role, account_id=account))["key"]
    ids = await make_everything(team.client, str(keys["owner"]))
    ids["key_id"] = (await team.make_key(name="subject"))["id"]

    # What changes something last, and its owner last of all.
    for operation in sorted(ROWS, key=lambda row: (ROWS[row] in ("change", "keys"), row.startswith("DELETE"))):
        for caller in reversed(CALLERS):
            if caller == "second" and operation.startswith("DELETE"):
                continue  # nothing would be left for the owner
            got = await call(team, operation, keys[caller], ids)
            assert describe(got) in expect(ROWS[operation], caller), (operation, caller, got.status, got.body[:300])


def expect(kind: str, caller: str) -> tuple[str, ...]:
    """Return what may become of an operation of a kind."""
    if caller in ALLOWED[kind].split():
        return ("let in",)
    if caller == "none":
        return ("no key",)
    is_stranger = kind in ("object", "change") and caller in ("other", "admin")
    return ("not there",) if is_stranger else ("forbidden",)


def describe(got: Reply) -> str:
    """Return what has become of a request; what it says of the request itself does not matter."""
    if got.status in (401, 403):
        return {401: "no key", 403: "forbidden"}[got.status]
    is_exhausted = got.status == 404 and got.error["code"] == "ballots_exhausted"
    is_unknown_model = got.status == 404 and got.error["code"] == "model_not_found"
    return "not there" if got.status == 404 and not (is_exhausted or is_unknown_model) else "let in"


async def call(team: Team, operation: str, key: str | None, ids: Mapping[str, str]) -> Reply:
    method, _, template = operation.partition(" ")
    endpoint = find_endpoint(method, template)
    digest = load_assets().base.rpartition("/")[2]
    known = {"format": "csv", "model": MODEL, "digest": digest, "name": "page.css", **ids}
    if template == "/v1/responses/{id}":
        known["id"] = ids["response"]
    path = template.format(**known) + next((query for end, query in QUERIES.items() if template.endswith(end)), "")
    body: Any = None
    if method in ("POST", "PATCH"):
        body = BODIES.get(operation, next(iter(endpoint.examples.values()), {}))
    if operation == "POST /v1/votes":  # nobody has drawn it, which is no matter of keys
        return await team.send(key, method, path, {"ballot_id": 3})
    return await team.send(key, method, path, body)


def find_endpoint(method: str, template: str) -> Endpoint:
    return next(one for one in ENDPOINTS if one.route == (method, template))
