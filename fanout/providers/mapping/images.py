"""Images fetched for providers that take only their bytes, from nowhere but the public internet.

The address comes from a stranger, and this machine can reach what the stranger cannot: its own ports, its neighbours, the
cloud's metadata service. So no socket is opened before the address it leads to has been checked, whether that stood in the
URL, came from DNS or from a redirect; and the connection goes to that address, not to the name again, which could by then have
another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import replace

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.core.messages import Content, ImagePart
from fanout.core.schema import Call
from fanout.providers.mapping.data_urls import (
    MAX_IMAGE_BYTES,
    Image,
    decode_data_url,
    image_error,
    images_error,
    is_data_url,
    recognize_image,
    size_error,
)
from fanout.providers.mapping.public_addresses import Network, PublicSocketFactory

TIMEOUT_S = 10.0
"""For one image, from the first look-up to the last byte, redirects included."""
MAX_REDIRECTS = 3
MAX_IMAGES = 20
"""In one call. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ImageBlock.html"""


async def inline_images(call: Call, *, allowed: Collection[Network] = ()) -> Call:
    """Return the call with data: URLs in the place of all its images' addresses.

    Args:
        call: whose messages may hold images.
        allowed: networks that may be fetched from although they are not public. For tests.

    Raises:
        ProviderError: `bad_request`, `param` being `images`.
    """
    messages = call.query.messages or ()
    urls = dict.fromkeys(part.url for message in messages for part in _list_images(message.content))
    if len(urls) > MAX_IMAGES:
        raise images_error(f"the request has {len(urls)} images; at most {MAX_IMAGES} are allowed")
    to_fetch = [url for url in urls if not is_data_url(url)]
    if not to_fetch:
        return call
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {url: group.create_task(_fetch_as_data_url(url, allowed)) for url in to_fetch}
    except BaseExceptionGroup as failures:  # the first that failed ended the others
        raise failures.exceptions[0] from None
    data_urls = {url: task.result() for url, task in tasks.items()}
    messages = tuple(replace(message, content=_replace_urls(message.content, data_urls)) for message in messages)
    return replace(call, query=replace(call.query, messages=messages))


async def _fetch_as_data_url(url: str, allowed: Collection[Network]) -> str:
    image = await fetch_image(url, allowed=allowed)
    return await asyncio.to_thread(lambda: image.url)  # base64 of some megabytes takes some milliseconds


def _list_images(content: Content | None) -> list[ImagePart]:
    return [part for part in content if isinstance(part, ImagePart)] if isinstance(content, tuple) else []


def _replace_urls(content: Content | None, data_urls: dict[str, str]) -> Content | None:
    if not isinstance(content, tuple):
        return content
    return tuple(
        replace(part, url=data_urls.get(part.url, part.url)) if isinstance(part, ImagePart) else part for part in content
    )


async def fetch_image(
    url: str, *, allowed: Collection[Network] = (), max_bytes: int = MAX_IMAGE_BYTES, timeout_s: float = TIMEOUT_S
) -> Image:
    """Return the image at an address. Redirects are followed, each address checked as the first was.

    Args:
        url: http(s) or data.
        allowed: networks that may be fetched from although they are not public. For tests.
        max_bytes: of the image.
        timeout_s: for all of it.

    Raises:
        ProviderError: `bad_request`: there is none, or its address is forbidden.
    """
    if is_data_url(url):
        return decode_data_url(url)
    sockets = PublicSocketFactory(allowed)
    # No DNS cache and no kept connection: each check holds for this very connection.
    connector = aiohttp.TCPConnector(socket_factory=sockets, use_dns_cache=False, force_close=True)
    try:
        # Without `trust_env`: behind a proxy the address that is checked would be the proxy's.
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
        ):
            return recognize_image(await _download(session, _parse_url(url), max_bytes))
    except TimeoutError:
        raise image_error(f"could not be fetched within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError):
        if sockets.has_refused:
            raise image_error("is at an address that is not public, where none is fetched from") from None
        raise image_error("could not be fetched: no such server, or its answer broke off") from None


async def _download(session: aiohttp.ClientSession, url: URL, max_bytes: int) -> bytes:
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
            return await _read_body(response, max_bytes)
    raise image_error(f"could not be fetched: it was redirected more than {MAX_REDIRECTS} times")


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the body. Its bytes are counted as they come: the stated length bounds nothing."""
    if (response.content_length or 0) > max_bytes:
        raise size_error(max_bytes)
    body = bytearray()
    while piece := await response.content.readany():
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
