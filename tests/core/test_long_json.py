"""JSON with long texts, parsed and written in steps: equal to one step."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from fanout.core import json_text, long_json
from fanout.core.json_text import dump, dump_in_steps
from fanout.core.long_json import join_in_steps, parse_in_steps

UNITS = ["a", "\\n", "\\u0041", "\\ud83d\\ude00", "é", "€", "😀", "x" * 40, "\\\\", '\\"', "/"]
"""Of a text in JSON: cut within one, it is another text or none."""
TEXTS = st.lists(st.sampled_from(UNITS), max_size=30).map(lambda units: f'"{"".join(units)}"')
SPACES = st.sampled_from(["", " ", "\n"])
VALUES = st.recursive(
    TEXTS | st.sampled_from(["1", "-1.5e3", "null", "true"]),
    lambda inner: (
        st.tuples(SPACES, st.lists(inner, max_size=4)).map(lambda made: f"[{made[0]}{(',' + made[0]).join(made[1])}{made[0]}]")
        | st.tuples(SPACES, st.lists(st.tuples(TEXTS, inner), max_size=4)).map(
            lambda made: f"{{{made[0]}{(',' + made[0]).join(f'{name}:{value}' for name, value in made[1])}}}"
        )
    ),
    max_leaves=6,
)
DAMAGE = st.tuples(st.integers(0, 10_000), st.sampled_from([*b'"\\{}[],:x\n1', -1, -2]))
"""A place, and the byte that it gets; -1: it goes, -2: the end goes."""


@pytest.fixture(scope="module", autouse=True)
def short_steps() -> Iterator[None]:
    """Let texts be long at 5 bytes, and steps be 30."""
    with pytest.MonkeyPatch.context() as patched:
        for module in (long_json, json_text):
            patched.setattr(module, "STEP_BYTES", 30)
            patched.setattr(module, "LONG_TEXT_BYTES", 5)
        patched.setattr(long_json, "LONG_BYTES", 0)
        yield


def parse(read: Any, data: bytes) -> object:
    try:
        return read(data)
    except ValueError as error:
        return f"refused: {error}"


@given(VALUES)
def test_what_is_parsed_in_steps_is_what_one_step_parses(written: str) -> None:
    data = written.encode()
    assert parse_in_steps(data) == from_json(data)
    assert parse_in_steps(bytearray(data)) == json.loads(written)


@given(VALUES, DAMAGE)
def test_what_is_no_json_is_refused_with_the_same_words_and_the_same_place(written: str, damage: tuple[int, int]) -> None:
    place, byte = damage[0] % len(written), damage[1]
    broken = written[:place] + ("" if byte < 0 else chr(byte)) + ("" if byte == -2 else written[place + 1 :])
    assert parse(parse_in_steps, broken.encode()) == parse(from_json, broken.encode())


@given(VALUES, st.integers(0, 10_000), st.integers(128, 255))
def test_bytes_that_are_no_characters_are_refused(written: str, place: int, byte: int) -> None:
    data = bytearray(written.encode())
    data[place % len(data)] = byte
    one, steps = parse(from_json, bytes(data)), parse(parse_in_steps, bytes(data))
    assert steps == one or (str(steps).startswith("refused") and str(one).startswith("refused"))


@given(VALUES)
def test_what_is_written_in_steps_is_what_one_step_writes(written: str) -> None:
    value = json.loads(written)
    assert join_in_steps(dump_in_steps(value)) == dump(value)


def test_halves_of_characters_are_written_as_one_step_writes_them() -> None:
    value = {"a": ["\ud83d" * 50, "x\ude00" * 20], "\ud83d" * 40: float("inf")}
    assert join_in_steps(dump_in_steps(value)) == dump(value)


@pytest.mark.parametrize("unit", ["word ", "\\n", "\\\\", '\\"', "\\ud83d\\ude00", "é€😀"])
def test_no_step_of_parsing_or_writing_takes_more_than_a_step_of_bytes(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def watch(data: Any, **options: Any) -> Any:
        sizes.append(len(data))
        return from_json(data, **options)

    monkeypatch.setattr(long_json, "from_json", watch)
    data = f'{{"a":"{unit * 2_000}","b":["{unit * 10}"]}}'.encode()
    value = parse_in_steps(data)
    assert value == json.loads(data)
    assert max(sizes[:-1]) <= long_json.STEP_BYTES + 2
    assert sizes[-1] < 150  # what is left without the texts
    assert max(map(len, dump_in_steps(value))) <= 6 * long_json.STEP_BYTES


def test_nothing_of_a_text_that_was_written_in_steps_is_kept() -> None:
    """A server collects cycles only every hundred million objects: what one holds is as good as lost."""
    gc.collect()
    gc.disable()
    try:
        assert len(dump_in_steps({"texts": ["x" * (2 * long_json.STEP_BYTES)]})) > 1
        assert gc.collect() == 0
    finally:
        gc.enable()
