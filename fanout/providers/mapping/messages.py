"""A conversation in OpenAI's shape, read for formats that have another: turns, images, what they cannot carry."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn
from urllib.parse import unquote_to_bytes

from fanout.core.errors import ProviderError
from fanout.core.schema import Content, Failure, Fitted, ImagePart, Message, OtherPart, Query, TextPart
from fanout.providers.mapping.failures import Origin

SYSTEM_ROLES = frozenset({"system", "developer"})
DATA_URL = re.compile(r"data:(?P<type>[^;,]*)(?P<parameters>(?:;[^;,]*)*),", re.IGNORECASE)


def list_messages(origin: Origin, query: Query) -> Sequence[Message]:
    """The messages; a prompt is one of the user's.

    Raises:
        ProviderError: the prompt is token ids, which mean something to one tokenizer only.
    """
    if query.messages is not None:
        return query.messages
    if query.prompt_tokens is not None:
        refuse(origin, "takes no token ids; send the prompt as text", "prompt")
    return (Message("user", query.prompt or ""),)


def refuse(origin: Origin, sentence: str, param: str = "messages") -> NoReturn:
    """Refuses what a format cannot say. Leaving it out would ask another question than the other models get."""
    raise ProviderError(Failure("unsupported", f"`{origin.name}` {sentence}", code="unsupported_content", param=param))


def list_system_texts(origin: Origin, messages: Sequence[Message]) -> list[str]:
    """What the system messages say, for formats that have a place of its own for them."""
    found = [to_text(origin, message.content) for message in messages if message.role in SYSTEM_ROLES]
    return [text for text in found if text]


def to_text(origin: Origin, content: Content | None) -> str:
    """Content where a format takes text alone."""
    if isinstance(content, str):
        return content
    for part in content or ():
        if not isinstance(part, TextPart):
            refuse(origin, "takes nothing but text in messages of the system, of tools and of its own")
    return "".join(part.text for part in content or () if isinstance(part, TextPart))


def refuse_part(origin: Origin, part: OtherPart) -> NoReturn:
    """Refuses a part of a type that the format does not have."""
    refuse(origin, f"takes text and images, no parts of type `{str(part.raw.get('type'))[:40]}`")


def parse_data_url(origin: Origin, url: str) -> tuple[str, str] | None:
    """Media type and base64 of a data: URL; `None` for any other address.

    Source: https://www.rfc-editor.org/rfc/rfc2397

    Raises:
        ProviderError: it is broken.
    """
    if url[:5].lower() != "data:":
        return None
    head = DATA_URL.match(url)
    data = url[head.end() :] if head else ""
    if head is None or not data:
        raise _no_image("holds no data")
    media_type = head["type"].strip().lower() or "text/plain"
    if not head["parameters"].lower().endswith(";base64"):
        return media_type, base64.b64encode(unquote_to_bytes(data)).decode()
    if "%" in data:
        data = unquote_to_bytes(data).decode("latin-1")
    try:
        binascii.a2b_base64(data[:64], strict_mode=True)  # the whole of a large image would take milliseconds
    except ValueError:
        raise _no_image("is not base64") from None
    if len(data) % 4:
        raise _no_image("is not base64: its end is missing")
    return media_type, data


def _no_image(wrong: str) -> ProviderError:
    return ProviderError(Failure("bad_request", f"an image's data: URL {wrong}", code="invalid_image", param="messages"))


def report_left_out(fitted: Fitted, messages: Sequence[Message] | None, *, details: bool = False) -> Fitted:
    """`fitted` with what of a conversation is left out: no format but OpenAI's has names of participants.

    Args:
        details: the format has `image_url.detail`.
    """
    lost: dict[str, None] = {}
    for message in messages or ():
        if message.extra.get("name") and message.role not in ("tool", "function"):
            lost["messages.name"] = None
        if not details and isinstance(message.content, tuple) and any(map(_is_detailed, message.content)):
            lost["image_url.detail"] = None
    return replace(fitted, ignored=(*fitted.ignored, *lost)) if lost else fitted


def _is_detailed(part: TextPart | ImagePart | OtherPart) -> bool:
    return isinstance(part, ImagePart) and part.detail not in (None, "auto")
