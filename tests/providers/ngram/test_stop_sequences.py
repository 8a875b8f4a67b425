"""The search in pieces finds the same stop sequences as in the whole text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fanout.providers.ngram.stop_sequences import StopScanner

short = st.text("ab", min_size=1, max_size=5)


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.lists(short, max_size=3))
def test_a_stop_sequence_is_found_where_the_text_first_completes_one(pieces: list[str], stops: list[str]) -> None:
    scanner, text = StopScanner(stops), "".join(pieces)
    for piece in pieces:
        if scanner.found is None:
            scanner.feed(piece)
    complete = next((end for end in range(len(text) + 1) if text[:end].endswith(tuple(stops))), None)
    expected = None if complete is None else min(complete - len(stop) for stop in stops if text[:complete].endswith(stop))
    assert scanner.found == expected


@given(st.lists(st.text("ab", max_size=4), max_size=12), st.lists(short, max_size=3))
def test_exactly_the_text_that_may_begin_a_stop_sequence_is_held_back(pieces: list[str], stops: list[str]) -> None:
    scanner, text = StopScanner(stops), ""
    for piece in pieces:
        scanner.feed(piece)
        text += piece
        if scanner.found is not None:
            return
        beginnings = [stop[:length] for stop in stops for length in range(len(stop))]
        assert scanner.held == max((len(beginning) for beginning in beginnings if text.endswith(beginning)), default=0)
