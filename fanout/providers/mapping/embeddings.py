"""Embeddings: a vector for each text, in base64 or as numbers."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace

from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Call, Choice, Completion
from fanout.core.usage import Usage
from fanout.providers.mapping.completions import build_completion, build_usage
from fanout.providers.mapping.failures import Origin


def build_embeddings(
    origin: Origin, call: Call, head: JsonObject, vectors: Sequence[object], usage: Usage | None
) -> Completion:
    """Return the vectors of a call's texts, in their order.

    Args:
        origin: of the answer.
        call: with `inputs`.
        head: the object that bears the answer's id and model.
        vectors: as they came.
        usage: as reported.

    Raises:
        ProviderError: there is not exactly one vector for each text.
    """
    count = len(call.query.inputs or ())
    if len(vectors) != count:
        raise origin.answer_error(f"sent {len(vectors)} embeddings for {count} texts", "unexpected_shape")
    completion = build_completion(origin, head, (Choice(Answer(""), "stop"),), usage)
    return replace(completion, vectors=tuple([read_vector(origin, vector) for vector in vectors]))


def build_embedding_usage(tokens: int | None, raw: JsonObject) -> Usage | None:
    """Return the usage of a call of which the tokens of the texts are known: nothing is generated, which is no guess."""
    return build_usage(tokens, None if tokens is None else 0, raw=raw)


def list_texts(origin: Origin, call: Call) -> list[str]:
    """Return the texts to embed.

    Raises:
        ProviderError: one of them is the ids of tokens, which mean something to one tokenizer only.
    """
    texts = [text for text in call.query.inputs or () if isinstance(text, str)]
    if len(texts) != len(call.query.inputs or ()):
        raise origin.request_error("takes no token ids; send the texts themselves", "input")
    return texts


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
