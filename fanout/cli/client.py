"""An HTTP client of a running Fanout server."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, BinaryIO

import aiohttp
from pydantic_core import from_json

from fanout.core.errors import Fault, RequestError, ServerError
from fanout.core.json_text import JsonObject
from fanout.providers.transport.sse import SseDecoder

MAX_EVENT_BYTES = 2**28
"""An event may hold a whole answer, and a server may allow larger ones than most."""
CONNECT_TIMEOUT_S = 10
MAX_SHOWN_CHARS = 500
"""Length of a foreign answer quoted in an error."""


class ServerClient:
    """A client of one server; made by `open_client`."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self.address, self._session = address, session
        self._comparison_ids: list[str] = []

    @asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        # Here and not only where the client is opened: a conversation goes on after a failed message.
        async with (
            _explain_errors(self.address),
            self._session.request(method, f"{self.address}{path}", **options) as response,
        ):
            if id_ := response.headers.get("x-comparison-id"):
                self._comparison_ids.append(id_)
            yield response

    def take_comparison_ids(self) -> list[str]:
        """Return the ids that the answers since the last time have in the server's history; dry runs have none."""
        taken, self._comparison_ids = self._comparison_ids, []
        return taken

    async def complete(self, body: Mapping[str, object], path: str = "/v1/completion") -> tuple[bool, JsonObject]:
        """Post a prompt, or to another path a conversation; return whether any call was answered, and the answer.

        If no call was answered, the answer is the error that names the failure of each call.

        Raises:
            ServerError: the request was refused.
        """
        async with self._request("POST", path, json=body) as response:
            if response.status == 200:
                return True, await response.json()
            return False, await _read_failures(response)

    async def plan(self, body: Mapping[str, object]) -> list[JsonObject]:
        """Return the calls a request would make."""
        # Only the server can tell: its configuration defines the sets.
        _, dry_run = await self.complete({**body, "dry_run": True})
        return list(dry_run["calls"])

    async def stream(self, body: Mapping[str, object]) -> AsyncGenerator[JsonObject]:
        """Yield pieces of choices; the last piece of a choice has its `timing`, or `error` if no call was answered.

        Raises:
            ServerError: the request was refused.
        """
        async with aclosing(self._stream_choices("/v1/completion", body)) as choices:
            async for choice in choices:
                yield choice

    async def stream_chat(self, body: Mapping[str, object]) -> AsyncGenerator[JsonObject]:
        """Yield pieces of chat choices, as `stream` does of completions; their text is in `delta`."""
        async with aclosing(self._stream_choices("/v1/chat/completions", body)) as choices:
            async for choice in choices:
                yield choice

    async def _stream_choices(self, path: str, body: Mapping[str, object]) -> AsyncGenerator[JsonObject]:
        decoder = SseDecoder(MAX_EVENT_BYTES)
        async with self._request("POST", path, json={**body, "stream": True}) as response:
            if response.status != 200:
                for failure in (await _read_failures(response))["error"]["details"]:
                    yield {"index": failure["index"], "text": "", "error": failure}
                return
            async for block in response.content.iter_any():  # not by lines: those have a length limit in aiohttp
                for _, data in decoder.feed(block):
                    for choice in from_json(data)["choices"] if data != b"[DONE]" else ():
                        yield choice

    async def get(self, path: str, **query: str | int | Sequence[str]) -> JsonObject:
        """Return the answer to a GET request; a refused one raises RequestError or ServerError."""
        async with self._request("GET", path, params=query) as response:
            return await _read_answer(response)

    async def post(self, path: str, body: Mapping[str, object]) -> JsonObject:
        """Return the answer to a POST request; raises like `get`."""
        async with self._request("POST", path, json=body) as response:
            return await _read_answer(response)

    async def delete(self, path: str) -> None:
        """Send a DELETE request; raises like `get`."""
        async with self._request("DELETE", path) as response:
            await _read_answer(response)

    async def upload(self, stream: BinaryIO, name: str) -> str:
        """Upload a file for a batch and return its id; raises like `get`."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", stream, filename=name, content_type="application/octet-stream")
        async with self._request("POST", "/v1/files", data=form) as response:
            return str((await _read_answer(response))["id"])

    async def download(self, path: str, **query: str) -> AsyncGenerator[bytes]:
        """Yield the body of an answer in blocks; raises like `get`."""
        async with self._request("GET", path, params=query) as response:
            if response.status != 200:
                await _read_answer(response)
            async for block in response.content.iter_any():
                yield block

    async def stream_events(self, path: str) -> AsyncGenerator[JsonObject]:
        """Yield server-sent events until `[DONE]` or until the connection ends; raises like `get`."""
        decoder = SseDecoder(MAX_EVENT_BYTES)
        async for block in self.download(path):
            for _, data in decoder.feed(block):
                if data == b"[DONE]":
                    return
                yield from_json(data)


@asynccontextmanager
async def open_client(address: str, key: str | None) -> AsyncGenerator[ServerClient]:
    """Open a client of the server at an address, with or without `http://`.

    Raises:
        ServerError: no Fanout server answers there, or the connection broke.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = (address if "://" in address else f"http://{address}").rstrip("/")
    # No total timeout: the server keeps its own deadline, and a job may take days.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    # Each request dials anew: they are few and may be far apart, so that a kept connection could be dead when it is needed.
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        _explain_errors(address),
        aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector) as session,
    ):
        yield ServerClient(address, session)


