"""Embeddings of the embedded models: toys that count words and pairs of words, the same ones for the same text everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise

from fanout.core.errors import ProviderError
from fanout.core.schema import Answer, Call, Choice, Completion, Failure
from fanout.core.usage import Usage
from fanout.providers.mapping.embeddings import write_vector
from fanout.providers.ngram.language_model import tokenize

DIMENSIONS = 64


def embed(call: Call, tokens: Sequence[str]) -> Iterator[Completion | None]:
    """Do all the work of a call, text by text: yield `None` after each, and the embeddings at the end.

    Args:
        call: with `inputs`.
        tokens: the vocabulary, by which ids of tokens are read.

    Raises:
        ProviderError: there is an unknown id, or a number of dimensions that is not 1 to 64.
    """
    inputs, wanted = call.query.inputs or (), call.fitted.sent.get("dimensions", DIMENSIONS)
    if type(wanted) is not int or not 1 <= wanted <= DIMENSIONS:
        raise _refuse(f"the embedded models have 1 to {DIMENSIONS} dimensions, not {wanted!a:.40}", "dimensions")
    vectors, count = list[bytes](), 0
    for text in inputs:
        words = _read_words(text, tokens)
        vectors.append(write_vector(_count(words, wanted)))
        count += len(words)
        yield None
    yield Completion((Choice(Answer(""), "stop"),), Usage.of_plain_model(count, 0), call.target.model, vectors=tuple(vectors))


def _read_words(text: str | tuple[int, ...], tokens: Sequence[str]) -> list[str]:
    if isinstance(text, str):
        return list(tokenize(text))
    if any(number >= len(tokens) for number in text):
        raise _refuse(f"an id of a token is above {len(tokens) - 1:,}, the last of the embedded models'", "input")
    return [tokens[number] for number in text]


def _count(words: Sequence[str], dimensions: int) -> list[float]:
    """Return a vector of length 1, to which each word and each pair of words adds or takes 1 at one place."""
    vector = [0.0] * dimensions
    for feature in _list_features(words):
        # Not `hash`, which differs from process to process: vectors are stored and compared later.
        number = int.from_bytes(blake2b(feature.encode(errors="replace"), digest_size=8).digest(), "big")
        vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    # A text without words, or whose words cancel out, points nowhere in particular, but has a length all the same.
    return [value / length for value in vector] if length else [1.0, *vector[1:]]


def _list_features(words: Sequence[str]) -> Iterator[str]:
    plain = [word.strip().casefold() for word in words if word.strip()]
    yield from plain
    yield from (f"{one} {two}" for one, two in pairwise(plain))


def _refuse(sentence: str, param: str) -> ProviderError:
    return ProviderError(Failure("bad_request", sentence, code="invalid_value", param=param))
