"""Providers over HTTP: pure encoding and decoding in the subclasses, the sockets here."""

from __future__ import annotations

import asyncio
import io
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar, NamedTuple

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ConfigError, ProviderError
from fanout.core.faults import Fault
from fanout.core.messages import ImagePart, OtherPart, TextPart
from fanout.core.schema import Call, Completion, Delta, Failure, FittedParameters, Query, Target
from fanout.providers import OnHeaders
from fanout.providers.mapping.failures import Origin, configuration_error
from fanout.providers.mapping.stream_reader import StreamReader
from fanout.providers.transport.connection_errors import CONNECTION_ERRORS, ConnectionWatch, to_provider_error

MAX_INLINE_PARSE_BYTES = 256 * 1024
"""A body beyond this takes over a millisecond to read, so the loop is not given it."""
MAX_INLINE_ENCODE_CHARACTERS = 2**20
"""The same for writing: 0.6 ms per million characters (2026-11-20, `to_json`)."""
LINGER_S = 0.2
"""How long a stream that has said `[DONE]` may take to end its body in order, which saves the next call a handshake."""
HEADER_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class HttpRequest(NamedTuple):
    url: URL
    headers: CIMultiDict[str]
    body: bytes


class HttpProvider(ABC):
    """One upstream over one shared session. Each attempt's time limit is the caller's; only connecting is limited here."""

    reader_class: ClassVar[type[StreamReader]]
    """Of the format's streamed answers."""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        self.name = settings.name
        self.settings = settings
        self._session = session
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.row.connect_timeout_s)
        values = [_plain(item) for item in (settings.key, *settings.headers.values()) if item]
        self._origin = Origin(self.name, tuple(value for value in values if len(value) >= 6))

    @abstractmethod
    def fit(self, target: Target, query: Query) -> FittedParameters:
        """See `Provider.fit`."""

    @abstractmethod
    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        """The request for a call."""

    @abstractmethod
    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        """What a whole body says.

        Raises:
            ProviderError: and nothing else, whatever the bytes.
        """

    def open_reader(self, call: Call, headers: Mapping[str, str]) -> StreamReader:
        """Return a reader for one streamed answer of status 200."""
        return self.reader_class(self.origin(call).with_response(headers), call.index, self.settings.max_answer_bytes)

    async def complete(self, call: Call, on_headers: OnHeaders | None = None) -> Completion:
        """See `Provider.complete`."""
        request = await self._encode(call, stream=False)
        try:
            response = await self._post(request, on_headers)
            body = await self._read_body(response)
        except CONNECTION_ERRORS as error:
            raise to_provider_error(self.name, error, self._timeout.sock_connect) from error
        return await self._decode(call, response, body)

    async def stream(self, call: Call, on_headers: OnHeaders | None = None) -> AsyncGenerator[Delta | Completion]:
        """See `Provider.stream`. Leaving early closes the upstream's connection."""
        request = await self._encode(call, stream=True)
        try:
            response = await self._post(request, on_headers)
            body = await self._read_body(response) if _is_whole(response) else None
        except CONNECTION_ERRORS as error:
            raise to_provider_error(self.name, error, self._timeout.sock_connect) from error
        if body is not None:  # a refusal, or a host that does not stream
            completion = await self._decode(call, response, body)
            for delta in _to_deltas(call, completion):
                yield delta
            yield completion
            return
        reader = self.open_reader(call, response.headers)
        try:
            broken = None
            try:
                with ConnectionWatch(response):
                    while not reader.is_ended and (data := await response.content.readany()):
                        for delta in reader.feed(data):
                            yield delta
            except CONNECTION_ERRORS as error:
                broken = error
            for delta in reader.flush():
                yield delta
            if broken is None:
                await self._linger(response)
            yield self._close(reader, broken)
        finally:
            response.close()  # not released: what was not read to its end must end upstream too

    def build_url(self, path: str) -> URL | None:
        """An address of this provider; `None` while its variable is not set.

        Raises:
            ConfigError: the base address is none.
        """
        if self.settings.base_url is None:
            return None
        try:
            url = URL(self.settings.base_url + path)
        except ValueError:
            raise self._misconfigured("base_url", "is not an address, as `https://host/v1`") from None
        if url.user or url.password:
            raise self._misconfigured("base_url", "holds a user or password; put it in a variable and name that in `headers`")
        return url

    def require_url(self, url: URL | None) -> URL:
        """Return an address of this provider.

        Raises:
            ProviderError: `not_configured`: its variable is not set.
        """
        if url is None:
            raise configuration_error(f"`{self.name}` has no address")
        return url

    def build_common_headers(self) -> CIMultiDict[str]:
        """The headers that every request bears, the row's own among them.

        Uncompressed: answers are small, and a proxy that compresses holds a stream's pieces back.

        Raises:
            ConfigError: a value that no header can carry.
        """
        headers = CIMultiDict({"User-Agent": "fanout", "Content-Type": "application/json", "Accept-Encoding": "identity"})
        for name, secret in self.settings.headers.items():
            if value := _plain(secret):
                if not HEADER_VALUE.fullmatch(value):
                    raise self._misconfigured(f"headers.{name}", "is not printable ASCII, as a header's value must be")
                headers[name] = value
        return headers

    def read_configured_key(self) -> str | None:
        """The configured key, as it goes into a header.

        Raises:
            ConfigError: no header can carry it.
        """
        key = _plain(self.settings.key) if self.settings.key else None
        if key and not HEADER_VALUE.fullmatch(key):
            raise self._misconfigured("api_key_env", "names a variable whose value is not printable ASCII, as a key must be")
        return key or None

    def read_caller_key(self, call: Call) -> str | None:
        """The caller's own key, where he brought one.

        Raises:
            ProviderError: no header can carry it.
        """
        if call.credential is None:
            return None
        key = _plain(call.credential.key)
        if not HEADER_VALUE.fullmatch(key):
            raise ProviderError(Failure("auth", f"the key given for `{self.name}` is no key", code="invalid_api_key"))
        return key

    def origin(self, call: Call) -> Origin:
        """Whose failures those of a call are, the caller's own key among what they must not show."""
        return self._origin.with_secret(_plain(call.credential.key)) if call.credential else self._origin

    async def _encode(self, call: Call, *, stream: bool) -> HttpRequest:
        if count_characters(call.query) > MAX_INLINE_ENCODE_CHARACTERS:
            return await asyncio.to_thread(self.encode, call, stream=stream)
        return self.encode(call, stream=stream)

    async def _post(self, request: HttpRequest, on_headers: OnHeaders | None) -> aiohttp.ClientResponse:
        # Over 1 MiB aiohttp warns that writing bytes at once blocks the loop; a file's pieces do not.
        body = request.body if len(request.body) <= 2**20 else io.BytesIO(request.body)
        response = await self._session.post(
            request.url, data=body, headers=request.headers, allow_redirects=False, timeout=self._timeout
        )
        if on_headers is not None:  # before the body, so that a stream's headers count while it runs
            on_headers(response.headers)
        return response

    async def _read_body(self, response: aiohttp.ClientResponse) -> bytes:
        """The whole body, as long as it may be; the connection is closed if it is not read to its end."""
        length, highest = response.content_length, self.settings.max_answer_bytes
        try:
            if length is not None and length <= highest and hdrs.CONTENT_ENCODING not in response.headers:
                return await response.read()
            return await self._read_bounded(response, length or 0, highest)
        except BaseException:
            response.close()
            raise

    async def _read_bounded(self, response: aiohttp.ClientResponse, length: int, highest: int) -> bytes:
        """Counts what comes, decompressed: neither the stated length nor the size on the wire bounds memory."""
        body = bytearray()
        with ConnectionWatch(response):
            while max(len(body), length) <= highest:
                piece = await response.content.readany()
                if not piece:
                    return bytes(body)
                body += piece
        raise self._origin.answer_error(f"answered with over {highest:,} bytes", "answer_too_large")

    async def _decode(self, call: Call, response: aiohttp.ClientResponse, body: bytes) -> Completion:
        if len(body) > MAX_INLINE_PARSE_BYTES:
            return await asyncio.to_thread(self.decode, call, response.status, response.headers, body)
        return self.decode(call, response.status, response.headers, body)

    async def _linger(self, response: aiohttp.ClientResponse) -> None:
        if response.content.at_eof():
            return
        try:
            async with asyncio.timeout(LINGER_S):
                await response.content.readany()
        except CONNECTION_ERRORS:
            return  # the answer is whole all the same

    def _close(self, reader: StreamReader, broken: Exception | None) -> Completion:
        """The answer of a stream; of a broken one, too, if its finish reason had come."""
        try:
            return reader.close()
        except ProviderError as error:
            raise error from broken

    def _misconfigured(self, field: str, wrong: str) -> ConfigError:
        return ConfigError(self.settings.source, [Fault(f"providers.{self.name}.{field}", wrong)])


