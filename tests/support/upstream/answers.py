"""The scripted upstream's answers: from a script and a request to bytes, pauses and ends, without a socket."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import Enum
from typing import Any

from tests.support.upstream.script import Script

PIECE_BYTES = 64 * 1024
BREAK_DELAY_S = 0.02
"""Pause before a break, so that the client has read the rest: aiohttp drops headers that arrive together with nonsense."""
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
    """An end of a connection instead of more bytes."""

    HANG = "hang"
    CLOSE = "close"
    RESET = "reset"


Step = bytes | float | Act
"""Bytes to send, seconds to wait, or an end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a script to one request."""

    script: Script
    body: Mapping[str, Any]
    chat: bool
    number: int
    """Part of the request id."""
    secret: str = ""
    """Text that `leak` reveals."""
    origin: str = ""

    def steps(self) -> Iterator[Step]:
        """Yield the whole answer in order; it ends without an `Act` if the connection stays usable."""
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
            yield from self._write_sized(script.status, [self._encode(self._build_error(script.status))])
        elif script.html:
            yield from self._write_sized(200, [b"<!doctype html><title>Welcome</title><p>Please sign in."], "text/html")
        elif self.body.get("stream"):
            yield from self._write_stream()
        elif script.error:
            yield from self._write_sized(200, [self._encode(self._build_error(200))])
        else:
            yield from self._write_whole()

    def split_text(self) -> list[str]:
        """Return the text in its pieces."""
        script = self.script
        text = script.say or f"This is {self.body['model']}."
        if script.mb:
            text = "a" * (script.mb * 10**6)
        elif script.echo:
            text = json.dumps(self.body)
        elif script.prefers:
            text = f"I have read both.\n{script.says}: {self._judge()}"
        elif script.surrogates:
            text = LONE_SURROGATES
        elif script.chunks is not None and not script.say:
            return [f"w{number} " for number in range(script.chunks)]
        count = len(text) // PIECE_BYTES + 1 if script.mb else 4
        size = -(-len(text) // (script.chunks or count))
        return [text[start : start + size] for start in range(0, len(text), size)]

    def _judge(self) -> str:
        """Return a verdict on the answers that a judge's prompt shows."""
        prompt = str(self.body["messages"][-1]["content"])
        texts = re.findall(r"\[ANSWER(?: [AB])?\]\n(.*?)\n\[END OF ANSWER", prompt, re.DOTALL)
        has_word = [self.script.prefers in text for text in texts]
        if len(texts) == 1:
            return "5" if has_word[0] else "1"
        return "TIE" if has_word[0] == has_word[1] else "AB"[has_word.index(True)]

    def _write_whole(self) -> Iterator[Step]:
        pieces = self.split_text()
        choices = [self._build_choice(index, "".join(pieces)) for index in range(int(self.body.get("n") or 1))]
        answer = self._build_envelope("chat.completion" if self.chat else "text_completion")
        answer["choices"] = [] if self.script.empty_choices else choices
        if not self.script.no_usage:
            answer["usage"] = self._build_usage()
        body = self._encode(answer)
        if self.script.bad_json:
            body = body[: len(body) // 2]
        size = -(-len(body) // max(2, len(pieces)))
        yield from self._write_sized(200, [body[start : start + size] for start in range(0, len(body), size)])

    def _write_sized(self, status: int, parts: list[bytes], content_type: str = "application/json") -> Iterator[Step]:
        """Yield a body of known length; only `bad_chunk` needs the other framing."""
        chunked = self.script.bad_chunk
        yield self._build_head(status, content_type, None if chunked else sum(map(len, parts)))
        half = len(parts) // 2
        yield from self._write_paced(parts[:half], parts[half:], chunked=chunked)

    def _write_stream(self) -> Iterator[Step]:
        script, samples = self.script, range(int(self.body.get("n") or 1))
        yield self._build_head(200, "text/event-stream; charset=utf-8", None)
        if self.chat and not script.empty_choices:
            yield _encode_chunk(b"".join(self._encode_event(self._build_delta(index, "", role=True)) for index in samples))
        pieces = [] if script.empty_choices else self.split_text()
        events = [b"".join(self._encode_event(self._build_delta(index, piece)) for index in samples) for piece in pieces]
        half = len(events) // 2
        error = [self._encode_event(self._build_error(200)), b"data: [DONE]\n\n"] if script.error else None
        yield from self._write_paced(events[:half], error or [*events[half:], *self._write_closing(samples)], chunked=True)

    def _write_closing(self, samples: range) -> Iterator[bytes]:
        script = self.script
        if script.unfinished:
            return
        if not script.empty_choices:
            yield b"".join(self._encode_event(self._build_delta(index, "", finish=script.finish)) for index in samples)
        if (self.body.get("stream_options") or {}).get("include_usage") and not script.no_usage:
            yield self._encode_event({**self._build_envelope(self._piece_object), "choices": [], "usage": self._build_usage()})
        if not script.no_done:
            yield b"data: [DONE]\n\n"

    def _write_paced(self, before: list[bytes], after: list[bytes], *, chunked: bool) -> Iterator[Step]:
        """Yield the parts with their pauses, the script's acts half-way, and the end of the body."""
        script, gap = self.script, self.script.gap
        if script.first:
            yield script.first
        for part in before:
            yield _encode_chunk(part) if chunked else part
            if gap:
                yield gap
        yield from self._act_halfway(chunked)
        for number, part in enumerate(after):
            if gap and number:
                yield gap
            yield _encode_chunk(part) if chunked else part
        if chunked:
            yield b"0\r\n\r\n"

    def _act_halfway(self, chunked: bool) -> Iterator[Step]:
        script = self.script
        if script.tail:
            yield script.tail
        if script.cut or script.rst or script.bad_chunk:
            yield BREAK_DELAY_S
        if script.hang_body:
            yield Act.HANG
        if script.cut or script.rst:
            yield Act.CLOSE if script.cut else Act.RESET
        if script.bad_chunk:
            yield b"zz\r\n"
            yield Act.CLOSE
        if script.bad_json and chunked:
            yield _encode_chunk(b'data: {"id": "broken", "choices": [\n\n')
        if script.bad_sse and chunked:
            yield _encode_chunk(b"this line is no field\n\xff\xfe\nretry: soon\n\n")

    def _build_head(self, status: int, content_type: str, length: int | None) -> bytes:
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

    def _build_error(self, status: int) -> dict[str, Any]:
        script = self.script
        code: str | int | None = int(script.error) if script.error.isdigit() else script.error or script.code or None
        message = f"the upstream says {script.error or status}"
        if script.leak:
            message += f"; you sent {self.secret} to {self.origin}" + "; and so on" * 60
        kind = "invalid_request_error" if status in range(400, 500) else "server_error"
        return {"error": {"message": message, "type": kind, "param": None, "code": code}}

    def _build_choice(self, index: int, text: str) -> dict[str, Any]:
        content = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        finish = None if self.script.unfinished else self.script.finish
        return {"index": index, **content, "logprobs": None, "finish_reason": finish}

    def _build_delta(self, index: int, text: str, *, finish: str | None = None, role: bool = False) -> dict[str, Any]:
        delta = {} if finish else {"content": text}
        content = {"delta": {"role": "assistant", **delta} if role else delta} if self.chat else {"text": text}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        return {**self._build_envelope(self._piece_object), "choices": [choice]}

    @property
    def _piece_object(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _build_envelope(self, kind: str) -> dict[str, Any]:
        return {"id": f"cmpl-{self.number}", "object": kind, "created": 1_790_000_000, "model": self.body["model"]}

    def _build_usage(self) -> dict[str, Any]:
        script = self.script
        usage: dict[str, Any] = {"prompt_tokens": script.input, "completion_tokens": script.tokens}
        usage["total_tokens"] = script.input + script.tokens
        if script.cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": script.cached}
        return usage

    @staticmethod
    def _encode(value: Mapping[str, Any]) -> bytes:
        return json.dumps(value).encode()

    def _encode_event(self, value: Mapping[str, Any]) -> bytes:
        return b"data: " + self._encode(value) + b"\n\n"


def _encode_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
