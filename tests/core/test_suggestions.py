"""Suggestions for unknown names."""

from __future__ import annotations

import time
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout.core.suggestions import did_you_mean, find_misspelt, find_near
from tests.support.timing import timed


@pytest.mark.parametrize(
    ("name", "best"),
    [("gtp-4", "gpt-4"), ("GPT-4", "gpt-4"), ("gpt-4.0-mini", "gpt-4o-mini"), ("lama-2-7b", "llama-2-7b"), ("claude", None)],
)
def test_the_intended_name_is_suggested_first(name: str, best: str | None) -> None:
    known = ["gpt-4o", "gpt-4o-mini", "gpt-4", "llama-2-7b", "llama-2-70b", "mistral-7b"]
    assert next(iter(find_near(name, known)), None) == best


def test_at_most_the_three_best_names_are_suggested_each_once() -> None:
    assert find_near("model-a", ["model-a", "model-b", "model-a", "model-c", "model-d"]) == ["model-a", "model-b", "model-c"]
    assert did_you_mean("tempratur", ["temperature", "top_p"]) == "; did you mean `temperature`?"
    assert did_you_mean("modl", ["model", "mode"]) == "; did you mean `model` or `mode`?"
    assert did_you_mean("xyz", ["temperature"]) == ""


@given(st.text(max_size=200), st.lists(st.text(max_size=80), max_size=20))
def test_suggestions_for_any_text_are_known_names(name: str, known: list[str]) -> None:
    found = find_near(name, known)
    assert set(found) <= set(known)
    assert len(found) == len(set(found)) <= 3
    assert name not in known or name in found or len(found) == 3


@timed
@pytest.mark.parametrize("name", ["model-17-cht", "x" * 300, "model-" * 100_000], ids=["short", "long", "huge"])
def test_suggestions_take_less_than_a_millisecond(name: str) -> None:
    """Processor time, because the search runs on the event loop. Typically 0.2 ms (2026-11, over 300 names)."""
    known = [f"model-{number}-{kind}-{number % 7}b" for number in range(100) for kind in ("chat", "instruct", "turbo")]
    find_near("warm", known)

    def measure_s(number: int) -> float:
        start = time.thread_time()
        find_near(f"{number}{name}", known)
        return time.thread_time() - start

    assert median(measure_s(number) for number in range(30)) < 0.001


KNOWN = frozenset({"prompt", "temperature", "stop", "max_tokens", "seed"})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("promt", "prompt"),
        ("pormpt", "prompt"),
        ("Max-Tokens", "max_tokens"),
        ("tempratur", "temperature"),
        ("promo", None),
        ("prompt_id", None),
        ("step", None),
        ("seeds", None),
        ("", None),
    ],
)
def test_a_misspelt_name_is_distinguished_from_another_word(name: str, known: str | None) -> None:
    assert find_misspelt(name, KNOWN) == known