@asynccontextmanager
async def _explain_errors(address: str) -> AsyncGenerator[None]:
    """Raise what goes wrong with a server at an address as a `ServerError`."""
    try:
        yield
    # The order matters: each of these is a subclass of aiohttp.ClientError.
    except aiohttp.ClientPayloadError as error:
        raise ServerError(f"the server at {address} broke off in the middle of its answer") from error
    except aiohttp.InvalidURL as error:
        raise ServerError(f"`{address}` is not the address of a server, such as `http://127.0.0.1:8080`") from error
    except aiohttp.ClientConnectionError as error:
        raise ServerError(f"no server at {address} ({_explain_reason(error)}); `fanout serve` starts one") from error
    except (aiohttp.ClientError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{address} answers, but is not a Fanout server") from error


def _explain_reason(error: Exception) -> str:
    """Return the system's reason: aiohttp's own sentence repeats the address, and asyncio's is a tuple."""
    if isinstance(error, OSError) and error.errno and error.errno > 0:  # names that do not resolve have negative ones
        return os.strerror(error.errno).lower()
    return (isinstance(error, OSError) and error.strerror) or str(error)


async def _read_answer(response: aiohttp.ClientResponse) -> JsonObject:
    """Return the object in a successful answer; a refused request is a RequestError, anything else a ServerError."""
    text = await response.text(errors="replace")
    if response.status in (200, 201):
        answer: JsonObject = from_json(text)
        return answer
    message, details = _parse_error(response.status, text)
    try:
        faults = [Fault(detail["param"] or "", detail["message"], detail["code"]) for detail in details]
    except (KeyError, TypeError):
        raise _to_server_error(response.status, text[:MAX_SHOWN_CHARS]) from None
    # With other statuses (401, 413, 503) the request was not wrong in one of its fields.
    if faults and response.status in (400, 404, 409):
        raise RequestError(faults)
    raise _to_server_error(response.status, message)


async def _read_failures(response: aiohttp.ClientResponse) -> JsonObject:
    """Return the error that names the failure of every call; raise ServerError if the request itself was refused."""
    text = await response.text(errors="replace")
    message, details = _parse_error(response.status, text)
    # Details of failed calls have the index of their choice; details of a refused request do not.
    if details and all("index" in detail for detail in details):
        answer: JsonObject = from_json(text)
        return answer
    raise _to_server_error(response.status, message)


def _parse_error(status: int, text: str) -> tuple[str, list[JsonObject]]:
    """Return the message and the details of an error answer; raise ServerError if it is not an envelope of ours."""
    try:
        error = from_json(text)["error"]
        return error["message"], error.get("details") or []
    except (ValueError, KeyError, TypeError):
        raise _to_server_error(status, text[:MAX_SHOWN_CHARS]) from None


def _to_server_error(status: int, message: str) -> ServerError:
    hint = "; set FANOUT_API_KEYS to the key for `--server`" if status == 401 else ""
    return ServerError(f"the server answered {status}: {message}{hint}")
