"""Batches whose requests and results are files of JSON lines: OpenAI's, and those of hosts that took them over.

Sources: https://platform.openai.com/docs/api-reference/batch, https://console.groq.com/docs/batch,
https://docs.together.ai/docs/batch-inference, https://docs.mistral.ai/api/#tag/batch (2026-11).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, dump
from fanout.core.long_json import join_in_steps
from fanout.core.threads import run_in_thread
from fanout.providers.economy.api import (
    MAX_LISTED,
    TRANSFER_TIMEOUT_S,
    EconomyApi,
    EconomyRequest,
    EconomyResult,
    EconomyState,
    quote_id,
)
from fanout.providers.mapping.json_fields import as_object, as_objects, as_text
from fanout.providers.transport.json_provider import JsonProvider

UNFINISHED_CODES = frozenset({"batch_expired", "batch_cancelled", "request_cancelled"})
"""Codes of requests that a batch never came to."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """Differences of a host's batches from OpenAI's."""

    paths: frozenset[str]
    """Endpoints that take batches, by the names that batches give them."""
    ended: frozenset[str] = frozenset({"completed", "failed", "expired", "cancelled"})
    """States in which nothing more comes, in small letters."""
    failed: frozenset[str] = frozenset({"failed"})
    purpose: str = "batch"
    upload_path: str = "/files"
    batches_path: str = "/batches"
    files_field: str = "input_file_id"
    result_fields: tuple[str, str] = ("output_file_id", "error_file_id")
    has_metadata: bool = True
    """A batch bears strings of its creator; else it is found by the name of its file."""
    names_model: bool = False
    """The batch names the model."""
    has_window: bool = True


CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
FILE_FORMATS: Mapping[str, FileFormat] = {
    "openai": FileFormat(frozenset({CHAT, TEXT})),
    "groq": FileFormat(frozenset({CHAT})),
    "together": FileFormat(
        frozenset({CHAT}), purpose="batch-api", upload_path="/files/upload", has_metadata=False, has_window=False
    ),
    "mistral": FileFormat(
        frozenset({CHAT}),
        ended=frozenset({"success", "failed", "timeout_exceeded", "cancelled"}),
        batches_path="/batch/jobs",
        files_field="input_files",
        result_fields=("output_file", "error_file"),
        names_model=True,
        has_window=False,
    ),
}


class FileBatches(EconomyApi):
    """The batches of a host that speaks OpenAI's format."""

    def __init__(
        self, settings: ProviderSettings, session: aiohttp.ClientSession, provider: JsonProvider, format_: FileFormat
    ) -> None:
        super().__init__(settings, session, provider)
        self._format, self.paths = format_, format_.paths

    def find_path(self, url: URL) -> str:
        """Return OpenAI's path of the endpoint, whatever stands before it in the address of the host."""
        return TEXT if not url.path.endswith("/chat/completions") else CHAT

    async def submit(self, requests: Sequence[EconomyRequest], model: str, token: str) -> str:
        """See `EconomyApi.submit`."""
        format_ = self._format
        lines = await run_in_thread("calls", join_in_steps, list(_write_lines(requests)))
        form = aiohttp.FormData(default_to_multipart=True)
        form.add_field("purpose", format_.purpose)
        if not format_.has_metadata:
            form.add_field("file_name", f"{token}.jsonl")
        form.add_field("file", bytes(lines), filename=f"{token}.jsonl", content_type="application/jsonl")
        uploaded = await self._request(hdrs.METH_POST, format_.upload_path, data=form, timeout_s=TRANSFER_TIMEOUT_S)
        file_id = self._require_id(uploaded.get("id"))
        fields: JsonObject = {
            "endpoint": requests[0].path,
            format_.files_field: [file_id] if format_.files_field == "input_files" else file_id,
            **({"completion_window": "24h"} if format_.has_window else {}),
            **({"model": model} if format_.names_model else {}),
            **({"metadata": {"fanout": token}} if format_.has_metadata else {}),
        }
        return self._require_id(_unwrap(await self._request(hdrs.METH_POST, format_.batches_path, json=fields)).get("id"))

    async def find(self, token: str) -> str | None:
        """See `EconomyApi.find`."""
        size = "page_size" if self._format.names_model else "limit"
        listed = await self._request(hdrs.METH_GET, f"{self._format.batches_path}?{size}={MAX_LISTED}")
        if self._format.has_metadata:
            return self._find_id(batch for batch in _list(listed) if as_object(batch.get("metadata")).get("fanout") == token)
        files = await self._request(hdrs.METH_GET, "/files")
        file_id = self._find_id(file for file in _list(files) if file.get("filename") == f"{token}.jsonl")
        return self._find_id(batch for batch in _list(listed) if file_id and batch.get("input_file_id") == file_id)

    async def read_state(self, batch_id: str) -> EconomyState:
        """See `EconomyApi.read_state`."""
        batch = _unwrap(await self._request(hdrs.METH_GET, f"{self._format.batches_path}/{quote_id(batch_id)}"))
        word = as_text(batch.get("status"))
        found = [self._require_id(file) for name in self._format.result_fields if (file := batch.get(name))]
        failure = None
        if word.lower() in self._format.failed and not found:
            failure = self._build_failure(_find_error(batch))
        return self._describe_state(word, is_ended=word.lower() in self._format.ended, failure=failure, results=tuple(found))

    async def read_results(self, state: EconomyState) -> AsyncGenerator[EconomyResult]:
        """See `EconomyApi.read_results`."""
        for file_id in state.results:
            async for line in self._read_lines(f"/files/{quote_id(file_id)}/content"):
                if result := _parse_result(line):
                    yield result

    async def cancel(self, batch_id: str) -> None:
        """See `EconomyApi.cancel`."""
        await self._request(hdrs.METH_POST, f"{self._format.batches_path}/{quote_id(batch_id)}/cancel")

    def _find_id(self, found: Iterable[JsonObject]) -> str | None:
        return next((self._require_id(described.get("id")) for described in found), None)


def _write_lines(requests: Iterable[EconomyRequest]) -> Iterable[bytes]:
    for request in requests:
        yield dump({"custom_id": request.id, "method": "POST", "url": request.path})[:-1]
        yield b',"body":'
        yield request.body
        yield b"}\n"


def _parse_result(line: JsonObject) -> EconomyResult | None:
    request_id, response, error = line.get("custom_id"), as_object(line.get("response")), line.get("error")
    if not isinstance(request_id, str):
        return None
    status, body = response.get("status_code"), as_object(response.get("body"))
    if type(status) is int and 100 <= status <= 599:
        return EconomyResult(request_id, status, body)
    if body and not error:
        return EconomyResult(request_id, 200, body)
    described = error if isinstance(error, dict) else {"message": as_text(error)}
    if as_text(described.get("code")) in UNFINISHED_CODES:
        return EconomyResult(request_id, None, {})
    return EconomyResult(request_id, 400, {"error": described})


def _unwrap(described: JsonObject) -> JsonObject:
    """Return a batch; Together's answer to its creation has it in `job`."""
    return as_object(described.get("job")) or described


def _list(listed: JsonObject) -> list[JsonObject]:
    return as_objects(listed.get("data"))


def _find_error(batch: JsonObject) -> JsonObject:
    """Return why a batch failed: OpenAI's `errors.data`, Mistral's list, Together's sentence."""
    errors = batch.get("errors")
    listed = as_objects(errors.get("data")) if isinstance(errors, dict) else as_objects(errors)
    if listed:
        return listed[0]
    return {"message": as_text(batch.get("error"))} if batch.get("error") else {}
