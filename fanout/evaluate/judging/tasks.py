"""Tasks of a judge, apart from the scorers, whose packages not every server has."""

from __future__ import annotations

from typing import Literal

JudgeTask = Literal["score", "pair"]
"""Score one answer by a rubric, or choose between two."""
SCALE = 5
"""Highest score of a rubric; the lowest is 1."""
