"""Anthropic's Message Batches. Source: https://platform.claude.com/docs/en/api/messages/batches (2026-11)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, dump
from fanout.core.long_json import join_in_steps
from fanout.core.threads import run_in_thread
from fanout.providers.economy.api import (
    TRANSFER_TIMEOUT_S,
    EconomyApi,
    EconomyRequest,
    EconomyResult,
    EconomyState,
    quote_id,
)
from fanout.providers.mapping.error_objects import find_error
from fanout.providers.mapping.json_fields import as_object, as_text
from fanout.providers.transport.json_provider import JsonProvider

UNFINISHED = frozenset({"canceled", "expired"})
"""Types of results of requests that were not answered, and are not charged."""
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Status by type of an error. Source: https://platform.claude.com/docs/en/api/errors"""


class MessageBatches(EconomyApi):
    """The batches of a host that speaks Anthropic's format."""

    paths = frozenset({"/v1/messages"})

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession, provider: JsonProvider) -> None:
        super().__init__(settings, session, provider)
        self._path = f"{provider.build_prefix('v1')}/messages/batches"

    def find_path(self, url: URL) -> str:
        """Return the one endpoint that there is, whatever stands before it in the address."""
        return "/v1/messages"

    async def submit(self, requests: Sequence[EconomyRequest], model: str, token: str) -> str:
        """See `EconomyApi.submit`."""
        body = await run_in_thread("calls", join_in_steps, list(_write_body(requests)))
        payload = aiohttp.BytesPayload(bytes(body), content_type="application/json")
        batch = await self._request(hdrs.METH_POST, self._path, data=payload, timeout_s=TRANSFER_TIMEOUT_S)
        return self._require_id(batch.get("id"))

    async def find(self, token: str) -> str | None:
        """Return `None`: these batches bear no mark of their creator."""
        return None

    async def read_state(self, batch_id: str) -> EconomyState:
        """See `EconomyApi.read_state`."""
        batch = await self._request(hdrs.METH_GET, f"{self._path}/{quote_id(batch_id)}")
        word = as_text(batch.get("processing_status"))
        # Not by its `results_url`: the key must not go where an answer says.
        return self._describe_state(word, is_ended=word == "ended", results=(f"{self._path}/{quote_id(batch_id)}/results",))

    async def read_results(self, state: EconomyState) -> AsyncGenerator[EconomyResult]:
        """See `EconomyApi.read_results`."""
        for path in state.results:
            async for line in self._read_lines(path):
                if result := _parse_result(line):
                    yield result

    async def cancel(self, batch_id: str) -> None:
        """See `EconomyApi.cancel`."""
        await self._request(hdrs.METH_POST, f"{self._path}/{quote_id(batch_id)}/cancel")


def _write_body(requests: Sequence[EconomyRequest]) -> Iterable[bytes]:
    for place, request in enumerate(requests):
        yield b'{"requests":[' if place == 0 else b","
        yield dump({"custom_id": request.id})[:-1] + b',"params":'
        yield request.body
        yield b"}"
    yield b"]}"


def _parse_result(line: JsonObject) -> EconomyResult | None:
    request_id, result = line.get("custom_id"), as_object(line.get("result"))
    if not isinstance(request_id, str):
        return None
    if result.get("type") == "succeeded":
        return EconomyResult(request_id, 200, as_object(result.get("message")))
    if as_text(result.get("type")) in UNFINISHED:
        return EconomyResult(request_id, None, {})
    error = as_object(result.get("error"))
    return EconomyResult(request_id, STATUSES.get(as_text(find_error(error).get("type")), 500), error)
