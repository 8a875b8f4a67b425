"""`GET /v1/models` and `GET /v1/models/{model}`: the catalogue."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel

from fanout.core.errors import Fault, RequestError
from fanout.rendering.errors import render_error
from fanout.rendering.model import ModelJson, ModelListJson, render_model, render_models
from fanout.server.accounts.admission import may_call
from fanout.server.accounts.callers import find_caller
from fanout.server.accounts.permissions import build_refusal
from fanout.server.lifecycle import DISPATCHER
from fanout.server.openapi.endpoint import INVALID_PARAMETERS, Endpoint, list_error_answers, list_lookup_answers
from fanout.server.responses import error_response, json_response

READY = {"true": True, "false": False}


class ModelsQuery(BaseModel):
    """Choice of the models."""

    ready: bool | None = None
    """`true`: only models that can be called now; `false`: only those that cannot; absent: as `FANOUT_LISTED_MODELS` is set."""


async def list_models(request: web.Request) -> web.Response:
    """Serve `GET /v1/models`."""
    dispatcher = request.app[DISPATCHER]
    catalogue = dispatcher.catalogue
    caller = find_caller(request)
    # What a key may not call is no choice of its holder's.
    listed = render_models([model for model in catalogue if may_call(caller, catalogue, model.name)], catalogue)
    default = "true" if dispatcher.settings.environment.listed_models == "ready" else None
    wanted = request.query.get("ready", default)
    if wanted is not None:
        if wanted not in READY:
            raise RequestError([Fault("ready", f"`{wanted[:40]}` is not allowed: `true` or `false`")])
        listed["data"] = [model for model in listed["data"] if model["ready"] is READY[wanted]]
    return json_response(listed)


async def get_model(request: web.Request) -> web.Response:
    """Serve `GET /v1/models/{model}`; names may hold slashes."""
    catalogue = request.app[DISPATCHER].catalogue
    name = request.match_info["model"]
    model = catalogue.find(name)
    # Any id is a name of an open provider; only one that lists its models can deny it.
    if model is None or not request.app[DISPATCHER].upstreams.knows(model):
        failure = catalogue.refuse_unknown(name[:256])
        return error_response(request, render_error(404, failure.message, param="model", code=failure.code))
    if not may_call(caller := find_caller(request), catalogue, name):
        failure = build_refusal(name[:256], caller.limits.models or ())
        return error_response(request, render_error(404, failure.message, param="model", code=failure.code))
    return json_response(render_model(model, catalogue))


LIST = Endpoint(
    "GET /v1/models",
    list_models,
    id="models",
    tag="Models and usage",
    summary="All models",
    description="Every model of the catalogue, in Konko's fields and more: provider, readiness, and what is "
    "missing. A key that may call some models alone sees those.",
    query=ModelsQuery,
    answers={
        **list_lookup_answers(ModelListJson, "The catalogue."),
        **list_error_answers(400, INVALID_PARAMETERS),
    },
)
ONE = Endpoint(
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
)
ENDPOINTS = (
    LIST,
    ONE,
)
