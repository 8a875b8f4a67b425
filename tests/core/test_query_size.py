"""The size of a query."""

from __future__ import annotations

import pytest

from fanout.core.messages import ImagePart, Message, OtherPart, TextPart
from fanout.core.query_size import PART_CHARACTERS, QuerySize, measure_query
from fanout.core.schema import Query

PARTS = (TextPart("ab"), ImagePart("data:x"), OtherPart({"type": "audio", "data": ["xyz", 1]}))


@pytest.mark.parametrize(
    ("query", "size"),
    [
        (Query(prompt="abc"), (3, 3, 0)),
        (Query(prompt="abc", passthrough={"tools": ["ab"]}), (3, 3 + PART_CHARACTERS + 8 + 2, 0)),
        (Query(prompt_tokens=(1, 2)), (8, 16, 0)),
        (Query(prompt=""), (0, 0, 0)),
        (Query(messages=(Message("user", "abc"), Message("assistant", None))), (3, 3 + 2 * PART_CHARACTERS, 0)),
        (
            Query(messages=(Message("user", PARTS, {"name": "abcd"}),)),
            (2, 2 + 6 + 5 + (2 * 8 + 3 + 8) + (1 + 1 + 2 + 3) * PART_CHARACTERS + 4, 1),
        ),
    ],
    ids=["prompt", "passthrough", "tokens", "empty", "messages", "parts"],
)
def test_everything_that_must_be_written_counts(query: Query, size: tuple[int, int, int]) -> None:
    assert measure_query(query) == QuerySize(*size)


def test_a_size_is_counted_once() -> None:
    assert measure_query(Query(prompt="abc", size=QuerySize(1, 2, 3))) == (1, 2, 3)
