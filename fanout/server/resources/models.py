"""`GET /v1/models` and `GET /v1/models/{model}`: the catalogue."""

from __future__ import annotations

from aiohttp import web

from fanout.rendering.errors import render_error
from fanout.rendering.model import ModelJson, ModelListJson, render_model, render_models
from fanout.server.lifecycle import DISPATCHER
from fanout.server.openapi.endpoint import Endpoint, list_error_answers, list_lookup_answers
from fanout.server.responses import error_response, json_response


async def list_models(request: web.Request) -> web.Response:
    """Serve `GET /v1/models`."""
    catalogue = request.app[DISPATCHER].catalogue
    return json_response(render_models(catalogue, catalogue))


async def get_model(request: web.Request) -> web.Response:
    """Serve `GET /v1/models/{model}`; names may hold slashes."""
    catalogue = request.app[DISPATCHER].catalogue
    name = request.match_info["model"]
    model = catalogue.find(name)
    if model is None:
        failure = catalogue.refuse_unknown(name[:256])
        return error_response(request, render_error(404, failure.message, param="model", code=failure.code))
    return json_response(render_model(model, catalogue))


ENDPOINTS = (
    Endpoint(
        "GET /v1/models",
        list_models,
        id="models",
        tag="Models and usage",
        summary="All models",
        description="Every model of the catalogue, in Konko's fields and more: provider, readiness, and what is missing.",
        answers=list_lookup_answers(ModelListJson, "The catalogue."),
    ),
    Endpoint(
        "GET /v1/models/{model:.+}",
        get_model,
        id="model",
        tag="Models and usage",
        summary="One model",
        description="By its name, an alias, or as `<provider>/<id>` with any id. Slashes need no quoting.",
        path_parameters={"model": ("Name of the model.", "local/ngram-5")},
        answers={
            **list_lookup_answers(ModelJson, "The model."),
            **list_error_answers(404, "No model has that name; the message suggests the nearest ones."),
        },
    ),
)
