"""Images in data: URLs, as their media type and base64 or decoded.

Source: https://www.rfc-editor.org/rfc/rfc2397
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from fanout.core.errors import ProviderError
from fanout.core.schema import Failure

MAX_IMAGE_BYTES = 10 * 2**20
"""More than any provider takes that wants bytes (Bedrock: 3.75 MB for one of Anthropic's models)."""
DATA_URL = re.compile(r"data:(?P<type>[^,;]*)(?P<parameters>(?:;[^,;]*)*),", re.IGNORECASE)

# Source: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern
MAGIC = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "png"),
    (re.compile(rb"\xff\xd8\xff"), "jpeg"),
    (re.compile(rb"GIF8[79]a"), "gif"),
    (re.compile(rb"RIFF....WEBPVP", re.DOTALL), "webp"),
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image's bytes."""

    kind: str
    """png, jpeg, gif or webp: by its first bytes, whatever its sender calls it."""
    data: bytes

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        return base64.b64encode(self.data).decode("ascii")

    @property
    def url(self) -> str:
        """The image as a data: URL."""
        return f"data:image/{self.kind};base64,{self.base64}"


def is_data_url(url: str) -> bool:
    """Return whether a URL holds its data itself."""
    return url[:5].lower() == "data:"


def split_data_url(url: str) -> tuple[str, str] | None:
    """Return media type and base64 of a data: URL without decoding it; `None` for any other address.

    Raises:
        ProviderError: `bad_request`: it is broken.
    """
    if not is_data_url(url):
        return None
    head = DATA_URL.match(url)
    data = url[head.end() :] if head else ""
    if head is None or not data:
        raise _data_url_error("holds no data")
    media_type = head["type"].strip().lower() or "text/plain"
    if not _is_base64(head):
        return media_type, base64.b64encode(unquote_to_bytes(data)).decode()
    if "%" in data:
        data = unquote_to_bytes(data).decode("latin-1")
    try:
        binascii.a2b_base64(data[:64], strict_mode=True)  # the whole of a large image would take milliseconds
    except ValueError:
        raise _data_url_error("is not base64") from None
    if len(data) % 4:  # only the length is checked at the end: cheap, and finds what was cut
        raise _data_url_error("is not base64: its end is missing")
    return media_type, data


def decode_data_url(url: str) -> Image:
    """Return the image in a data: URL.

    Raises:
        ProviderError: `bad_request`: there is none.
    """
    head = DATA_URL.match(url)
    if head is None:
        raise image_error("is not a data: URL, as `data:image/png;base64,…`")
    text = url[head.end() :]
    if len(text) > 2 * MAX_IMAGE_BYTES:  # before decoding, which would make a copy of it
        raise size_error()
    if not _is_base64(head):
        return recognize_image(unquote_to_bytes(text))
    try:
        data = unquote_to_bytes(text) if "%" in text else text.encode("ascii")
        return recognize_image(base64.b64decode(b"".join(data.split()), validate=True))
    except (UnicodeEncodeError, binascii.Error):
        raise image_error("has a data: URL that is not base64") from None


def recognize_image(data: bytes) -> Image:
    """Return the image that these bytes are.

    Raises:
        ProviderError: `bad_request`: they are of no kind that models take.
    """
    for magic, kind in MAGIC:
        if magic.match(data):
            return Image(kind, data)
    raise image_error("is not a PNG, JPEG, GIF or WebP image")


def size_error(max_bytes: int = MAX_IMAGE_BYTES) -> ProviderError:
    """Return the failure of a request with too large an image."""
    return image_error(f"has over {max_bytes:,} bytes")


def image_error(sentence: str) -> ProviderError:
    """Return the failure of a request with an image that cannot be used."""
    return images_error(f"an image of the request {sentence}")


def images_error(sentence: str, param: str = "images") -> ProviderError:
    """Return the failure of a request whose images cannot be used."""
    return ProviderError(Failure("bad_request", sentence, code="invalid_image", param=param))


def _data_url_error(sentence: str) -> ProviderError:
    return images_error(f"an image's data: URL {sentence}", "messages")


def _is_base64(head: re.Match[str]) -> bool:
    return head["parameters"].lower().endswith(";base64")
