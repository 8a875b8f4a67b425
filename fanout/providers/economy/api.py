"""The interface of a vendor's batch API, and the requests that all of them need."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import JsonObject, parse
from fanout.core.schema import Call, Completion, Failure
from fanout.core.threads import run_in_thread
from fanout.providers.mapping.error_objects import find_error, parse_error_body
from fanout.providers.mapping.json_fields import as_object
from fanout.providers.mapping.redact import hide, hide_secrets
from fanout.providers.transport.configured import build_origin, find_proxy
from fanout.providers.transport.connection_errors import CONNECTION_ERRORS, to_provider_error
from fanout.providers.transport.json_provider import JsonProvider

MAX_STATE_BYTES = 2**20
"""Of the description of a batch, or a list of batches."""
STATE_TIMEOUT_S = 60.0
TRANSFER_TIMEOUT_S = 1800.0
"""To send all requests of a batch, or to receive its results."""
SPARE_LINES = 1000
"""Lines of a file of results beyond two for each request that a batch may have, after which the file is no batch's."""
ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:=-]{0,255}")
"""Of a batch or a file: it is stored, logged, and a part of addresses, so it must neither be long nor lead elsewhere."""
MAX_LISTED = 100
"""Batches of an account that are searched for one whose creation was cut off."""


class EconomyRequest(NamedTuple):
    """One call of a batch."""

    id: str
    """At most 64 letters, digits, `-` and `_`."""
    path: str
    """Path of the endpoint that would take it alone."""
    body: bytes
    """JSON."""


class EconomyState(NamedTuple):
    """A batch, as its vendor describes it."""

    word: str
    """The vendor's own."""
    is_ended: bool
    """Nothing more of it will come."""
    failure: Failure | None = None
    """Why the vendor takes none of its requests."""
    results: tuple[str, ...] = ()
    """Where its results are."""


class EconomyResult(NamedTuple):
    """The end of one call of a batch."""

    id: str
    status: int | None
    """HTTP's, as the endpoint would have answered; `None`: the vendor never came to it, and it is not charged."""
    body: JsonObject
    """The answer, or the error."""


