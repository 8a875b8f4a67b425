"""Conversations in OpenAI's shape, read for formats that have another shape and cannot carry all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fanout.core.errors import ProviderError
from fanout.core.messages import Content, ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import FittedParameters, Query
from fanout.providers.mapping.failures import Origin

SYSTEM_ROLES = frozenset({"system", "developer"})


def list_messages(origin: Origin, query: Query) -> Sequence[Message]:
    """Return the messages; a prompt is one of the user's.

    Raises:
        ProviderError: the prompt is token ids, which mean something to one tokenizer only.
    """
    return query.messages if query.messages is not None else (Message("user", get_prompt(origin, query)),)


def get_prompt(origin: Origin, query: Query) -> str:
    """Return the prompt as text.

    Raises:
        ProviderError: it is token ids.
    """
    if query.prompt_tokens is not None:
        raise origin.request_error("takes no token ids; send the prompt as text", "prompt")
    return query.prompt or ""


def split_system(origin: Origin, query: Query) -> tuple[list[str], list[Message]]:
    """Return the texts of the system messages, and the others: for formats that have a place of its own for the first."""
    messages = list_messages(origin, query)
    texts = [to_text(origin, message.content) for message in messages if message.role in SYSTEM_ROLES]
    return [text for text in texts if text], [message for message in messages if message.role not in SYSTEM_ROLES]


def to_text(origin: Origin, content: Content | None) -> str:
    """Return content as a format has it that takes text alone.

    Raises:
        ProviderError: it holds something else.
    """
    if isinstance(content, str):
        return content
    texts = [part.text for part in content or () if isinstance(part, TextPart)]
    if len(texts) < len(content or ()):
        raise origin.request_error("takes only text in messages of the system, of tools and of its own")
    return "".join(texts)


def part_error(origin: Origin, part: OtherPart) -> ProviderError:
    """Return the failure of a request with a part of a type that the format does not have."""
    return origin.request_error(f"takes text and images, no parts of type `{str(part.raw.get('type'))[:40]}`")


def report_left_out(
    fitted: FittedParameters, messages: Sequence[Message] | None, *, has_details: bool = False
) -> FittedParameters:
    """Return `fitted` with what the format leaves out of a conversation: only OpenAI's has names of participants.

    Args:
        fitted: the parameters.
        messages: the conversation.
        has_details: the format has `image_url.detail`.
    """
    ignored: dict[str, None] = {}
    for message in messages or ():
        # A tool's name is not lost: its call has it.
        if message.extra.get("name") and message.role not in ("tool", "function"):
            ignored["messages.name"] = None
        if not has_details and isinstance(message.content, tuple) and any(map(_is_detailed, message.content)):
            ignored["image_url.detail"] = None
    return replace(fitted, ignored=(*fitted.ignored, *ignored)) if ignored else fitted


def _is_detailed(part: TextPart | ImagePart | OtherPart) -> bool:
    return isinstance(part, ImagePart) and part.detail not in (None, "auto")
