"""The size of a query, which decides where it is worked on: counted once, for it may hold tens of thousands of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fanout.core.json_text import JsonObject
from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.schema import Query

PART_CHARACTERS = 256
"""What a message, a part or a value takes beside its text."""


class QuerySize(NamedTuple):
    """Characters of a query."""

    text: int = 0
    """Of its prompt or its messages, images aside; a token's id counts as four."""
    whole: int = 0
    """Of all that is to be written for a provider, about."""
    images: int = 0
    """Number of images."""


def measure_query(query: Query) -> QuerySize:
    """Return the size of a query, as it was planned with or counted now."""
    # Measured when planned: a thousand entries share one query, and each would walk its messages again.
    if (size := query.size) is not None and type(size) is QuerySize:
        return size
    if query.inputs is not None:
        return measure_inputs(query.inputs)
    prompt = query.prompt if query.prompt_tokens is None else query.prompt_tokens
    return measure(query.messages if query.messages is not None else prompt or "", query.passthrough)


def measure(question: str | tuple[int, ...] | Sequence[Message], passthrough: JsonObject) -> QuerySize:
    """Return the size of a query of a prompt, a prompt's ids, or messages."""
    text, whole, images = 0, count_characters(passthrough) if passthrough else 0, 0
    if isinstance(question, str):
        return QuerySize(len(question), whole + len(question))
    for message in question:
        # The first item decides: a prompt of a million ids is not walked.
        if isinstance(message, int):
            return QuerySize(4 * len(question), whole + 8 * len(question))
        sizes = _measure_message(message)
        text, whole, images = text + sizes.text, whole + sizes.whole, images + sizes.images
    return QuerySize(text, whole, images)


def measure_inputs(inputs: Sequence[str | tuple[int, ...]]) -> QuerySize:
    """Return the size of texts to embed."""
    sizes = [measure(text, {}) for text in inputs]
    return QuerySize(sum(size.text for size in sizes), sum(size.whole for size in sizes))


def _measure_message(message: Message) -> QuerySize:
    whole = PART_CHARACTERS + (count_characters(message.extra) if message.extra else 0)
    content = message.content
    if content is None or isinstance(content, str):
        length = len(content or "")
        return QuerySize(length, whole + length)
    texts = sum(len(part.text) for part in content if isinstance(part, TextPart))
    urls = [len(part.url) for part in content if isinstance(part, ImagePart)]
    others = sum(count_characters(part.raw if isinstance(part, OtherPart) else part.extra) for part in content)
    return QuerySize(texts, whole + texts + sum(urls) + others + PART_CHARACTERS * len(content), len(urls))


def count_characters(value: object) -> int:
    """Return about how many characters a JSON value takes, without writing it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return PART_CHARACTERS * len(value) + sum(map(count_characters, value.values()))
    if isinstance(value, list | tuple):
        return 8 * len(value) + sum(map(count_characters, value))
    return 8
