"""`GET /v4/models` and `GET /user-info`, which Scale's clients look up.

Source: `ModelInstance` of scale-gp 0.1.0a62, `User` of scale-egp 1.1.15.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, Field

from fanout.core.errors import Fault, RequestError
from fanout.rendering.scale import ScaleErrorJson, ScaleModelsJson, ScaleUserJson, render_scale_models, render_scale_user
from fanout.server.accounts.admission import may_call
from fanout.server.accounts.callers import find_caller
from fanout.server.dialects.scale.completions import INVALID
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth
from fanout.server.openapi.endpoint import Endpoint, list_lookup_answers
from fanout.server.responses import json_response

DEFAULT_ACCOUNT = "default"
MAX_PAGE, MAX_LIMIT = 10**6, 10_000


class ScalePage(BaseModel):
    """Part of the list."""

    account_id: str | None = None
    """Account that the models are shown for."""
    page: int = Field(1, ge=1, le=MAX_PAGE)
    """Number of the page."""
    limit: int = Field(100, ge=1, le=MAX_LIMIT)
    """Most models on a page."""


async def list_models(request: web.Request) -> web.Response:
    """Serve `GET /v4/models`, in pages."""
    page, limit = _parse_number(request, "page", 1, MAX_PAGE), _parse_number(request, "limit", 100, MAX_LIMIT)
    # Cut before it is looked up: the query may be as long as a URL.
    account = auth.choose_account(request, request.query.get("account_id", "")[:256] or None) or DEFAULT_ACCOUNT
    catalogue, caller = request.app[DISPATCHER].catalogue, find_caller(request)
    models = [model for model in catalogue if may_call(caller, catalogue, model.name)]
    return json_response(render_scale_models(models, catalogue, account, page, limit))


async def get_user_info(request: web.Request) -> web.Response:
    """Serve `GET /user-info`, which scale-egp calls when it was given no account."""
    return json_response(render_scale_user(auth.choose_account(request) or DEFAULT_ACCOUNT))


def _parse_number(request: web.Request, name: str, default: int, highest: int) -> int:
    given = request.query.get(name, str(default))
    # The length is checked before `int`, which raises for thousands of digits.
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= highest):
        raise RequestError([Fault(name, f"`{given[:40]}` is not allowed: a whole number from 1 to {highest}")])
    return int(given)


ENDPOINTS = (
    Endpoint(
        "GET /v4/models",
        list_models,
        id="scale_models",
        tag="Scale",
        summary="The models, in pages",
        query=ScalePage,
        headers=("x-selected-account-id",),
        answers={**list_lookup_answers(ScaleModelsJson, "One page.", error=ScaleErrorJson), **INVALID},
    ),
    Endpoint(
        "GET /user-info",
        get_user_info,
        id="scale_user",
        tag="Scale",
        summary="The user of an account",
        description="scale-egp calls this when it was given no account. Fanout knows no users: the account is the header's.",
        headers=("x-selected-account-id",),
        answers=list_lookup_answers(ScaleUserJson, "A user made of the account's id.", error=ScaleErrorJson),
    ),
)
