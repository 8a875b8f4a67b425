"""`/v1/keys`: callers' keys, for administrators; `GET /v1/keys/self`, for whoever has one."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from fanout.api.keys import change_key, create_key, find_key, list_prefixes, revoke_key, rotate_key
from fanout.core.errors import Fault, RequestError
from fanout.rendering.keys import KeyJson, KeyListJson, KeyUseJson, NewKeyJson, OwnKeyJson, render_key
from fanout.requests.keys import KeyBody, KeyChangeBody, KeyRotationBody, load_limits
from fanout.server.accounts.admission import KEY_LEDGER
from fanout.server.accounts.callers import LOCAL, find_caller, require_admin
from fanout.server.accounts.changes import log_change
from fanout.server.accounts.use import render_use
from fanout.server.lifecycle import STORE
from fanout.server.openapi.endpoint import (
    INVALID_PARAMETERS,
    JSON,
    Answers,
    Endpoint,
    StatusAnswer,
    list_body_error_answers,
    list_store_answers,
)
from fanout.server.request_body import read_body
from fanout.server.resources.key_examples import CREATE_EXAMPLE, EXAMPLE_KEY, EXAMPLE_USE
from fanout.server.resources.listing import page_response, parse_whole_number, read_query
from fanout.server.resources.storage import needs_store
from fanout.server.responses import json_response
from fanout.server.workers.peers import refresh_keys
from fanout.store.keys.key_store import KeyRow, KeyStore

NO_STORE = {"Cache-Control": "no-store"}
"""Header of an answer that holds a key."""


class KeysQuery(BaseModel):
    """The part of the keys to show."""

    model_config = ConfigDict(extra="forbid", strict=True)

    limit: Annotated[int, BeforeValidator(parse_whole_number)] = Field(20, ge=1, le=100)
    """Most keys of a page."""
    after: str | None = Field(None, max_length=256)
    """The `last_id` of the page before."""
    account_id: str | None = Field(None, max_length=256)
    """Only the keys of this account; absent: of all."""


@needs_store
async def create(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/keys`."""
    caller = require_admin(request)
    body = await read_body(request, KeyBody)
    if caller is LOCAL and body.role != "admin":
        sentence = f"`{body.role}` is not allowed: the first key must be an administrator's, or nobody could make another one"
        raise RequestError([Fault("role", sentence)])
    key, secret = await create_key(_keys(request), body, caller.actor)
    log_change("key.created", caller.actor, key.id)
    return await _show_secret(request, key, secret, 201)


