"""Scorers: from an answer, its reference and its row's columns to a number, without calling a model.

A scorer is declared as data (`{"type": "exact", "ignore_case": true}`) and validated by its own model, which scores as well.
To add one: a subclass of `Scorer` with a `type` and a `compute`, in the module of its kind, and its place in `ANY_SCORER`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, TypeAdapter

from fanout.evaluate.scorers.assertions import AssertionsScorer
from fanout.evaluate.scorers.function import FunctionScorer
from fanout.evaluate.scorers.judge import JudgeScorer, VerdictScorer
from fanout.evaluate.scorers.operational import CostScorer, LatencyScorer, LengthScorer, RefusalScorer
from fanout.evaluate.scorers.overlap import BleuScorer, RougeScorer
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput
from fanout.evaluate.scorers.structured import JsonEqualScorer, JsonSchemaScorer
from fanout.evaluate.scorers.text import ChoiceScorer, ContainsScorer, ExactScorer, NumericScorer, RegexScorer

__all__ = ["ANY_SCORER", "AnyScorer", "Score", "Scorer", "ScorerInput"]

AnyScorer = Annotated[
    ExactScorer
    | ContainsScorer
    | RegexScorer
    | NumericScorer
    | ChoiceScorer
    | JsonSchemaScorer
    | JsonEqualScorer
    | RougeScorer
    | BleuScorer
    | LengthScorer
    | LatencyScorer
    | CostScorer
    | RefusalScorer
    | AssertionsScorer
    | FunctionScorer
    | JudgeScorer
    | VerdictScorer,
    Field(discriminator="type"),
]
ANY_SCORER: TypeAdapter[AnyScorer] = TypeAdapter(AnyScorer)
