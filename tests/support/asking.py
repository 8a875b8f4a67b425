"""A plain client for the scripted upstream, which keeps whatever came before an answer broke."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp

from tests.support.upstreams import Upstream


@dataclass
class Got:
    """An answer as read: what stands in `pieces` arrived, also where `error` ended it."""

    status: int = 0
    headers: Any = None
    pieces: list[bytes] = field(default_factory=list)
    first_s: float = 0.0
    total_s: float = 0.0
    error: Exception | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [json.loads(line) for line in lines if line != b"[DONE]"]

    @property
    def done(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")

    @property
    def text(self) -> str:
        """Of the first choice, whole or streamed, chat or text."""
        answers = self.events if b"data: " in self.body else [self.json]
        choices = [choice for answer in answers for choice in answer["choices"] if choice["index"] == 0]
        parts = [
            choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content") for choice in choices
        ]
        return "".join(part or "" for part in parts)


class Ask(Protocol):
    """Sends one request for `model`; `more` goes into its body."""

    def __call__(
        self, model: str, *, stream: bool = False, chat: bool = True, timeout_s: float = 5, **more: Any
    ) -> Coroutine[Any, Any, Got]: ...


@asynccontextmanager
async def open_asking(upstream: Upstream) -> AsyncIterator[Ask]:
    """Open a client that reads every answer until its end, whatever kind of end it is."""
    async with aiohttp.ClientSession() as client:

        async def ask(model: str, *, stream: bool = False, chat: bool = True, timeout_s: float = 5, **more: Any) -> Got:
            asked: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
            body = {"model": model, "stream": stream, **asked, **more}
            path, read, start = "/chat/completions" if chat else "/completions", Got(), time.monotonic()
            try:
                async with client.post(upstream.url + path, json=body, timeout=aiohttp.ClientTimeout(timeout_s)) as response:
                    read.status, read.headers = response.status, response.headers
                    async for piece in response.content.iter_any():
                        read.first_s = read.first_s or time.monotonic() - start
                        read.pieces.append(piece)
            except (aiohttp.ClientError, TimeoutError) as error:
                read.error = error
            read.total_s = time.monotonic() - start
            return read

        yield ask
