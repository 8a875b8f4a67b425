"""The scripted upstream's answers: a script and a request → bytes, pauses and ends, in order; no socket here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import Enum
from typing import Any

from tests.support.playbook import Script

PIECE_BYTES = 64 * 1024
NOTICED_S = 0.02
"""Before a break, so that the client has read what came before: aiohttp drops headers that arrive together with nonsense."""
LONE_SURROGATES = "a \ud83d b \udc00 c"
HEADERS = {
    "s": "Retry-After",
    "ms": "retry-after-ms",
    "retry": "x-should-retry",
    "remaining": "x-ratelimit-remaining-requests",
    "limit": "x-ratelimit-limit-requests",
    "reset": "x-ratelimit-reset-requests",
}


class Act(Enum):
    """What happens to a connection instead of more bytes."""

    HANG = "hang"
    CLOSE = "close"
    RESET = "reset"


Step = bytes | float | Act
"""Bytes to send, seconds to wait, or an end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The bytes that `script` answers to one request."""

    script: Script
    body: Mapping[str, Any]
    chat: bool
    number: int
    """Stands in the request id."""
    secret: str = ""
    """What `leak` gives away."""
    origin: str = ""

    def steps(self) -> Iterator[Step]:
        """The whole exchange, in order; ends without an `Act` where the connection stays usable."""
        script = self.script
        if script.sleep:
            yield script.sleep
        if script.hang:
            yield Act.HANG
        if script.bad_http:
            yield b"SMTP 1.0 is not HTTP\r\n\r\n"
        if script.drop or script.bad_http:
            yield Act.CLOSE
        elif script.status != 200:
            yield from self._sized(script.status, [self._json(self._error(script.status))])
        elif script.html:
            yield from self._sized(200, [b"<!doctype html><title>Welcome</title><p>Please sign in."], "text/html")
        elif self.body.get("stream"):
            yield from self._streamed()
        elif script.error:
            yield from self._sized(200, [self._json(self._error(200))])
        else:
            yield from self._whole()

    def pieces(self) -> list[str]:
        """The text, as it is cut."""
        script = self.script
        text = script.say or f"This is {self.body['model']}."
        if script.mb:
            text = "a" * (script.mb * 10**6)
        elif script.echo:
            text = json.dumps(self.body)
        elif script.surrogates:
            text = LONE_SURROGATES
        elif script.chunks is not None and not script.say:
            return [f"w{number} " for number in range(script.chunks)]
        count = len(text) // PIECE_BYTES + 1 if script.mb else 4
        size = -(-len(text) // (script.chunks or count))
        return [text[start : start + size] for start in range(0, len(text), size)]

    def _whole(self) -> Iterator[Step]:
        pieces = self.pieces()
        choices = [self._choice(index, "".join(pieces)) for index in range(int(self.body.get("n") or 1))]
        answer = self._envelope("chat.completion" if self.chat else "text_completion")
        answer["choices"] = [] if self.script.empty_choices else choices
        if not self.script.no_usage:
            answer["usage"] = self._usage()
        body = self._json(answer)
        if self.script.bad_json:
            body = body[: len(body) // 2]
        size = -(-len(body) // max(2, len(pieces)))
        yield from self._sized(200, [body[start : start + size] for start in range(0, len(body), size)])

    def _sized(self, status: int, parts: list[bytes], content_type: str = "application/json") -> Iterator[Step]:
        """A body whose length is known; only a chunk that is to be broken needs the other framing."""
        chunked = self.script.bad_chunk
        yield self._head(status, content_type, None if chunked else sum(map(len, parts)))
        half = len(parts) // 2
        yield from self._paced(parts[:half], parts[half:], chunked=chunked)

    def _streamed(self) -> Iterator[Step]:
        script, samples = self.script, range(int(self.body.get("n") or 1))
        yield self._head(200, "text/event-stream; charset=utf-8", None)
        if self.chat and not script.empty_choices:
            yield _chunk(b"".join(self._event(self._delta(index, "", role=True)) for index in samples))
        pieces = [] if script.empty_choices else self.pieces()
        events = [b"".join(self._event(self._delta(index, piece)) for index in samples) for piece in pieces]
        half = len(events) // 2
        error = [self._event(self._error(200)), b"data: [DONE]\n\n"] if script.error else None
        yield from self._paced(events[:half], error or [*events[half:], *self._closing(samples)], chunked=True)

    def _closing(self, samples: range) -> Iterator[bytes]:
        script = self.script
        if script.unfinished:
            return
        if not script.empty_choices:
            yield b"".join(self._event(self._delta(index, "", finish=script.finish)) for index in samples)
        if (self.body.get("stream_options") or {}).get("include_usage") and not script.no_usage:
            yield self._event({**self._envelope(self._piece_object), "choices": [], "usage": self._usage()})
        if not script.no_done:
            yield b"data: [DONE]\n\n"

    def _paced(self, before: list[bytes], after: list[bytes], *, chunked: bool) -> Iterator[Step]:
        """The parts with their pauses, what `script` does half-way between them, and the end of the body."""
        script, gap = self.script, self.script.gap
        if script.first:
            yield script.first
        for part in before:
            yield _chunk(part) if chunked else part
            if gap:
                yield gap
        yield from self._halfway(chunked)
        for number, part in enumerate(after):
            if gap and number:
                yield gap
            yield _chunk(part) if chunked else part
        if chunked:
            yield b"0\r\n\r\n"

    def _halfway(self, chunked: bool) -> Iterator[Step]:
        script = self.script
        if script.tail:
            yield script.tail
        if script.cut or script.rst or script.bad_chunk:
            yield NOTICED_S
        if script.hang_body:
            yield Act.HANG
        if script.cut or script.rst:
            yield Act.CLOSE if script.cut else Act.RESET
        if script.bad_chunk:
            yield b"zz\r\n"
            yield Act.CLOSE
        if script.bad_json and chunked:
            yield _chunk(b'data: {"id": "broken", "choices": [\n\n')
        if script.bad_sse and chunked:
            yield _chunk(b"this line is no field\n\xff\xfe\nretry: soon\n\n")

    def _head(self, status: int, content_type: str, length: int | None) -> bytes:
        script = self.script
        lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {content_type}", f"x-request-id: req-{self.number}"]
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        if status < 400 and status != 200:
            lines.append(f"Location: {self.origin}/moved")
        if script.date is not None:
            moment = datetime.now(UTC) + timedelta(seconds=script.date, microseconds=999_999)
            lines.append(f"Retry-After: {format_datetime(moment, usegmt=True)}")
        lines += [f"{header}: {value}" for word, header in HEADERS.items() if (value := getattr(script, word))]
        return "\r\n".join([*lines, "", ""]).encode()

    def _error(self, status: int) -> dict[str, Any]:
        script = self.script
        code: str | int | None = int(script.error) if script.error.isdigit() else script.error or script.code or None
        message = f"the upstream says {script.error or status}"
        if script.leak:
            message += f"; you sent {self.secret} to {self.origin}" + "; and so on" * 60
        kind = "invalid_request_error" if status in range(400, 500) else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def _choice(self, index: int, text: str) -> dict[str, Any]:
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        finish = None if self.script.unfinished else self.script.finish
        return {"index": index, **said, "logprobs": None, "finish_reason": finish}

    def _delta(self, index: int, text: str, *, finish: str | None = None, role: bool = False) -> dict[str, Any]:
        delta = {} if finish else {"content": text}
        said = {"delta": {"role": "assistant", **delta} if role else delta} if self.chat else {"text": text}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": finish}
        return {**self._envelope(self._piece_object), "choices": [choice]}

    @property
    def _piece_object(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": f"cmpl-{self.number}", "object": kind, "created": 1_790_000_000, "model": self.body["model"]}

    def _usage(self) -> dict[str, Any]:
        script = self.script
        usage: dict[str, Any] = {"prompt_tokens": script.input, "completion_tokens": script.tokens}
        usage["total_tokens"] = script.input + script.tokens
        if script.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": script.cached}
        return usage

    @staticmethod
    def _json(value: Mapping[str, Any]) -> bytes:
        return json.dumps(value).encode()

    def _event(self, value: Mapping[str, Any]) -> bytes:
        return b"data: " + self._json(value) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