@needs_store
async def list_keys(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/keys`."""
    require_admin(request)
    query, keys = read_query(request, KeysQuery), _keys(request)
    before = await keys.find(query.after) if query.after is not None else None
    if query.after is not None and before is None:
        raise RequestError([Fault("after", f"no key has the id {query.after!a:.80}: give a page's `last_id`")])
    # Of every account, unless one is named: administrators manage them all.
    found = await keys.list_keys(limit=query.limit + 1, before=before, account_id=query.account_id)
    shown = found[: query.limit]
    secrets = await list_prefixes(keys, shown)
    return await page_response(
        shown, lambda key: render_key(key, secrets[key.id]), [key.id for key in shown], has_more=len(found) > query.limit
    )


@needs_store
async def get(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/keys/{key_id}`."""
    require_admin(request)
    return await _show_use(request, await find_key(_keys(request), request.match_info["key_id"]))


async def get_self(request: web.Request) -> web.StreamResponse:
    """Serve `GET /v1/keys/self`."""
    caller = find_caller(request)
    if caller.key_id is not None:
        return await _get_stored_self(request)
    own: OwnKeyJson = {"object": "key", "actor": caller.actor, "account_id": caller.account, "role": caller.role}
    return json_response(own)


@needs_store
async def _get_stored_self(request: web.Request) -> web.StreamResponse:
    return await _show_use(request, await find_key(_keys(request), find_caller(request).key_id or ""))


@needs_store
async def change(request: web.Request) -> web.StreamResponse:
    """Serve `PATCH /v1/keys/{key_id}`."""
    caller = require_admin(request)
    body = await read_body(request, KeyChangeBody)
    key = await change_key(_keys(request), request.match_info["key_id"], body, caller.actor)
    log_change("key.changed", caller.actor, key.id)
    return await _show(request, key)


@needs_store
async def rotate(request: web.Request) -> web.StreamResponse:
    """Serve `POST /v1/keys/{key_id}/rotate`."""
    caller = require_admin(request)
    body = await read_body(request, KeyRotationBody)
    key, secret = await rotate_key(_keys(request), request.match_info["key_id"], body.grace_s, caller.actor)
    log_change("key.rotated", caller.actor, key.id)
    return await _show_secret(request, key, secret, 200)


@needs_store
async def revoke(request: web.Request) -> web.StreamResponse:
    """Serve `DELETE /v1/keys/{key_id}`."""
    caller = require_admin(request)
    key = await revoke_key(_keys(request), request.match_info["key_id"], caller.actor)
    log_change("key.revoked", caller.actor, key.id)
    return await _show(request, key)


def _keys(request: web.Request) -> KeyStore:
    return request.app[STORE].keys


async def _show(request: web.Request, key: KeyRow) -> web.Response:
    await refresh_keys(request.app)  # what was changed counts before its answer leaves
    return json_response(render_key(key, (await list_prefixes(_keys(request), [key]))[key.id]))


async def _show_use(request: web.Request, key: KeyRow) -> web.Response:
    counts = await request.app[KEY_LEDGER].read(key.id)
    shown = render_key(key, (await list_prefixes(_keys(request), [key]))[key.id])
    return json_response(render_use(shown, counts, load_limits(key.limits)))


async def _show_secret(request: web.Request, key: KeyRow, secret: str, status: int) -> web.Response:
    await refresh_keys(request.app)
    answer: NewKeyJson = {**render_key(key, (await list_prefixes(_keys(request), [key]))[key.id]), "key": secret}
    response = json_response(answer, status)
    response.headers.update(NO_STORE)
    return response


KEY_ID = {"key_id": ("Id of the key.", "key_0b54b61c9df74f0f9d3b5a2d")}
ONE = "/v1/keys/{key_id:(?!self$)[^/]+}"
"""Not `/v1/keys/self`, whose methods are its own."""
ADMIN = "For administrators. "
WRONG = "Wrong fields, all of them named in `details`."
MISSING = "There is no such key."
REVOKED = "It was revoked, which is final."


def _list_secret_answers(status: int, description: str, *, conflict: str | None, missing: str | None) -> Answers:
    found = list_store_answers(NewKeyJson, "", invalid=WRONG, missing=missing, conflict=conflict)
    del found[200]
    example = {"a key": {**EXAMPLE_KEY, "key": "fk-3k9x2m7qp0ab-<43 characters>"}}
    return {status: StatusAnswer(description, {JSON: NewKeyJson}, example), **found, **list_body_error_answers()}


ENDPOINTS = (
    Endpoint(
        "POST /v1/keys",
        create,
        id="create_key",
        tag="Keys",
        summary="Create a key",
        description=ADMIN + "The answer is the only one that shows the key: what is stored of it is a salted hash. From the "
        "first key on, nobody may call without one, so the first must be an administrator's.",
        body=KeyBody,
        examples={"the first": {"name": "operator", "role": "admin"}, "for a team, later": CREATE_EXAMPLE},
        answers=_list_secret_answers(201, "The key.", conflict="There are as many keys as a server can hold.", missing=None),
    ),
    Endpoint(
        "GET /v1/keys",
        list_keys,
        id="keys",
        tag="Keys",
        summary="All keys",
        description=ADMIN + "The newest first, revoked ones too; those of FANOUT_API_KEYS are not among them.",
        query=KeysQuery,
        answers=list_store_answers(
            KeyListJson,
            "A page of them.",
            {"one key": {"object": "list", "data": [EXAMPLE_KEY], "first_id": "", "last_id": "", "has_more": False}},
            invalid=INVALID_PARAMETERS,
        ),
    ),
    Endpoint(
        "GET /v1/keys/self",
        get_self,
        id="own_key",
        tag="Keys",
        summary="Your own key, and what is left of its limits",
        description="For any key, of whichever role.",
        answers=list_store_answers((KeyUseJson, OwnKeyJson), "The key.", {"a key": EXAMPLE_USE}),
    ),
    Endpoint(
        f"GET {ONE}",
        get,
        id="key",
        tag="Keys",
        summary="A key, and what it has used",
        description=ADMIN,
        path_parameters=KEY_ID,
        answers=list_store_answers(KeyUseJson, "The key.", {"a key": EXAMPLE_USE}, missing=MISSING),
    ),
    Endpoint(
        f"PATCH {ONE}",
        change,
        id="change_key",
        tag="Keys",
        summary="Change a key",
        description=ADMIN + "Fields that are absent stay as they are; null takes a limit away. It counts from the next request "
        "on, at other servers on the same store within two seconds.",
        path_parameters=KEY_ID,
        body=KeyChangeBody,
        answers={
            **list_store_answers(KeyJson, "The key.", {"a key": EXAMPLE_KEY}, invalid=WRONG, missing=MISSING, conflict=REVOKED),
            **list_body_error_answers(),
        },
    ),
    Endpoint(
        "POST /v1/keys/{key_id}/rotate",
        rotate,
        id="rotate_key",
        tag="Keys",
        summary="Replace the secret of a key",
        description=ADMIN + "Its id, limits and counts stay. With `grace_s` the old key stays good for a while, so that its "
        "holders can change over.",
        path_parameters=KEY_ID,
        body=KeyRotationBody,
        answers=_list_secret_answers(200, "The key with its new secret.", conflict=REVOKED, missing=MISSING),
    ),
    Endpoint(
        f"DELETE {ONE}",
        revoke,
        id="revoke_key",
        tag="Keys",
        summary="Revoke a key",
        description=ADMIN + "It opens nothing from now on; calls that run go on to their end. What it has used stays counted.",
        path_parameters=KEY_ID,
        answers=list_store_answers(KeyJson, "The key.", {"a key": EXAMPLE_KEY}, missing=MISSING),
    ),
)
