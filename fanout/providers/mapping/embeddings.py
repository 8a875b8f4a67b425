"""Embeddings in OpenAI's format: a vector for each text, in base64 or as numbers."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode

from fanout.core.json_text import parse
from fanout.core.schema import Answer, Choice, Completion
from fanout.providers.mapping.completions import build_completion, build_usage
from fanout.providers.mapping.error_objects import find_error, is_error
from fanout.providers.mapping.failures import Origin
from fanout.providers.mapping.json_fields import as_count, as_object, as_objects


def parse_embeddings(origin: Origin, body: bytes, count: int) -> Completion:
    """Return the vectors of an answer, in the order of the texts.

    Raises:
        ProviderError: it is an error, or does not have exactly `count` vectors.
    """
    try:
        answer = as_object(parse(body))
    except ValueError:
        raise origin.answer_error("sent an answer that is not JSON", "invalid_json") from None
    if is_error(answer):
        raise origin.upstream_error(find_error(answer))
    items = as_objects(answer.get("data"))
    # By their numbers, for no order is promised; where those are missing, as they stand.
    places = [as_count(item.get("index")) for item in items]
    if sorted(place for place in places if place is not None) == list(range(count)):
        items = [item for _, item in sorted(zip(places, items, strict=True), key=lambda pair: pair[0] or 0)]
    if len(items) != count:
        raise origin.answer_error(f"sent {len(items)} embeddings for {count} texts", "unexpected_shape")
    vectors = tuple([read_vector(origin, item.get("embedding")) for item in items])
    raw = as_object(answer.get("usage"))
    tokens = as_count(raw.get("prompt_tokens"))
    # Nothing is generated, which is known and no guess.
    usage = build_usage(tokens, None if tokens is None else 0, raw=raw) if raw else None
    completion = build_completion(origin, answer, (Choice(Answer(""), "stop"),), usage)
    return Completion(completion.choices, usage, completion.model, completion.request_id, vectors=vectors)


def read_vector(origin: Origin, value: object) -> bytes:
    """Return a vector as 32-bit floats, little-endian.

    Raises:
        ProviderError: it is neither base64 of such floats nor a list of numbers.
    """
    try:
        if isinstance(value, str):
            vector = b64decode(value, validate=True)
            if vector and len(vector) % 4 == 0:
                return vector
        elif isinstance(value, list) and value:
            return write_vector(value)
    except (ValueError, TypeError, OverflowError):
        pass
    raise origin.answer_error("sent an embedding that is no list of numbers", "unexpected_shape")


def write_vector(numbers: list[float]) -> bytes:
    """Return numbers as 32-bit floats, little-endian."""
    vector = array("f", numbers)
    if sys.byteorder == "big":
        vector.byteswap()
    return vector.tobytes()
