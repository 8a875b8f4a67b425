"""JSON of providers, read and written."""

from __future__ import annotations

import pytest

from fanout.core.json_text import MAX_NESTING, encode_json, parse, split_values


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
