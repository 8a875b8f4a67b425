"""Gemini's Batch API, with requests and answers inside the batch. Source: https://ai.google.dev/api/batch-api (2026-11)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, dump, parse
from fanout.core.long_json import join_in_steps
from fanout.core.threads import run_in_thread
from fanout.providers.economy.api import (
    MAX_LISTED,
    TRANSFER_TIMEOUT_S,
    EconomyApi,
    EconomyRequest,
    EconomyResult,
    EconomyState,
)
from fanout.providers.gemini.adapter import VERSION, build_model_url
from fanout.providers.mapping.json_fields import as_object, as_objects, as_text
from fanout.providers.transport.json_provider import JsonProvider

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED"})
STATUSES = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 13: 500, 14: 503, 16: 401}
"""HTTP's status by that of gRPC. Source: https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto"""
UNFINISHED = frozenset({1, 4})
"""gRPC's statuses of requests that the batch never came to: cancelled, and past its deadline."""


class GeminiBatches(EconomyApi):
    """The batches of the Gemini API."""

    paths = frozenset({"generateContent"})

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession, provider: JsonProvider) -> None:
        super().__init__(settings, session, provider)
        self._prefix = provider.build_prefix(VERSION)

    def find_path(self, url: URL) -> str:
        """Return the method: the model stands in the address of the batch."""
        return url.path.rpartition(":")[2]

    async def submit(self, requests: Sequence[EconomyRequest], model: str, token: str) -> str:
        """See `EconomyApi.submit`."""
        body = await run_in_thread("calls", join_in_steps, list(_write_body(requests, token)))
        path = build_model_url("http://host", model, "batchGenerateContent").raw_path
        payload = aiohttp.BytesPayload(bytes(body), content_type="application/json")
        batch = await self._request(hdrs.METH_POST, self._prefix + path, data=payload, timeout_s=TRANSFER_TIMEOUT_S)
        return self._require_name(batch.get("name"))

    async def find(self, token: str) -> str | None:
        """See `EconomyApi.find`."""
        listed = await self._request(hdrs.METH_GET, f"{self._prefix}/batches?pageSize={MAX_LISTED}")
        for batch in as_objects(listed.get("operations") or listed.get("batches")):
            if as_object(batch.get("metadata")).get("displayName") == token:
                return self._require_name(batch.get("name"))
        return None

    async def read_state(self, batch_id: str) -> EconomyState:
        """See `EconomyApi.read_state`. Its answers, which stand in the description, are read apart."""
        path = f"{self._prefix}/{batch_id}"
        # Without the answers, which may be many megabytes: they are fetched once, when the batch has ended.
        batch = await self._request(hdrs.METH_GET, f"{path}?fields=name,done,error,metadata(state,displayName)")
        word = as_text(as_object(batch.get("metadata")).get("state"))
        state = word.removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")
        failure = None
        if state == "FAILED":
            failure = self._build_failure(as_object(batch.get("error")))
        is_ended = state in ENDED or batch.get("done") is True
        return self._describe_state(word, is_ended=is_ended, failure=failure, results=(path,))

    async def read_results(self, state: EconomyState) -> AsyncGenerator[EconomyResult]:
        """See `EconomyApi.read_results`."""
        most = self._economy.max_result_bytes
        for path in state.results:
            async with self._open(hdrs.METH_GET, path, timeout_s=TRANSFER_TIMEOUT_S) as response:
                body = await self._read_bounded(response, most)
            try:
                batch = as_object(await run_in_thread("calls", parse, body))
            except ValueError:
                raise self._origin.answer_error("sent a batch that is not JSON", "invalid_json") from None
            for answer in _list_answers(batch):
                if result := _parse_result(answer):
                    yield result

    async def cancel(self, batch_id: str) -> None:
        """See `EconomyApi.cancel`."""
        await self._request(hdrs.METH_POST, f"{self._prefix}/{batch_id}:cancel")

    def _require_name(self, name: object) -> str:
        folder, _, rest = name.partition("/") if isinstance(name, str) else ("", "", "")
        return f"batches/{self._require_id(rest if folder == 'batches' else None)}"


def _write_body(requests: Sequence[EconomyRequest], token: str) -> Iterable[bytes]:
    yield b'{"batch":{"displayName":%b,"inputConfig":{"requests":{"requests":[' % dump(token)
    for place, request in enumerate(requests):
        yield b"," if place else b""
        yield b'{"metadata":{"key":%b},"request":' % dump(request.id)
        yield request.body
        yield b"}"
    yield b"]}}}}"


def _list_answers(batch: JsonObject) -> list[JsonObject]:
    # In `response` of the operation once it is done, and in `metadata.output` as Google's own client reads it.
    for holder in (as_object(batch.get("response")), as_object(as_object(batch.get("metadata")).get("output"))):
        inlined = holder.get("inlinedResponses")
        if found := as_objects(inlined.get("inlinedResponses") if isinstance(inlined, dict) else inlined):
            return found
    return []


def _parse_result(answer: JsonObject) -> EconomyResult | None:
    request_id = as_object(answer.get("metadata")).get("key")
    if not isinstance(request_id, str):
        return None
    if response := as_object(answer.get("response")):
        return EconomyResult(request_id, 200, response)
    error = as_object(answer.get("error"))
    code = error.get("code")
    number = code if type(code) is int else 0
    if number in UNFINISHED:
        return EconomyResult(request_id, None, {})
    status = STATUSES.get(number, number if 400 <= number <= 599 else 500)
    return EconomyResult(request_id, status, {"error": {**error, "code": status}})
