"""Reading a request's body."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel

from fanout.requests.bodies import replace_fields, validate_body
from fanout.server.lifecycle import DISPATCHER

Body = TypeVar("Body", bound=BaseModel)
RAW_BODY = web.RequestKey("raw_body", bytes)
"""The body as it came, once it has been read."""


async def read_body(request: web.Request, model: type[Body], fields: Mapping[str, str] | None = None) -> Body:
    """Read and validate the body of a request. Validators of `model` find the server's limits and catalogue in their context.

    Args:
        request: holds the body.
        model: the model that validates the body.
        fields: fields that the path holds; they replace those of the body.

    Raises:
        RequestError: names every wrong field.
        HTTPBadRequest: the body cannot be unpacked.
        HTTPUnsupportedMediaType: the body is not declared as JSON.
        HTTPRequestEntityTooLarge: the body is larger than the server accepts.
    """
    if request.content_type != "application/json":
        # This also stops foreign web pages, whose forms can send JSON but not with this type.
        raise web.HTTPUnsupportedMediaType(text=f"send `Content-Type: application/json`, not {request.content_type!a:.100}")
    raw = await read_raw_body(request)
    if fields:
        raw = replace_fields(raw, fields)
    dispatcher = request.app[DISPATCHER]
    context = {"max_timeout_s": dispatcher.settings.environment.max_timeout_s, "catalogue": dispatcher.catalogue}
    return validate_body(raw, model, context)


async def read_raw_body(request: web.Request) -> bytes:
    """Read the body as it came, and keep it on the request for the history; for what it raises see `read_body`."""
    try:
        raw = await request.read()
    except web.RequestPayloadError:
        # Uncaught, it would be logged as a bug and answered with 500, though the caller sent bad bytes.
        raise web.HTTPBadRequest(text="the body cannot be unpacked: it is not what its headers say") from None
    request[RAW_BODY] = raw
    return raw
