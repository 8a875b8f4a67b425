"""`POST /v1/config/reload`: read the configuration again."""

from __future__ import annotations

from aiohttp import web

from fanout.core.errors import ConfigError, Fault
from fanout.rendering.configuration import ConfigurationJson
from fanout.rendering.errors import render_faults
from fanout.server.accounts.callers import require_admin
from fanout.server.openapi.endpoint import Endpoint, list_error_answers, list_lookup_answers
from fanout.server.reloading import RELOADER
from fanout.server.responses import error_response, json_response


async def reload_configuration(request: web.Request) -> web.Response:
    """Serve `POST /v1/config/reload`."""
    caller = require_admin(request)
    try:
        return json_response(await request.app[RELOADER].reload(caller.actor))
    except ConfigError as error:
        faults = [
            Fault(f"{fault.source or error.source}: {fault.path}".removesuffix(": "), fault.message, "invalid_configuration")
            for fault in error.faults
        ]
        return error_response(request, render_faults(faults, 409))


EXAMPLE = {
    "object": "configuration",
    "files": ["/etc/fanout/providers.json"],
    "changed": {"variables": ["FANOUT_TIMEOUT_S"], "providers": ["openai", "lab"], "models": [], "sets": ["mine"]},
    "notices": [],
}
ENDPOINTS = (
    Endpoint(
        "POST /v1/config/reload",
        reload_configuration,
        id="config_reload",
        tag="Server",
        summary="Read the configuration again",
        description="For administrators. Files and variables are read as at the start, and taken over whole or not at all. "
        "Calls and streams that run end under the configuration that they began with; limits keep their counts.",
        answers={
            **list_lookup_answers(ConfigurationJson, "It has been taken over.", {"changes": EXAMPLE}),
            **list_error_answers(409, "Nothing has changed: the configuration has faults, all of them named in `details`."),
        },
    ),
)
