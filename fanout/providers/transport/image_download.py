"""Images downloaded from nowhere but the public internet.

The address comes from a stranger, and this machine can reach what the stranger cannot: its own ports, its neighbours, the
cloud's metadata service. So no socket is opened before the address it leads to has been checked, whether that stood in the
URL, came from DNS or from a redirect; and the connection goes to that address, not to the name again, which could by then have
another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.core.turns import READ_BYTES
from fanout.providers.mapping.data_urls import (
    MAX_IMAGE_BYTES,
    Image,
    decode_data_url,
    image_error,
    is_data_url,
    recognize_image,
    size_error,
)
from fanout.providers.transport.connector import TurnTakingConnector
from fanout.providers.transport.public_addresses import Network, PublicSocketFactory
from fanout.providers.transport.resolver import DedicatedResolver, Places
from fanout.providers.transport.response import read_length

TIMEOUT_S = 10.0
"""For one image, from the first look-up to the last byte, redirects included."""
MAX_REDIRECTS = 3


async def fetch_image(
    url: str,
    *,
    allowed: Collection[Network] = (),
    max_bytes: int = MAX_IMAGE_BYTES,
    timeout_s: float = TIMEOUT_S,
    on_bytes: Callable[[int], None] = lambda _: None,
    lookups: Sequence[Places] = (),
) -> Image:
    """Return the image at an address. Redirects are followed, each address checked as the first was.

    Args:
        url: http(s) or data.
        allowed: networks that may be fetched from although they are not public. For tests.
        max_bytes: of the image.
        timeout_s: for all of it.
        on_bytes: called with the size of each piece before it is kept; ends the download by raising `ProviderError`.
        lookups: places for look-ups of its host, of which one of each is taken; by default a few for this image alone.

    Raises:
        ProviderError: `bad_request`: there is none, or its address is forbidden.
    """
    if is_data_url(url):
        return decode_data_url(url)
    sockets = PublicSocketFactory(allowed)
    # No DNS cache and no kept connection: each check holds for this very connection.
    # Not the resolver that finds the providers: the names of images are the callers'.
    resolver = DedicatedResolver(lookups)
    connector = TurnTakingConnector(socket_factory=sockets, resolver=resolver, use_dns_cache=False, force_close=True)
    options: Mapping[str, Any] = {"auto_decompress": False, "read_bufsize": READ_BYTES}
    try:
        # Without `trust_env`: behind a proxy the address that is checked would be the proxy's.
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), **options) as session,
        ):
            return recognize_image(await _download(session, _parse_url(url), max_bytes, on_bytes))
    except TimeoutError:
        raise image_error(f"could not be fetched within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError):
        if sockets.has_refused:
            raise image_error("is at an address that is not public, where none is fetched from") from None
        raise image_error("could not be fetched: no such server, or its answer broke off") from None


async def _download(session: aiohttp.ClientSession, url: URL, max_bytes: int, on_bytes: Callable[[int], None]) -> bytes:
    headers = {"User-Agent": "fanout", "Accept": "image/png,image/jpeg,image/gif,image/webp", "Accept-Encoding": "identity"}
    for _ in range(MAX_REDIRECTS + 1):
        # Redirects are followed by hand, each address checked.
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            location = response.headers.get(hdrs.LOCATION)
            if response.status in (301, 302, 303, 307, 308) and location is not None:
                url = _parse_url(location, url)
                continue
            if response.status != 200:
                raise image_error(f"could not be fetched: its server answered HTTP {response.status}")
            return await _read_body(response, max_bytes, on_bytes)
    raise image_error(f"could not be fetched: it was redirected more than {MAX_REDIRECTS} times")


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int, on_bytes: Callable[[int], None]) -> bytes:
    """Return the body. Its bytes are counted as they come: the stated length bounds nothing."""
    if (read_length(response.headers) or 0) > max_bytes:
        raise size_error(max_bytes)
    body = bytearray()
    while piece := await response.content.readany():
        on_bytes(len(piece))
        body += piece
        if len(body) > max_bytes:
            raise size_error(max_bytes)
    return bytes(body)


def _parse_url(text: str, base: URL | None = None) -> URL:
    try:
        url = URL(text) if base is None else base.join(URL(text))
        host, port = url.host, url.port
    except ValueError:
        raise image_error("has a malformed address") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise image_error("has an address that is neither http:// nor https:// nor data:")
    if url.user is not None or url.password is not None:
        raise image_error("has an address with a user or password")
    return url
