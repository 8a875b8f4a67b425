"""Counting of a JSON text's values without parsing it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.json_values import MAX_VALUES, ValueCounter, find_infinite, has_too_many_values

TEXTS = st.text(alphabet='a,[{"\\]}:é😀\n')
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=30,
)


def count(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(count, inner))


def count_empty(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return (not inner and isinstance(value, dict | list)) + sum(map(count_empty, inner))


def feed(data: bytes, step: int) -> ValueCounter:
    counter = ValueCounter()
    for start in range(0, len(data), step):
        counter.feed(data[start : start + step])
    return counter


@given(VALUES, st.integers(1, 9), st.booleans(), st.sampled_from([None, 2]))
def test_the_count_is_exact_wherever_the_text_is_cut(value: Any, step: int, ascii_only: bool, indent: int | None) -> None:
    counter = feed(json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(), step)
    assert counter.values == count(value) + count_empty(value)
    assert not counter.may_be_infinite


@given(TEXTS, st.integers(1, 9), st.sampled_from(["NaN", "Infinity", "-Infinity", "1e999", "-1E+400", "1" * 400 + ".0"]))
def test_a_number_that_may_be_infinite_is_found_outside_of_texts_alone(text: str, step: int, constant: str) -> None:
    assert feed(b'{"a":%s,"b":%s}' % (json.dumps(text).encode(), constant.encode()), step).may_be_infinite
    assert not feed(json.dumps({text + constant: constant}).encode(), step).may_be_infinite


@pytest.mark.parametrize(
    ("data", "too_many"),
    [
        (b"[" + b"1," * (MAX_VALUES - 2) + b"1]", False),
        (b"[" + b"1," * (MAX_VALUES - 1) + b"1]", True),
        (b"[" * (MAX_VALUES + 1), True),
        (b'["' + b'[{,\\\\\\"' * MAX_VALUES + b'"]', False),
        (b'""' * 3 * MAX_VALUES, True),
        (b"\\" * MAX_VALUES * 3, False),
    ],
    ids=["as many as may be", "one more", "nested", "in a text", "quotes alone", "backslashes"],
)
def test_more_values_than_may_be_are_too_many(data: bytes, too_many: bool) -> None:
    assert feed(data, 16 * 1024).has_too_many == too_many
    assert has_too_many_values(data.decode()) == (too_many and not data.startswith(b'""'))


def test_infinite_numbers_are_found_at_their_places() -> None:
    value = json.loads('{"a": [1, "1e999", {"b": 1e999}], "c": -1e999, "d": 1e308}')
    assert sorted(find_infinite(value)) == [("a", 2, "b"), ("c",)]
