"""Measures of a job: its units' figures by column, in memory that takes some ninety bytes a unit."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Literal

from fanout.core.json_text import JsonObject
from fanout.evaluate.judging.tasks import JudgeTask
from fanout.jobs.job import Job
from fanout.store.jobs.records import ScorerRow
from fanout.store.votes import VoteRow

UNKNOWN = nan
"""A figure that was not measured, in a column."""


def _floats() -> array[float]:
    # Eight bytes each; lists of Python floats would take four times as much, and a job has millions of units.
    return array("d")


def _integers() -> array[int]:
    return array("q")


@dataclass(slots=True, eq=False)
class ModelMeasures:
    """The ended units of one model, a value for each in every column."""

    name: str
    """Its label in the job; where two models have the same one, with its place."""
    provider: str | None = None
    upstream_model: str | None = None
    parameters: JsonObject = field(default_factory=dict)
    """Sampling parameters as they were sent."""
    items: array[int] = field(default_factory=_integers)
    repeats: array[int] = field(default_factory=_integers)
    answered: array[int] = field(default_factory=lambda: array("b"))
    """1 or 0."""
    cost_usd: array[float] = field(default_factory=_floats)
    queued_s: array[float] = field(default_factory=_floats)
    ttft_s: array[float] = field(default_factory=_floats)
    call_s: array[float] = field(default_factory=_floats)
    total_s: array[float] = field(default_factory=_floats)
    output_tokens: array[float] = field(default_factory=_floats)
    input_tokens: int = 0
    """Of all answers of this job's own whose provider says how many of them came from its cache."""
    cached_tokens: int = 0
    """Of these, from the cache."""
    scores: dict[int, array[float]] = field(default_factory=dict)
    """By the scorer's number."""
    failures: Counter[str] = field(default_factory=Counter)
    """Failed units by kind."""
    reused: int = 0
    """Answers that came from other jobs."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Parameters that were not sent, each with the units it was left out of."""
    adjusted: Counter[str] = field(default_factory=Counter)
    """Parameters that were sent with another value."""
    entry: int | None = None
    """Its place in the job; `None` where each line names models of its own."""


@dataclass(frozen=True, slots=True)
class JudgeMeasures:
    """A judge's verdicts on a job."""

    row: ScorerRow
    model: str
    task: JudgeTask
    order: Literal["random", "both"]
    verdicts: Mapping[str, tuple[float | None, str | None]]
    """By the question's name, in their order: score and explanation."""
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class JobMeasures:
    """The measures of a job."""

    job: Job
    models: Sequence[ModelMeasures]
    scorers: Sequence[ScorerRow]
    clusters: Mapping[int, str] | None = None
    """Group of each item, where groups were requested."""
    cluster_column: str | None = None
    votes: Sequence[VoteRow] = ()
    """Choices of people between two answers."""
    labels: Mapping[tuple[int, int, int], float] = field(default_factory=dict)
    """Scores of people, the mean of several, by item, entry and repeat."""
    judges: Sequence[JudgeMeasures] = ()
