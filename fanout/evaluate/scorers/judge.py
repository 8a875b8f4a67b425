"""Judges: a model that scores answers by a rubric, or chooses between two, and the scorer that reads its verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import regex
from pydantic import Field

from fanout.evaluate.judging.tasks import SCALE, JudgeTask
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput

MAX_RUBRIC_CHARS = 20_000
VERDICT = regex.compile(r"^[\s>*_`#]*verdict[\s*_`]*:[\s*_`]*([A-Za-z_ ]+?|\d)[\s*_`.]*$", regex.IGNORECASE)
"""The last line of a judge's answer; models like to set it in bold or as a heading."""
MAX_VERDICT_CHARS = 200
"""Of that line: the time of the pattern grows with the cube of its length."""
CHOICES: Mapping[str, float] = {"A": 1.0, "B": 0.0, "TIE": 0.5, "BOTH_BAD": 0.5}
BOTH_BAD = "both_bad"
"""Explanation of the half point that is not a tie."""


class JudgeScorer(Scorer):
    """The verdicts of a model of the catalogue, which judges in a job of its own once the answers are there."""

    type: Literal["judge"] = "judge"
    model: str = Field(min_length=1, max_length=256)
    """The judge."""
    task: JudgeTask = "score"
    """`score`: each answer gets 1 to 5 by the rubric; `pair`: the better one of two answers to the same row."""
    rubric: str = Field(default="The answer is correct, complete and to the point.", min_length=1, max_length=MAX_RUBRIC_CHARS)
    """What a good answer is."""
    rubric_column: str | None = Field(default=None, min_length=1, max_length=128)
    """Column that holds a rubric for each row, instead; rows without one are not judged."""
    order: Literal["random", "both"] = "random"
    """Of a pair's answers: one random order, and both for a fifth of the pairs; or both for all, at twice the price."""
    retest: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of the questions that are repeated, to see whether the judge agrees with itself."""
    max_tokens: int = Field(default=1_024, ge=1, le=1_000_000)
    """Longest answer of the judge, its reasons included."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Absent: the provider's own."""
    max_cost_usd: float | None = Field(default=None, gt=0)
    """Most US dollars that judging may cost, all rounds together."""

    def compute(self, given: ScorerInput) -> Score:
        """Return no score: a judge judges in a job of its own."""
        return Score(None, "a judge judges in a job of its own")


class VerdictScorer(Scorer):
    """A judge's verdict, read from the last line of its answer: never guessed."""

    type: Literal["verdict"] = "verdict"
    task: JudgeTask = "score"
    """The judge's task."""

    VERSION: ClassVar[int] = 1

    def compute(self, given: ScorerInput) -> Score:
        """Return 0 … 1: of a score its place on the scale, of a pair 1 for A, 0 for B, ½ for a tie and for both bad."""
        lines = [line for line in given.text.splitlines() if line.strip()]
        # The last line alone: judges quote "VERDICT: A" while they weigh, and an answer may contain it to be quoted.
        found = VERDICT.match(lines[-1]) if lines and len(lines[-1]) <= MAX_VERDICT_CHARS else None
        if found is None:
            return Score(None, "the answer does not end with a line `VERDICT: …`")
        word = found[1].strip().upper().replace(" ", "_")
        if self.task == "score":
            if word.isdigit() and 1 <= int(word) <= SCALE:
                return Score((int(word) - 1) / (SCALE - 1))
        elif word in CHOICES:
            return Score(CHOICES[word], BOTH_BAD if word == "BOTH_BAD" else None)
        return Score(None, f"`{found[1].strip()[:40]}` is no verdict")