def _plain(secret: SecretStr) -> str:
    return secret.get_secret_value().strip()  # a key read from a file often ends in a newline


def _is_whole(response: aiohttp.ClientResponse) -> bool:
    """Not a stream: a refusal, a host that does not stream, or a web page of something that stands between."""
    kind = response.headers.get(hdrs.CONTENT_TYPE, "")
    return response.status != 200 or kind.startswith(("application/json", "text/html"))


def _to_deltas(call: Call, completion: Completion) -> list[Delta]:
    return [
        Delta(call.index, index, said.text, said.reasoning, said.refusal, said.tool_calls, choice.logprobs)
        for index, choice in enumerate(completion.choices)
        for said in (choice.message,)
    ]


def count_characters(query: Query) -> int:
    """About how much there is to write."""
    if query.messages is None:
        return len(query.prompt or "") + 8 * len(query.prompt_tokens or ())
    total = 0
    for message in query.messages:
        if isinstance(message.content, str):
            total += len(message.content)
        elif message.content:
            total += sum(map(_count_part_characters, message.content))
    return total


def _count_part_characters(part: Any) -> int:
    match part:
        case str():
            return len(part)
        case TextPart():
            return len(part.text)
        case ImagePart():
            return len(part.url)
        case OtherPart():
            return _count_part_characters(part.raw)
        case Mapping():
            return sum(map(_count_part_characters, part.values()))
        case list():
            return sum(map(_count_part_characters, part))
    return 0
