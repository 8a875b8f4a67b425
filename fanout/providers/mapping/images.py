"""Fetches an image for a provider that takes only its bytes, from nowhere but the public internet.

The address comes from a stranger, and this machine can reach what he cannot: its own ports, its neighbours, the cloud's
metadata service. So no socket is opened before the address it leads to has been looked at, whether it stood in the URL, came
from DNS or from a redirect; and the connection goes to that address, not to the name again, which could by then have another.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import unquote_to_bytes

import aiohttp
from aiohttp import hdrs
from yarl import URL

from fanout.core.errors import ProviderError
from fanout.core.schema import Call, Content, Failure, ImagePart

Network = IPv4Network | IPv6Network

MAX_IMAGE_BYTES = 10 * 2**20
"""Largest image taken; over what any provider takes that wants bytes (Bedrock: 3.75 MB for one of Anthropic's models)."""
TIMEOUT_S = 10.0
"""For one image, from the first look-up to the last byte, redirects included."""
MAX_REDIRECTS = 3
MAX_IMAGES = 20
"""In one call. Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ImageBlock.html"""

# Source: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern
MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF....WEBPVP", re.DOTALL), "webp"),
)
DATA_URL = re.compile(r"data:(?P<kind>[^,;]*)(?P<parameters>(?:;[^,;]*)*),(?P<data>.*)", re.IGNORECASE | re.DOTALL)
EMBEDDING: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
    (IPv6Network("::ffff:0:0/96"), 0),
)
"""Networks whose addresses lead to an IPv4 one: NAT64, 6to4, mapped; and how far above the last bit it stands.

Source: RFC 6052 §2.1, RFC 3056 §2, RFC 4291 §2.5.5.2.
"""


@dataclass(frozen=True, slots=True)
class Image:
    kind: str
    """png, jpeg, gif or webp: what its first bytes say, whatever its sender called it."""
    data: bytes

    @property
    def base64(self) -> str:
        return base64.b64encode(self.data).decode("ascii")

    @property
    def url(self) -> str:
        """Itself as a data: URL."""
        return f"data:image/{self.kind};base64,{self.base64}"


async def inline_images(call: Call, *, allowed: Collection[Network] = ()) -> Call:
    """The call with data: URLs in the place of all its images' addresses.

    Args:
        allowed: networks that may be fetched from although they are not public. For tests.

    Raises:
        ProviderError: `bad_request`, `param` being `images`.
    """
    messages = call.query.messages or ()
    urls = dict.fromkeys(part.url for message in messages for part in _images(message.content))
    if len(urls) > MAX_IMAGES:
        raise _fault(f"the request has {len(urls)} images; at most {MAX_IMAGES} are taken")
    wanted = [url for url in urls if not is_data(url)]
    if not wanted:
        return call
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {url: group.create_task(_as_data(url, allowed)) for url in wanted}
    except BaseExceptionGroup as failures:  # the first that failed ended the others
        raise failures.exceptions[0] from None
    found = {url: task.result() for url, task in tasks.items()}
    messages = tuple(replace(message, content=_replaced(message.content, found)) for message in messages)
    return replace(call, query=replace(call.query, messages=messages))


async def _as_data(url: str, allowed: Collection[Network]) -> str:
    image = await fetch(url, allowed=allowed)
    return await asyncio.to_thread(lambda: image.url)  # base64 of some megabytes takes some milliseconds


def _images(content: Content | None) -> list[ImagePart]:
    return [part for part in content if isinstance(part, ImagePart)] if isinstance(content, tuple) else []


def _replaced(content: Content | None, found: dict[str, str]) -> Content | None:
    if not isinstance(content, tuple):
        return content
    return tuple(replace(part, url=found.get(part.url, part.url)) if isinstance(part, ImagePart) else part for part in content)


def is_data(url: str) -> bool:
    return url[:5].lower() == "data:"


def decode_data_url(url: str) -> Image:
    """The image in a data: URL. Pure.

    Source: RFC 2397.

    Raises:
        ProviderError: `bad_request`: it is none.
    """
    match = DATA_URL.fullmatch(url)
    if match is None:
        raise _refused("is not a data: URL, as `data:image/png;base64,…`")
    text = match["data"]
    if len(text) > 2 * MAX_IMAGE_BYTES:
        raise _too_large()
    if not match["parameters"].lower().endswith(";base64"):
        return _image(unquote_to_bytes(text))
    try:
        data = unquote_to_bytes(text) if "%" in text else text.encode("ascii")
        return _image(base64.b64decode(b"".join(data.split()), validate=True))
    except (UnicodeEncodeError, binascii.Error):
        raise _refused("has a data: URL that is not base64") from None


