"""Scorers of JSON answers: valid against a schema, or equal to the expected value."""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any, Literal, Self

import jsonschema
import referencing
from pydantic import Field, model_validator

from fanout.core.json_text import FENCED_JSON
from fanout.evaluate.scorers.bounded_schemas import has_both, make_validator
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput


class _JsonScorer(Scorer):
    fenced: bool = True
    """Whether JSON within the first code block counts, where the whole answer is not JSON."""

    def parse(self, text: str) -> object:
        """Return the JSON value of an answer.

        Raises:
            ValueError: there is none.
        """
        try:
            return parse_strictly(text)
        except ValueError:
            # Models wrap JSON in Markdown unless they are forced to write JSON; the job says whether that counts.
            block = FENCED_JSON.search(text) if self.fenced else None
            if block is None:
                raise
            return parse_strictly(block[1])


def parse_strictly(text: str) -> object:
    """Return the value of a JSON text; NaN and Infinity are not JSON.

    Raises:
        ValueError: the text is not JSON, or is nested too deeply.
    """
    try:
        value: object = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


class JsonSchemaScorer(_JsonScorer):
    """1 where the answer is JSON that fits a schema, else 0."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: dict[str, Any] = Field(alias="schema")
    """JSON Schema, draft 2020-12 unless `$schema` names another; references stay within it."""

    @model_validator(mode="after")
    def check_schema(self) -> Self:
        """Refuse a schema that is not one."""
        try:
            self._validator.check_schema(self.json_schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"schema is not a JSON Schema: {error.message}") from None
        if has_both(self.json_schema, "patternProperties", "unevaluatedProperties"):
            raise ValueError("schema has `patternProperties` and `unevaluatedProperties`, which are not allowed together")
        return self

    @cached_property
    def _validator(self) -> Any:
        return make_validator(self.json_schema)

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0, with the first fault."""
        try:
            value = self.parse(given.text)
        except ValueError as error:
            return Score(0.0, f"not JSON: {error}")
        try:
            fault = next(self._validator.iter_errors(value), None)
        # No score instead of 0: the fault is the schema's, and every model would look equally wrong.
        except referencing.exceptions.Unresolvable as error:
            return Score(None, f"the schema refers to what it does not hold: {error}")
        except RecursionError:
            return Score(None, "the schema refers to itself without end, or is nested too deeply")
        except ValueError as error:
            return Score(None, f"a pattern of the schema {error}")
        return Score(1.0) if fault is None else Score(0.0, f"{fault.json_path}: {fault.message[:200]}")


class JsonEqualScorer(_JsonScorer):
    """1 where the answer is the expected JSON value, whatever its order of names and its white space, else 0."""

    type: Literal["json_equal"] = "json_equal"

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        try:
            wanted = parse_strictly(expected)
        except ValueError as error:
            # No score: the row is at fault, not the model.
            return Score(None, f"the expected answer is not JSON: {error}")
        try:
            return Score(float(is_equal(self.parse(given.text), wanted)))
        except ValueError as error:
            return Score(0.0, f"not JSON: {error}")


def is_equal(one: object, other: object) -> bool:
    """Return whether two JSON values are equal: `1` and `1.0` are, `1` and `true` are not."""
    # Python takes True for 1; JSON does not.
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(is_equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other
