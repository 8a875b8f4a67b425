"""What a model does beside answering: one request, and one whole answer that is no message."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import aiohttp
from yarl import URL

from fanout.config.settings import ProviderSettings
from fanout.core.json_text import JsonObject, parse
from fanout.core.schema import Call, Completion, FittedParameters, Query, Target
from fanout.providers.mapping.error_objects import find_error, is_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.parameters import Table, accept, fit
from fanout.providers.transport.json_provider import VERSION, JsonProvider
from fanout.providers.transport.request import HttpRequest, write_body


class TaskProvider(JsonProvider):
    """A base to stand before that of the format, of which it takes address, key and errors."""

    table: ClassVar[Table] = MappingProxyType({})
    """Sampling parameters that the task takes."""
    passed_on: ClassVar[frozenset[str] | None] = frozenset()
    """Further fields that it takes; `None`: all."""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self.parameters = accept(self.table, settings.row.parameters, self.passed_on)

    def build_root_url(self, path: str) -> URL:
        """Return an address that has no version in front of it, as `base_url` may have.

        Raises:
            ProviderError: `not_configured`: there is no address.
        """
        base = self.require_url(self.build_url(""))
        return URL(VERSION.sub("", str(base).rstrip("/")) + path)

    def fit(self, target: Target, query: Query) -> FittedParameters:
        return fit(query, self.parameters)

    def encode(self, call: Call, *, stream: bool) -> HttpRequest:
        url, fields = self.write(call)
        return HttpRequest(url, self.build_headers(call), write_body(fields, call))

    @abstractmethod
    def write(self, call: Call) -> tuple[URL, JsonObject]:
        """Return the address and the body of the request for a call."""

    @abstractmethod
    def read(self, origin: Origin, call: Call, answer: object) -> Completion:
        """Return what an answer holds.

        Raises:
            ProviderError: it does not hold what was requested.
        """

    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes | bytearray) -> Completion:
        """See `HttpProvider.decode`."""
        if not 200 <= status < 300:
            return super().decode(call, status, headers, body)
        origin = self.origin(call).with_response(headers)
        try:
            answer = parse(body)
        except ValueError:
            raise origin.answer_error("sent an answer that is not JSON", "invalid_json") from None
        if is_error(answer):
            raise origin.upstream_error(find_error(answer))
        return self.read(origin, call, answer)
