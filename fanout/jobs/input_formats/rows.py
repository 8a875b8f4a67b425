"""Rows of an input, good and bad."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InputRow:
    """A line that could be read."""

    line: int
    """The line of the file on which it begins, from 1; in Parquet the number of the row."""
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that cannot be read."""

    line: int
    reason: str


class UnreadableLineError(Exception):
    """A line that cannot be read, and why.

    It passes through `csv`, which then forgets what it had begun and continues with the next line.
    """