class EconomyApi(ABC):
    """The batch API of one account. Every method raises `ProviderError`, and nothing else, where the vendor refuses."""

    paths: frozenset[str] = frozenset()
    """Endpoints that take batches."""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession, provider: JsonProvider) -> None:
        self._settings, self._session, self._provider = settings, session, provider
        self._origin = build_origin(settings)
        assert settings.row.economy is not None, "a provider without a batch API has none to open"
        self._economy = settings.row.economy

    @abstractmethod
    async def submit(self, requests: Sequence[EconomyRequest], model: str, token: str) -> str:
        """Send a batch and return the vendor's id of it.

        Args:
            requests: of one path and one model.
            model: the vendor's name of it.
            token: marks the batch, so that `find` finds it.
        """

    @abstractmethod
    async def find(self, token: str) -> str | None:
        """Return the id of a batch whose creation was cut off; `None` where there is none, or it cannot be told."""

    @abstractmethod
    async def read_state(self, batch_id: str) -> EconomyState:
        """Return how far a batch is."""

    @abstractmethod
    def read_results(self, state: EconomyState) -> AsyncGenerator[EconomyResult]:
        """Yield the results of a batch that has ended, in any order; calls may be missing."""

    @abstractmethod
    async def cancel(self, batch_id: str) -> None:
        """Ask the vendor to end a batch; what is under way may still be answered, and charged."""

    async def write(self, call: Call, request_id: str) -> EconomyRequest:
        """Return a call as a request of a batch."""
        provider = self._provider
        request = await provider.write_request(await provider.inline(call), stream=False)
        return EconomyRequest(request_id, self.find_path(request.url), b"".join(request.pieces))

    def find_path(self, url: URL) -> str:
        """Return the path that a batch names its endpoint by."""
        return url.path

    async def read(self, call: Call, result: EconomyResult) -> Completion | Failure:
        """Return what a result says, as the adapter would read it from the endpoint's own answer."""
        assert result.status is not None, "a call without a status has no answer to be read"
        try:
            answer: Completion | Failure = await run_in_thread("calls", self._decode, call, result.status, result.body)
        except ProviderError as error:
            answer = error.failure
        return hide_secrets(answer, self._origin.secrets)

    def _decode(self, call: Call, status: int, body: JsonObject) -> Completion:
        return self._provider.decode_value(call, status, {}, body)

    async def _request(
        self,
        method: str,
        path: str,
        *,
        json: JsonObject | None = None,
        data: aiohttp.FormData | aiohttp.Payload | None = None,
        timeout_s: float = STATE_TIMEOUT_S,
    ) -> JsonObject:
        """Make a request and return the object of its answer."""
        async with self._open(method, path, json=json, data=data, timeout_s=timeout_s) as response:
            body = await self._read_bounded(response, MAX_STATE_BYTES)
        try:
            return as_object(parse(body))
        except ValueError:
            raise self._origin.answer_error("sent JSON about a batch that is none", "invalid_json") from None

    async def _read_lines(self, path: str) -> AsyncGenerator[JsonObject]:
        """Yield the objects of a JSONL file; a line that is no object is left out, as if its call had not been answered."""
        most, lines_left = self._settings.max_answer_bytes, 2 * self._economy.max_requests + SPARE_LINES
        async with self._open(hdrs.METH_GET, path, timeout_s=TRANSFER_TIMEOUT_S) as response:
            rest = bytearray()
            async for piece in response.content.iter_any():
                *lines, end = piece.split(b"\n")
                lines_left -= len(lines)
                if lines_left < 0:
                    raise self._origin.answer_error("answered with more lines than a batch has requests", "answer_too_large")
                for line in lines:
                    rest += line
                    if found := await self._parse_line(rest):
                        yield found
                    rest = bytearray()
                rest += end
                if len(rest) > most:
                    raise self._origin.answer_error(f"answered with over {most:,} bytes", "answer_too_large")
            if found := await self._parse_line(rest):
                yield found

    async def _parse_line(self, line: bytearray) -> JsonObject:
        if not line.strip():
            return {}
        try:
            return as_object(await run_in_thread("calls", parse, line))
        except ValueError:
            return {}

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        *,
        json: JsonObject | None = None,
        data: aiohttp.FormData | aiohttp.Payload | None = None,
        timeout_s: float,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Open a response; a refusal is raised."""
        url = self._provider.require_url(self._provider.build_url(path))
        limit = aiohttp.ClientTimeout(total=timeout_s, sock_connect=self._settings.row.connect_timeout_s)
        headers: CIMultiDict[str] = self._provider.shared_headers.copy()
        if data is not None or json is None:  # aiohttp writes that of a form, which names its boundary
            headers.popall(hdrs.CONTENT_TYPE, None)
        try:
            async with self._session.request(
                method,
                url,
                json=json,
                data=data,
                headers=headers,
                timeout=limit,
                proxy=find_proxy(self._settings, url),
                allow_redirects=False,  # the key would go to another host
            ) as response:
                if not 200 <= response.status < 300:
                    body = await self._read_bounded(response, MAX_STATE_BYTES)
                    origin = self._origin.with_response(response.headers, response.status)
                    raise origin.upstream_error(find_error(parse_error_body(body)))
                yield response
        except TimeoutError as error:
            raise ProviderError(
                Failure("timeout", f"the batch API of `{self._settings.name}` gave no answer within {timeout_s:g} s")
            ) from error
        except CONNECTION_ERRORS as error:
            raise to_provider_error(self._settings.name, error, limit.sock_connect) from error

    async def _read_bounded(self, response: aiohttp.ClientResponse, most: int) -> bytes:
        body = bytearray()
        async for piece in response.content.iter_any():
            body += piece
            if len(body) > most:
                raise self._origin.answer_error(f"answered with over {most:,} bytes", "answer_too_large")
        return bytes(body)

    def _require_id(self, found: object) -> str:
        """Return the vendor's id of a batch or a file, if it is one."""
        if isinstance(found, str) and ID.fullmatch(found) and not any(secret in found for secret in self._origin.secrets):
            return found
        raise self._origin.answer_error("sent no id for a batch or its file", "unexpected_shape")

    def _describe_state(
        self, word: str, *, is_ended: bool, failure: Failure | None = None, results: tuple[str, ...] = ()
    ) -> EconomyState:
        """Return the state of a batch; the vendor's word for it is logged, so it must bear no secret."""
        return EconomyState(hide(word, self._origin.secrets)[:64], is_ended, failure, results)

    def _build_failure(self, error: Mapping[str, object]) -> Failure:
        """Return why a batch as a whole was not taken."""
        stated = error or {"message": "the batch failed, for no stated reason"}
        return self._origin.upstream_error(stated, kind="bad_request").failure


def quote_id(batch_id: str) -> str:
    """Return an id as a part of a path: it must not lead elsewhere."""
    return quote(batch_id, safe="")
