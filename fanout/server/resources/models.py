"""`GET /v1/models`, `GET /v1/models/{id}`: the catalogue, in Konko's fields and ours."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from fanout.config.catalogue import Catalogue, Model
from fanout.config.settings import ModelRow
from fanout.rendering import errors
from fanout.rendering.choices import json_response
from fanout.server.lifecycle import DISPATCHER

PUBLISHED = (
    "description",
    "creator",
    "creator_logo_url",
    "category",
    "censorship",
    "max_context_length",
    "license_name",
    "license_url",
    "public_endpoint_pricing",
    "private_endpoint_pricing",
    "docs_url",
    "prompt_guide_url",
    "source",
    "deprecated_on",
    "successor",
)
STARTED_AT = int(time.time())
"""Stands for `created` where no date is published: OpenAI's contract wants a number there."""


async def list_models(request: web.Request) -> web.Response:
    """Serves `GET /v1/models`."""
    catalogue = request.app[DISPATCHER].catalogue
    return json_response({"object": "list", "data": [render_model(model, catalogue) for model in catalogue]})


async def get_model(request: web.Request) -> web.Response:
    """Serves `GET /v1/models/{id}`; ids may hold slashes, case aside."""
    catalogue = request.app[DISPATCHER].catalogue
    name = request.match_info["model"]
    model = catalogue.find(name)
    if model is None:
        failure = catalogue.unknown(name[:256])
        return errors.envelope(404, failure.message, param="model", code=failure.code)
    return json_response(render_model(model, catalogue))


def render_model(model: Model, catalogue: Catalogue) -> dict[str, Any]:
    """A model as `/v1/models` shows it."""
    row = model.row or ModelRow(provider=model.provider, id=model.id, kind=model.kind)
    lacks = catalogue.lacks(model)
    retired = catalogue.retired(model, datetime.now(UTC).date()) is not None
    return {
        "id": model.name,
        "object": "model",
        "created": row.created if row.created is not None else STARTED_AT,
        "owned_by": row.creator or model.provider,
        "name": row.name or model.name,
        "is_chat": model.kind != "text",
        "is_text": model.kind != "chat",
        **{field: getattr(row, field) for field in PUBLISHED},
        "provider": model.provider,
        "upstream_id": model.id,
        "aliases": row.aliases,
        "endpoints": ["/v1/completion", "/v1/completions", *(["/v1/chat/completions"] if model.kind != "text" else [])],
        "ready": not lacks and not retired,
        "missing": lacks,
        "limits": catalogue.provider(model).row.limits.model_dump(),
        "price": row.price.model_dump() if row.price else None,
    }
