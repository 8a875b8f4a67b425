"""A client of our server: whole answers, a strict reader of streams, and bytes that no well-behaved client sends."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from multidict import CIMultiDictProxy

from tests.support.server import Server


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it arrived."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body, parse_constant=_refuse_constant)

    @property
    def choices(self) -> list[Any]:
        return list(self.json["choices"])

    @property
    def choice(self) -> Any:
        """The only choice."""
        (choice,) = self.choices
        return choice

    @property
    def texts(self) -> list[str]:
        return [choice["text"] for choice in self.choices]

    @property
    def upstream_bodies(self) -> list[Any]:
        """The bodies sent upstream, one for every choice, if the model was an `echo`."""
        return [json.loads(choice["text"] if "text" in choice else choice["message"]["content"]) for choice in self.choices]

    @property
    def events(self) -> list[Any]:
        """The values of a stream's data lines, including `[DONE]`, without comments."""
        assert self.headers["Content-Type"].startswith("text/event-stream"), self.body
        *blocks, rest = self.body.decode().split("\n\n")
        assert rest == "", "every event ends with an empty line"
        lines = [line for block in blocks for line in block.split("\n") if line.startswith("data: ")]
        return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]

    def choice_pieces(self, index: int) -> list[Any]:
        """Return the pieces of one choice of a stream, in order."""
        choices = [choice for event in self.events if event != "[DONE]" for choice in event["choices"]]
        return [choice for choice in choices if choice["index"] == index]

    @property
    def error(self) -> Any:
        """The error in the envelope, which has every key that clients rely on."""
        error = self.json["error"]
        assert isinstance(error["message"], str)
        assert isinstance(error["type"], str)
        assert {"param", "code"} <= set(error)
        return error

    @property
    def params(self) -> list[str | None]:
        """The wrong fields named by the error."""
        return [detail["param"] for detail in self.error["details"]]


@dataclass(slots=True)
class Stream:
    """A stream, read strictly: data events of one line each, pings between them, `[DONE]` at the end and nothing after it."""

    status: int
    headers: CIMultiDictProxy[str]
    chunks: list[Any] = field(default_factory=list)
    arrivals_s: list[float] = field(default_factory=list)
    """Arrival of each chunk, from the start of the request."""
    pings: int = 0
    is_done: bool = False

    def read(self, event: bytes, at_s: float) -> None:
        assert not self.is_done, f"after [DONE]: {event!r}"
        if event == b": ping":
            self.pings += 1
            return
        assert b"\n" not in event, event
        assert event.startswith(b"data: "), event
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            self.is_done = True
            return
        self.chunks.append(json.loads(data, parse_constant=_refuse_constant))
        self.arrivals_s.append(at_s)

    @property
    def pieces(self) -> list[Any]:
        """The choice of each chunk except the last."""
        choices = []
        for chunk in self.chunks[:-1]:
            (choice,) = chunk["choices"]
            choices.append(choice)
        return choices

    @property
    def ends(self) -> list[Any]:
        """The one last chunk of each choice, in the order of the answers."""
        ends = [piece for piece in self.pieces if piece["finish_reason"] is not None or "usage" in piece]
        ends.sort(key=lambda end: int(end["index"]))
        assert len({end["index"] for end in ends}) == len(ends)
        return ends

    @property
    def totals(self) -> Any:
        assert self.chunks[-1]["choices"] == []
        return self.chunks[-1]

    def text(self, index: int = 0) -> str:
        return "".join(piece["text"] for piece in self.pieces if piece["index"] == index)


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one server."""

    server: Server

    async def complete(self, headers: Mapping[str, str] | None = None, **body: Any) -> Reply:
        """Send `POST /v1/completion`; the default prompt is `hi`."""
        return await self.send("POST", "/v1/completion", {"prompt": "hi", **body}, headers)

    async def send(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
        """Send a request; a body of bytes is sent as it is, any other as JSON."""
        data: Any = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        if data and len(data) > 2**20:
            data = io.BytesIO(data)  # aiohttp warns about bytes of that size
        declared = {"Content-Type": "application/json", **(headers or {})}
        async with self.server.session.request(method, path, data=data, headers=declared) as response:
            return Reply(response.status, response.headers, await response.read())

    async def stream(self, headers: Mapping[str, str] | None = None, **body: Any) -> Stream:
        """Send `POST /v1/completion` for a stream and read it to its end; the answer must be a stream."""
        start_s = time.monotonic()
        fields = {"prompt": "hi", "stream": True, **body}
        async with self.server.session.post("/v1/completion", json=fields, headers=headers) as response:
            assert response.status == 200, await response.text()
            stream, rest = Stream(response.status, response.headers), b""
            async for data in response.content.iter_any():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    stream.read(event, time.monotonic() - start_s)
        assert rest == b""
        assert stream.is_done
        return stream

    async def send_raw(self, data: bytes, *, then: bytes = b"", wait_s: float = 5.0) -> bytes:
        """Return what the server answers until it closes the connection; `then` is sent once it says to continue."""
        host, port = self.server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        try:
            async with asyncio.timeout(wait_s):
                if then:
                    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                    writer.write(then)
                return await reader.read()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


def encode_request(body: bytes = b"", *, path: str = "/v1/completion", method: str = "POST", headers: str = "") -> bytes:
    """Return a request for `Client.send_raw`; `headers` are whole lines."""
    head = f"{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    host = "" if "Host:" in headers else "Host: localhost\r\n"
    kind = "" if "Content-Type:" in headers else "Content-Type: application/json\r\n"
    return f"{head}{host}{kind}{headers}\r\n".encode("latin-1") + body


def parse_response(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """Return the status, headers by lower-case name and JSON of an answer to `Client.send_raw`."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in fields)}
    return int(line.split(" ")[1]), headers, json.loads(body) if body else None


def _refuse_constant(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


NAMES = ("local/ngram-2", "local/ngram-3", "local/ngram-5")
FREE = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 0}
EMBEDDED = {
    "extends": False,
    "providers": {"local": {"adapter": "ngram", "default_kind": "both", "prices": ""}},
    "models": {name: {"provider": "local", "id": name.split("/")[1], "kind": "both", "price": FREE} for name in NAMES},
    "sets": {"embedded": NAMES},
}
