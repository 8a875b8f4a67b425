"""What the vendors' own formats have in common: an object in, an object out, a key in one header, a version in the path."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import aiohttp
from multidict import CIMultiDict

from fanout.config.settings import ProviderSettings
from fanout.core.errors import ProviderError
from fanout.core.json_text import parse
from fanout.core.schema import Call, Completion
from fanout.providers.mapping.failures import Origin, parse_error_body
from fanout.providers.mapping.images import Network, inline_images
from fanout.providers.transport.http import HttpProvider, HttpRequest

VERSION = re.compile(r"/v\d+(?:(?:alpha|beta)\d*)?$")


class NativeProvider(HttpProvider):
    """A vendor's own format: the subclass reads the answer's object, and says what its errors mean."""

    key_header: ClassVar[str]
    key_prefix: ClassVar[str] = ""

    def __init__(self, settings: ProviderSettings, session: aiohttp.ClientSession) -> None:
        super().__init__(settings, session)
        self._headers = self.build_common_headers()
        if (key := self.read_configured_key()) and self.key_header not in self._headers:
            self._headers[self.key_header] = self.key_prefix + key

    @abstractmethod
    def parse_answer(self, origin: Origin, headers: Mapping[str, str], body: dict[str, Any]) -> Completion:
        """What the object of a whole answer says.

        Raises:
            ProviderError: it is an error, or no answer.
        """

    @abstractmethod
    def parse_refusal(
        self, origin: Origin, status: int | None, headers: Mapping[str, str], body: Mapping[str, Any]
    ) -> ProviderError:
        """The failure that the object of an error means; `status` is `None` within an answer of status 200."""

    def decode(self, call: Call, status: int, headers: Mapping[str, str], body: bytes) -> Completion:
        origin = self.origin(call)
        if not 200 <= status < 300:
            raise self.parse_refusal(origin, status, headers, _error_object(body))
        try:
            answer = unwrap_list(parse(body))
        except ValueError:
            raise origin.malformed("sent an answer that is not JSON", "invalid_json") from None
        if not isinstance(answer, dict):
            raise origin.malformed("sent JSON that is no answer", "unexpected_shape")
        return self.parse_answer(origin, headers, answer)

    def build_prefix(self, version: str) -> str:
        """What goes between the base address and a path: nothing where the address names a version itself."""
        return "" if VERSION.search(self.settings.base_url or "") else f"/{version}"

    def build_headers(self, call: Call) -> CIMultiDict[str]:
        """The headers of a call, with the caller's own key where he brought one."""
        key = self.read_caller_key(call)
        if key is None:
            return self._headers
        headers = self._headers.copy()
        headers[self.key_header] = self.key_prefix + key
        return headers


class InliningProvider(NativeProvider):
    """A format whose images are bytes: an image's address is fetched before a request is written.

    Args:
        allowed: networks that may be fetched from although they are not public. For tests.
    """

    def __init__(
        self, settings: ProviderSettings, session: aiohttp.ClientSession, *, allowed: Collection[Network] = ()
    ) -> None:
        super().__init__(settings, session)
        self._allowed = allowed

    async def _encode(self, call: Call, *, stream: bool) -> HttpRequest:
        return await super()._encode(await inline_images(call, allowed=self._allowed), stream=stream)


def unwrap_list(body: Any) -> Any:
    """Google's gateways put the one object into a list."""
    return body[0] if isinstance(body, list) and len(body) == 1 else body


def _error_object(body: bytes) -> Mapping[str, Any]:
    """A refusal's whole object; what is none is read as `parse_error_body` does."""
    try:
        found = unwrap_list(parse(body))
    except ValueError:
        found = None
    return found if isinstance(found, dict) else parse_error_body(body)


def as_object(value: Any) -> Mapping[str, Any]:
    """`value` where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_text(value: Any) -> str:
    """`value` where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def as_count(value: Any) -> int | None:
    """A number of tokens; `None` where it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
