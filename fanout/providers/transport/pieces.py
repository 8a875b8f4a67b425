"""Pieces of streamed answers that are soon passed on, however long the text that came at once."""

from __future__ import annotations

from collections.abc import Iterator

from fanout.core.schema import Delta

MAX_PIECE_CHARACTERS = 64 * 1024
"""Of a stream's piece."""


def cut_delta(delta: Delta) -> Iterator[Delta]:
    """Yield a piece of a stream in shorter pieces."""
    text = delta.text
    if len(text) <= MAX_PIECE_CHARACTERS or delta.logprobs:
        yield delta
        return
    delta.text = text[:MAX_PIECE_CHARACTERS]
    yield delta
    for start in range(MAX_PIECE_CHARACTERS, len(text), MAX_PIECE_CHARACTERS):
        yield Delta(delta.call_index, delta.choice_index, text[start : start + MAX_PIECE_CHARACTERS])
