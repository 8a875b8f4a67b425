"""Providers that answer with JSON objects: what the adapters of all such formats have in common."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import ClassVar

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, dump, split_values
from fanout.core.schema import Call, Completion
from fanout.providers.mapping.answer_reader import parse_within_bounds
from fanout.providers.mapping.error_objects import parse_error_body
from fanout.providers.transport.http import HttpProvider
from fanout.providers.transport.images import inline_images
from fanout.providers.transport.public_addresses import Network

VERSION = re.compile(r"/v\d+(?:(?:alpha|beta)\d*)?$")


class JsonProvider(HttpProvider):
    """A provider whose answers are JSON objects, with its key in one header and a version in its path."""

    key_header: ClassVar[str] = hdrs.AUTHORIZATION
    key_prefix: ClassVar[str] = "Bearer "

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._headers = self._shared_headers = self.build_common_headers()
        if (key := self.read_configured_key()) and self.key_header not in self._headers:
            self.write_key(self._headers, key)
        self._own_secrets = super().find_secrets(self._headers)

    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes | bytearray) -> Completion:
        """See `HttpProvider.decode`."""
        if not 200 <= status < 300:
            raise self.reader_class.parse_error(self.origin(call).with_response(headers, status), parse_error_body(body))
        origin = self.origin(call).with_response(headers)
        try:
            answer = parse_within_bounds(body, origin)
        except ValueError:
            return self._decode_stream(call, headers, body)
        if type(answer) is list and answer and all(isinstance(item, dict) for item in answer):
            if len(answer) > 1:  # Google's stream without `alt=sse`
                return self.open_reader(call, headers).read_values(answer)
            answer = answer[0]  # Google's gateways put the one object into a list
        if type(answer) is not dict:
            raise origin.answer_error("sent JSON that is no answer", "unexpected_shape")
        return self.reader_class.parse_answer(origin, answer)

    def decode_value(self, call: Call, status: int, headers: Mapping[str, str], answer: JsonObject) -> Completion:
        """Return what `decode` returns of a body that has been parsed."""
        origin = self.origin(call).with_response(headers, None if 200 <= status < 300 else status)
        if not 200 <= status < 300:
            raise self.reader_class.parse_error(origin, answer)
        return self.reader_class.parse_answer(origin, answer)

    @property
    def shared_headers(self) -> CIMultiDict[str]:
        """The headers of all requests with the configured key; not to be changed."""
        return self._headers

    def _decode_stream(self, call: Call, headers: Mapping[str, str], body: bytes | bytearray) -> Completion:
        """Parse an answer that came as a stream although none was requested, or with a stream's end behind it."""
        reader = self.open_reader(call, headers)
        try:
            values = split_values(body)
        except ValueError:
            values = []
        if len(values) == 1:
            return self.decode(call, 200, headers, dump(values[0]))
        if values:
            return reader.read_values(values)
        if reader.is_stream(data := bytes(body)):
            reader.feed(data)
            reader.flush()
            if reader.has_choices or reader.is_ended:
                return reader.close(is_cut=False)
        raise self.origin(call).with_response(headers).answer_error("sent an answer that is not JSON", "invalid_json")

    def build_prefix(self, version: str) -> str:
        """Return the path between the base address and the endpoint: empty where the address names a version itself."""
        return "" if VERSION.search(self.settings.base_url or "") else f"/{version}"

    def build_headers(self, call: Call) -> CIMultiDict[str]:
        """Return the headers of a call, the caller's own key among them if there is one."""
        key = None if call.credential is None else self.read_caller_key(call)
        if key is None:
            # Not copied: it is the same for each of thousands of calls, and nothing changes it.
            return self._headers
        headers = self._headers.copy()
        self.write_key(headers, key)
        return headers

    def find_secrets(self, headers: Mapping[str, str]) -> tuple[str, ...]:
        """See `ConfiguredProvider.find_secrets`."""
        # By identity: the shared headers are searched for secrets once, not for each answer.
        return self._own_secrets if headers is self._headers else super().find_secrets(headers)

    def write_key(self, headers: CIMultiDict[str], key: str) -> None:
        """Put a key into the header that bears it."""
        headers[self.key_header] = self.key_prefix + key


class InliningProvider(JsonProvider):
    """A format whose images are bytes: an image's address is fetched before a request is written."""

    allowed_networks: Collection[Network] = ()
    """May be fetched from although they are not public. For tests."""

    async def inline(self, call: Call) -> Call:
        """See `HttpProvider.inline`."""
        return await inline_images(call, is_allowed=self.settings.fetch_images, allowed=self.allowed_networks)
