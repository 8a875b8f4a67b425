"""Lists of the models that a host serves, for the formats that have such a list.

Sources: https://platform.openai.com/docs/api-reference/models/list (Together answers with the bare array),
https://github.com/ollama/ollama/blob/main/docs/api.md#list-local-models.
"""

from __future__ import annotations

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject, parse
from fanout.core.schema import Failure
from fanout.providers.mapping.error_objects import find_error, parse_error_body
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.redact import hide
from fanout.providers.transport.configured import build_origin, find_proxy
from fanout.providers.transport.connection_errors import CONNECTION_ERRORS, to_provider_error

PATHS = {"openai": "/models", "ollama": "/api/tags"}
"""Paths below a provider's base address, by adapter."""
MAX_BYTES = 8 * 2**20


async def list_models(settings: ProviderSettings, session: aiohttp.ClientSession, timeout_s: float) -> list[JsonObject]:
    """Return the host's models as it describes them, each with an `id`, in its order; empty where it lists none.

    Raises:
        ProviderError: the format has no such list (`unsupported`), or the host refused or could not be reached.
    """
    path = PATHS.get(settings.adapter)
    if path is None or settings.base_url is None:
        raise ProviderError(Failure("unsupported", f"`{settings.name}` has no list of its models"))
    origin = build_origin(settings)
    limit = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, settings.row.connect_timeout_s))
    try:
        proxy = find_proxy(settings, URL(settings.base_url))
        async with session.get(
            settings.base_url + path, headers=_build_headers(settings), allow_redirects=False, timeout=limit, proxy=proxy
        ) as response:
            # A host that echoes its key must not have it listed as a model.
            body = hide((await _read_body(origin, response)).decode(errors="replace"), origin.secrets).encode()
    except TimeoutError as error:
        raise ProviderError(Failure("timeout", f"`{settings.name}` gave no answer within {timeout_s:g} s")) from error
    except CONNECTION_ERRORS as error:
        raise to_provider_error(settings.name, error, limit.sock_connect) from error
    if response.status != 200:
        raise origin.with_response(response.headers, response.status).upstream_error(find_error(parse_error_body(body)))
    return _parse_models(origin, body)


async def _read_body(origin: Origin, response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        # While it comes, not by Content-Length, which a host may leave out or get wrong.
        if len(body) > MAX_BYTES:
            raise origin.answer_error(f"lists its models in over {MAX_BYTES:,} bytes", "answer_too_large")
    return bytes(body)


def _build_headers(settings: ProviderSettings) -> CIMultiDict[str]:
    headers = CIMultiDict({"User-Agent": "fanout"})
    headers.update({name: value for name, secret in settings.headers.items() if (value := secret.get_secret_value().strip())})
    # A header of the row replaces the key's.
    if settings.key and hdrs.AUTHORIZATION not in headers:
        headers[hdrs.AUTHORIZATION] = f"Bearer {settings.key.get_secret_value()}"
    return headers


def _parse_models(origin: Origin, body: bytes) -> list[JsonObject]:
    try:
        answer = parse(body)
    except ValueError:
        raise origin.answer_error("sent a list of models that is not JSON", "invalid_json") from None
    found = (answer.get("data") or answer.get("models") or []) if isinstance(answer, dict) else answer
    if not isinstance(found, list) or (isinstance(answer, dict) and not {"data", "models"} & answer.keys()):
        raise origin.answer_error("sent JSON that is not a list of models", "unexpected_shape")
    described = [item for item in found if isinstance(item, dict)]
    named = [{**item, "id": item.get("id") or item.get("name")} for item in described]
    return [item for item in named if isinstance(item["id"], str)]