async def fetch(
    url: str,
    *,
    allowed: Collection[Network] = (),
    highest_bytes: int = MAX_IMAGE_BYTES,
    timeout_s: float = TIMEOUT_S,
) -> Image:
    """The image at an address. Redirects are followed, each address looked at as the first was.

    Args:
        allowed: networks that may be fetched from although they are not public. For tests.

    Raises:
        ProviderError: `bad_request`: there is none, or it must not be looked for there.
    """
    if is_data(url):
        return decode_data_url(url)
    gate = Gate(allowed)
    connector = aiohttp.TCPConnector(socket_factory=gate, use_dns_cache=False, force_close=True)
    try:
        # Without `trust_env`: behind a proxy the address we look at would be the proxy's.
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as session,
        ):
            return _image(await _got(session, _checked(url), highest_bytes))
    except TimeoutError:
        raise _refused(f"could not be fetched within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError):
        if gate.refused:
            raise _refused("is at an address that is not public, where none is fetched from") from None
        raise _refused("could not be fetched: no such server, or its answer broke off") from None


async def _got(session: aiohttp.ClientSession, url: URL, highest_bytes: int) -> bytes:
    headers = {"User-Agent": "fanout", "Accept": "image/png,image/jpeg,image/gif,image/webp", "Accept-Encoding": "identity"}
    for _ in range(MAX_REDIRECTS + 1):
        async with session.get(url, headers=headers, allow_redirects=False) as response:
            location = response.headers.get(hdrs.LOCATION)
            if response.status in (301, 302, 303, 307, 308) and location is not None:
                url = _checked(location, url)
                continue
            if response.status != 200:
                raise _refused(f"could not be fetched: its server answered HTTP {response.status}")
            return await _bounded(response, highest_bytes)
    raise _refused(f"could not be fetched: it was redirected more than {MAX_REDIRECTS} times")


async def _bounded(response: aiohttp.ClientResponse, highest_bytes: int) -> bytes:
    """What comes is counted: the stated length bounds nothing."""
    if (response.content_length or 0) > highest_bytes:
        raise _too_large(highest_bytes)
    body = bytearray()
    while piece := await response.content.readany():
        body += piece
        if len(body) > highest_bytes:
            raise _too_large(highest_bytes)
    return bytes(body)


def _checked(text: str, base: URL | None = None) -> URL:
    try:
        url = URL(text) if base is None else base.join(URL(text))
        host, port = url.host, url.port
    except ValueError:
        raise _refused("has an address that is none") from None
    if url.scheme not in ("http", "https") or not host or not port:
        raise _refused("has an address that is neither http:// nor https:// nor data:")
    if url.user is not None or url.password is not None:
        raise _refused("has an address with a user or password")
    return url


class Gate:
    """Makes the sockets of a connector, for public addresses only: the one place that every connection passes."""

    def __init__(self, allowed: Collection[Network]) -> None:
        self.refused = False
        """Whether it has turned an address away."""
        self._allowed = allowed

    def __call__(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self._may(address[0]):
            self.refused = True
            raise PermissionError("not a public address")
        return socket.socket(family, kind, protocol)

    def _may(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return is_public(address) or any(address in network for network in self._allowed)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the internet's: not private, loopback, link-local, multicast or reserved.

    Source: https://www.iana.org/assignments/iana-ipv4-special-registry, …/iana-ipv6-special-registry
    """
    if isinstance(address, IPv6Address):
        if address.scope_id or address.is_site_local:
            return False
        for network, shift in EMBEDDING:
            if address in network:
                return is_public(IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_link_local)


def _image(data: bytes) -> Image:
    for magic, kind in MAGIC:
        if magic.match(data):
            return Image(kind, data)
    raise _refused("is not a PNG, JPEG, GIF or WebP image")


def _too_large(highest_bytes: int = MAX_IMAGE_BYTES) -> ProviderError:
    return _refused(f"has over {highest_bytes:,} bytes")


def _refused(what: str) -> ProviderError:
    return _fault(f"an image of the request {what}")


def _fault(sentence: str) -> ProviderError:
    return ProviderError(Failure("bad_request", sentence, code="invalid_image", param="images"))
