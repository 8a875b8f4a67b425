"""The scripted upstream's sockets: HTTP requests read by hand, so that answers can also break the protocol."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.support.upstream.answers import Act, Step

if TYPE_CHECKING:
    from tests.support.upstream.server import Upstream

MAX_ANSWER_S = 60.0
"""Longest answer, so that a client that never leaves fails its test instead of hanging it."""


@dataclass(slots=True, eq=False)
class Request:
    """One request as it arrived, and its end."""

    arrived_s: float
    """`time.monotonic()`, like `ended_s`."""
    method: str
    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Mapping[str, Any]
    """The JSON object; empty where there was none."""
    connection: int
    """Number of its connection, from 0: the same number is the same socket."""
    ended_s: float | None = None
    """Time at which the answer's last byte was written or the script ended the connection; `None`: not yet, or never."""
    is_abandoned: bool = False
    """The client closed its connection before that."""

    @property
    def model(self) -> str:
        return str(self.body.get("model", ""))


class Connection(asyncio.Protocol):
    """One socket: requests in, one after another; the steps of their answers out."""

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._received = b""
        self._request: Request | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._number = self._upstream.add_connection(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._request:
            self._request.is_abandoned = True
        self._stop()
        self._upstream.remove_connection(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._answer_next()

    def abort(self) -> None:
        self._stop()
        self.transport.abort()

    def _stop(self) -> None:
        if self._task:
            self._task.cancel()
        self._end()  # a task that is cancelled before its first step never reaches its own `finally`

    def _end(self) -> None:
        if self._request:
            self._upstream.end_answer(self._request)
        self._request = None

    def _answer_next(self) -> None:
        """Start the next answer if a request is complete and none is being answered."""
        if self._request or self.transport.is_closing():
            return
        try:
            self._request = self._parse_request()
        except ValueError as error:
            self._upstream.errors.append(error)
            self.transport.abort()
        if self._request:
            answer = self._upstream.begin_answer(self._request)
            self._task = asyncio.create_task(self._answer(self._request, answer.steps()))

    def _parse_request(self) -> Request | None:
        head, complete, rest = self._received.partition(b"\r\n\r\n")
        if not complete:
            return None
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        if "transfer-encoding" in headers:
            raise ValueError("a chunked request body: this upstream reads only those with a length")
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return None
        self._received = rest[size:]
        method, path, _ = line.split(" ")
        return Request(time.monotonic(), method, path, headers, _json_object(rest[:size]), self._number)

    async def _answer(self, request: Request, steps: Iterator[Step]) -> None:
        try:
            async with asyncio.timeout(MAX_ANSWER_S):
                await self._play(steps)
            request.ended_s = time.monotonic()
        except Exception as error:  # an error of the upstream must fail the test, not vanish with this task
            self._upstream.errors.append(error)
            self.transport.abort()
        finally:
            self._end()
        if request.headers.get("connection", "").lower() == "close":
            self.transport.close()
        self._answer_next()

    async def _play(self, steps: Iterator[Step]) -> None:
        for step in steps:
            match step:
                case bytes():
                    self.transport.write(step)
                    await self._writable.wait()
                case Act.HANG:
                    await asyncio.Event().wait()
                case Act.CLOSE:
                    return self.transport.close()
                case Act.RESET:
                    linger = struct.pack("ii", 1, 0)  # closing with a linger time of 0 sends RST instead of FIN
                    self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    return self.transport.abort()
                case float():
                    await asyncio.sleep(step)
        return None


def _json_object(data: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(data)
        return value if isinstance(value, dict) else {}
    return {}
