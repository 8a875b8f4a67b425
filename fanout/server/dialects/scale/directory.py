"""What Scale's clients look up: `GET /v4/models` in pages, `GET /user-info`.

Source: `ModelInstance` of scale-gp 0.1.0a62, `User` of scale-egp 1.1.15.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from fanout.config.catalogue import Model
from fanout.core.errors import RequestError
from fanout.core.faults import Fault
from fanout.core.units import to_rfc3339
from fanout.rendering.model import STARTED_AT
from fanout.server.lifecycle import DISPATCHER
from fanout.server.middleware import auth
from fanout.server.responses import json_response

DEFAULT_ACCOUNT = "default"
VENDORS = {"OpenAI": "OPENAI", "Google": "GOOGLE", "Anthropic": "ANTHROPIC", "Cohere": "COHERE"}


async def list_models(request: web.Request) -> web.Response:
    """Serves `GET /v4/models`, in pages."""
    page, limit = _positive(request, "page", 1, 10**6), _positive(request, "limit", 100, 10_000)
    catalogue = request.app[DISPATCHER].catalogue
    models = list(catalogue)
    shown = models[(page - 1) * limit : page * limit]
    account = request.query.get("account_id", "")[:256] or auth.account_id(request) or DEFAULT_ACCOUNT
    answer = {
        "items": [_model_json(model, account, callable_=not catalogue.lacks(model)) for model in shown],
        "current_page": page,
        "items_per_page": limit,
        "total_item_count": len(models),
    }
    return json_response(answer)


async def user_info(request: web.Request) -> web.Response:
    """Serves `GET /user-info`, which scale-egp asks when it was given no account."""
    account = auth.account_id(request) or DEFAULT_ACCOUNT
    profile = {"role": "admin", "account": {"id": account, "name": account}}
    person = {"id": account, "email": f"{account}@fanout.invalid", "first_name": account, "last_name": ""}
    return json_response({**person, "access_profiles": [profile]})


def _positive(request: web.Request, name: str, default: int, highest: int) -> int:
    given = request.query.get(name, str(default))
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= highest):
        raise RequestError([Fault(name, f"`{given[:40]}` is not allowed: a whole number from 1 to {highest}")])
    return int(given)


def _model_json(model: Model, account: str, *, callable_: bool) -> dict[str, Any]:
    row = model.row
    created = row.created if row and row.created is not None else STARTED_AT
    return {
        "id": model.name,
        "account_id": account,
        "created_at": to_rfc3339(created, "seconds"),
        "created_by_identity_type": "service_account",
        "created_by_user_id": "fanout",
        "deployment_count": int(callable_),
        "model_type": "COMPLETION" if model.kind == "text" else "CHAT_COMPLETION",
        "name": model.name,
        "display_name": row.name if row and row.name else model.name,
        "description": row.description if row else None,
        "base_model_metadata": {"modelDetails": {"token_context_window": row.max_context_length if row else None}},
        "model_vendor": VENDORS.get(row.creator or "" if row else "", "OTHER"),
        "request_schema": {},
        "response_schema": {},
        "supports_multi_turn": model.kind != "text",
    }
