"""JSON of providers, read and written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

import pytest
from pydantic_core import to_json

from fanout.core.json_text import MAX_NESTING, dump, encode_json, parse, split_values


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("value", [b"1", b"NaN", b'"\\ud83d"'])
def test_what_is_read_can_be_written(brackets: tuple[bytes, bytes], value: bytes) -> None:
    """Whichever parser reads it, also within an answer; what is nested more deeply is refused."""
    opening, closing = brackets

    def nest(levels: int) -> bytes:
        return opening * levels + value + closing * levels

    encode_json({"choices": [{"message": {"extra": [parse(nest(MAX_NESTING))]}}]})
    for levels in (MAX_NESTING + 2, 500, 100_000):
        for read in (parse, split_values):
            with pytest.raises(ValueError, match="nested too deeply"):
                read(nest(levels))


class Kind(StrEnum):
    CHAT = "chat"


class Pair(NamedTuple):
    left: int
    right: str


@dataclass
class Shape:
    side: int


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        2**64,
        -(2**70),
        1e22,
        5e-324,
        -0.0,
        float("nan"),
        float("-inf"),
        '\x7f\0\u2028é\\/"',
        b"bytes",
        {1: 2},
        Kind.CHAT,
        Pair(1, "b"),
        Shape(2),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        {"a": {1}},
        [[[[]]]],
    ],
)
def test_json_is_written_as_pydantic_writes_it(value: Any) -> None:
    """Most of it by a faster encoder, which takes less."""
    assert dump([value]) == to_json([value], inf_nan_mode="null")


def test_half_a_character_is_written_as_a_replacement_beside_numbers_of_any_size() -> None:
    assert dump({"half \ud83d": [2**70, float("inf")]}) == '{"half \ufffd":[1180591620717411303424,null]}'.encode()
