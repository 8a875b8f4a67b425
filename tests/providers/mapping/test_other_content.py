"""Content of an answer beside its text, found in a message or beside the choices."""

from __future__ import annotations

import pytest

from fanout.providers.mapping.other_content import list_news, pick_extras

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def test_every_field_that_nothing_else_reads_is_passed_on() -> None:
    message = {
        "role": "assistant",
        "content": "Hi",
        "reasoning": "hm",
        "name": "x",
        "images": [IMAGE],
        "executed_tools": [{"type": "search"}],
        "of_next_year": {"a": 1},
        "empty": [],
        "audio": {"id": "", "data": "", "expires_at": 0},
    }
    assert pick_extras(message) == {name: message[name] for name in ("images", "executed_tools", "of_next_year")}


def test_parts_of_content_that_are_no_text_are_passed_on() -> None:
    reference = {"type": "reference", "reference_ids": [1]}
    parts = [{"type": "text", "text": "a"}, IMAGE, {"type": "image_url", "image_url": "https://e.org/i.png"}, reference, "b", 7]
    assert pick_extras({"content": parts}) == {
        "images": [IMAGE, {"type": "image_url", "image_url": {"url": "https://e.org/i.png"}}],
        "content_parts": [reference],
    }


@pytest.mark.parametrize(
    ("known", "value", "news"),
    [
        (None, ["a"], ["a"]),
        (["a"], ["a"], []),
        (["a"], ["a", "b"], ["b"]),
        (["a"], ["c"], ["c"]),
        ({"a": 1}, {"a": 1}, None),
        (["a"], "text", "text"),
    ],
)
def test_what_is_sent_again_with_every_chunk_is_no_news(known: object, value: object, news: object) -> None:
    assert list_news(known, value) == news
