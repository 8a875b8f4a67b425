"""A running Fanout server, asked over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, BinaryIO

import aiohttp
from pydantic_core import from_json

from fanout.core.errors import RequestError, ServerError
from fanout.core.faults import Fault
from fanout.providers.transport.sse import SseDecoder

CONNECT_TIMEOUT_S = 10


class Client:
    """Open one with `open_client`."""

    def __init__(self, address: str, session: aiohttp.ClientSession) -> None:
        self._address, self._session = address, session
        self._url = f"{address}/v1/completion"

    async def ask(self, body: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
        """Whether any call was answered, and the answer; where none was, it is the error that names each call's.

        Raises:
            ServerError: the request was refused.
        """
        async with self._session.post(self._url, json=body) as response:
            if response.status == 200:
                return True, await response.json()
            return False, await _all_failed(response)

    async def calls(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What would be called, and nothing is: the server knows what its sets are made of."""
        _, dry = await self.ask({**body, "dry_run": True})
        return list(dry["calls"])

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Pieces of choices as they come; a choice's last one has its `timing`, or its `error` where no call was answered.

        Raises:
            ServerError: as `ask`.
        """
        decoder = SseDecoder()
        async with self._session.post(self._url, json={**body, "stream": True}) as response:
            if response.status != 200:
                for failed in (await _all_failed(response))["error"]["details"]:
                    yield {"index": failed["index"], "text": "", "error": failed}
                return
            async for block in response.content.iter_any():
                for _, data in decoder.feed(block):
                    for choice in from_json(data)["choices"] if data != b"[DONE]" else ():
                        yield choice

    # Whatever else it has

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """
        Raises:
            RequestError, ServerError: the request was refused.
        """
        async with self._session.get(f"{self._address}{path}", params=query) as response:
            return await _answer(response)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Raises as `get`."""
        async with self._session.post(f"{self._address}{path}", json=body) as response:
            return await _answer(response)

    async def delete(self, path: str) -> None:
        """Raises as `get`."""
        async with self._session.delete(f"{self._address}{path}") as response:
            await _answer(response)

    async def upload(self, stream: BinaryIO, name: str) -> str:
        """The id of the file that was made of a stream. Raises as `get`."""
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        form.add_field("file", stream, filename=name, content_type="application/octet-stream")
        async with self._session.post(f"{self._address}/v1/files", data=form) as response:
            return str((await _answer(response))["id"])

    async def download(self, path: str, **query: str) -> AsyncGenerator[bytes]:
        """A body, piece by piece. Raises as `get`."""
        async with self._session.get(f"{self._address}{path}", params=query) as response:
            if response.status != 200:
                await _answer(response)
            async for block in response.content.iter_any():
                yield block

    async def events(self, path: str) -> AsyncGenerator[dict[str, Any]]:
        """What a stream of events says, until its end or until it breaks off. Raises as `get`."""
        decoder = SseDecoder()
        async for block in self.download(path):
            for _, data in decoder.feed(block):
                if data == b"[DONE]":
                    return
                yield from_json(data)


@asynccontextmanager
async def open_client(address: str, key: str | None) -> AsyncGenerator[Client]:
    """A client of the server at an address, with or without `http://`.

    Raises:
        ServerError: nothing there speaks as a Fanout server does, or it broke off.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = (address if "://" in address else f"http://{address}").rstrip("/")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
            yield Client(address, session)
    except aiohttp.ClientPayloadError as error:
        raise ServerError(f"the server at {address} broke off in the middle of its answer") from error
    except aiohttp.InvalidURL as error:
        raise ServerError(f"`{address}` is no address of a server, as `http://127.0.0.1:8080`") from error
    except aiohttp.ClientConnectionError as error:
        raise ServerError(f"no server at {address} ({error}); `fanout serve` starts one") from error
    except (aiohttp.ClientError, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"what answers at {address} is no Fanout server") from error


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """
    Raises:
        RequestError: what was asked is wrong: with every fault that the server names.
        ServerError: it was refused for another reason.
    """
    text = await response.text(errors="replace")
    if response.status in (200, 201):
        answer: dict[str, Any] = from_json(text)
        return answer
    try:
        error = from_json(text)["error"]
        message, details = error["message"], error.get("details") or ()
        faults = [Fault(detail["param"] or "", detail["message"], detail["code"]) for detail in details]
    except (ValueError, KeyError, TypeError):
        raise ServerError(f"the server answered {response.status}: {text[:500]}") from None
    if faults and response.status in (400, 404, 409):
        raise RequestError(faults)
    raise ServerError(f"the server answered {response.status}: {message}{_hint(response.status)}")


def _hint(status: int) -> str:
    return "; FANOUT_API_KEYS holds the key that `--server` shows" if status == 401 else ""


async def _all_failed(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The answer to a request whose every call failed.

    Raises:
        ServerError: the request itself was refused, so nothing was called.
    """
    text = await response.text(errors="replace")
    try:
        answer: dict[str, Any] = from_json(text)
        error = answer["error"]
        message, details = error["message"], error.get("details") or ()
    except (ValueError, KeyError, TypeError):
        raise ServerError(f"the server answered {response.status}: {text[:500]}") from None
    if details and all("index" in detail for detail in details):
        return answer
    raise ServerError(f"the server answered {response.status}: {message}{_hint(response.status)}")
