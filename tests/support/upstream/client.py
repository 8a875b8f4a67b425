"""A plain client for the scripted upstream, which keeps what came before an answer broke."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.support.upstream.server import Upstream


@dataclass
class UpstreamReply:
    """An answer as read: `pieces` have arrived, even if `error` ended it."""

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
    def is_done(self) -> bool:
        return self.body.endswith(b"data: [DONE]\n\n")

    @property
    def text(self) -> str:
        """The text of the first choice, whole or streamed, chat or text."""
        answers = self.events if b"data: " in self.body else [self.json]
        choices = [choice for answer in answers for choice in answer["choices"] if choice["index"] == 0]
        parts = [
            choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content") for choice in choices
        ]
        return "".join(part or "" for part in parts)


@dataclass(frozen=True, slots=True)
class UpstreamClient:
    """A client that reads every answer until its end, whatever kind of end it is."""

    upstream: Upstream
    session: aiohttp.ClientSession

    async def complete(
        self, model: str, *, stream: bool = False, chat: bool = True, timeout_s: float = 5, **more: Any
    ) -> UpstreamReply:
        """Send one request for `model`; `more` goes into its body."""
        prompt: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]} if chat else {"prompt": "hi"}
        body = {"model": model, "stream": stream, **prompt, **more}
        url = self.upstream.url + ("/chat/completions" if chat else "/completions")
        reply, start_s = UpstreamReply(), time.monotonic()
        try:
            async with self.session.post(url, json=body, timeout=aiohttp.ClientTimeout(timeout_s)) as response:
                reply.status, reply.headers = response.status, response.headers
                async for piece in response.content.iter_any():
                    reply.first_s = reply.first_s or time.monotonic() - start_s
                    reply.pieces.append(piece)
        except (aiohttp.ClientError, TimeoutError) as error:
            reply.error = error
        reply.total_s = time.monotonic() - start_s
        return reply
