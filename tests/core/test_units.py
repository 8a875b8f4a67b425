"""Durations and times as answers show them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fanout.core.units import Precision, to_ms, to_rfc3339


def test_seconds_become_whole_milliseconds_and_unknown_stays_unknown() -> None:
    assert (to_ms(1.2346), to_ms(0.0), to_ms(None)) == (1235, 0, None)


@pytest.mark.parametrize(
    ("moment", "precision", "text"),
    [
        (0.0, "milliseconds", "1970-01-01T00:00:00.000Z"),
        (1_763_631_000.125, "seconds", "2025-11-20T09:30:00Z"),
        (1_763_631_000, "auto", "2025-11-20T09:30:00Z"),
        (1_763_631_000.5, "auto", "2025-11-20T09:30:00.500000Z"),
        (None, "seconds", None),
    ],
)
def test_unix_seconds_become_a_time_in_utc(moment: float | None, precision: Precision, text: str | None) -> None:
    assert to_rfc3339(moment, precision) == text


@given(st.floats(-1e9, 2e11))
@example(1_763_631_000.9999996)
@example(1_763_631_000.0005)
@example(-0.0)
def test_milliseconds_are_cut_off_as_python_does(moment: float) -> None:
    written = datetime.fromisoformat(to_rfc3339(moment))
    microseconds = datetime.fromtimestamp(moment, UTC)

    assert written == microseconds.replace(microsecond=microseconds.microsecond // 1000 * 1000)
