"""Content beside the text, put together from the pieces of a stream, and named."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fanout.core.extras import merge_extras
from fanout.core.schema import MAX_KIND_CHARS, MAX_KINDS, Answer

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def test_pieces_of_one_item_are_put_together_by_their_index() -> None:
    """Thoughts of OpenRouter come in pieces, tools of Groq twice: when they begin, and with what they found."""
    pieces: list[dict[str, Any]] = [
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a", "format": "f"}]},
        {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "a"}], "images": [IMAGE]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "index": 0, "data": "x"}], "images": [IMAGE]},
        {"executed_tools": [{"index": 0, "type": "search", "arguments": "{}"}]},
        {"executed_tools": [{"index": 0, "type": "search", "arguments": "{}", "output": "found"}]},
    ]
    assert merge_extras(pieces) == {
        "reasoning_details": [
            {"type": "reasoning.text", "index": 0, "text": "aa", "format": "f"},
            {"type": "reasoning.encrypted", "index": 0, "data": "x"},
        ],
        "images": [IMAGE, IMAGE],
        "executed_tools": [{"index": 0, "type": "search", "arguments": "{}", "output": "found"}],
    }
    assert pieces[0]["reasoning_details"][0]["text"] == "a", "what the caller got stays as it was"


@given(st.lists(st.binary(max_size=7), min_size=1, max_size=5))
def test_audio_in_pieces_is_the_audio(pieces: list[bytes]) -> None:
    """Each piece is base64 of its own, padded or not."""
    deltas = [{"audio": {"id": "a", "data": b64encode(piece).decode(), "transcript": "x"}} for piece in pieces]
    audio = merge_extras(deltas)["audio"]
    assert b64decode(audio["data"], validate=True) == b"".join(pieces)
    assert (audio["id"], audio["transcript"]) == ("a", "x" * len(pieces))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "data", "index", "type"]), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["audio", "images", "reasoning_details", "x"])


@given(st.lists(st.dictionaries(NAMES, JSON, max_size=2), max_size=4))
def test_no_pieces_break_the_merge(pieces: list[dict[str, Any]]) -> None:
    merged = merge_extras(pieces)
    assert set(merged) == {name for piece in pieces for name in piece}
    assert merge_extras([merged]) == merged, "what is whole stays as it is"


def test_kinds_of_content_are_named_within_bounds() -> None:
    extra = {"images": [1], "videos": [1], "citations": [1], "z" * 1000: 1, **{str(number): 1 for number in range(100)}}
    kinds = Answer("", extra=extra).other_content
    assert kinds[:4] == ["image", "video", "citations", "z" * MAX_KIND_CHARS]
    assert len(kinds) == MAX_KINDS
