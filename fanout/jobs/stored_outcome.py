"""Outcomes of units, stored as JSON: enough to write the answer again in any dialect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from fanout.core.fusion import FusedMembers
from fanout.core.json_text import replace_surrogates
from fanout.core.schema import Call, Completion, Failure, Outcome, Timing
from fanout.core.usage import Cost
from fanout.core.value_type import value_type


@value_type(frozen=True, slots=True)
class StoredOutcome:
    """An outcome without its call."""

    model: str
    """As the caller named it."""
    label: str
    provider: str | None
    upstream_model: str | None
    completion: Completion | None = None
    failure: Failure | None = None
    """Exactly one of the two."""
    timing: Timing = field(default_factory=Timing)
    cost: Cost | None = None
    ignored: tuple[str, ...] = ()
    adjusted: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    fusion: FusedMembers | None = None

    @classmethod
    def from_outcome(cls, outcome: Outcome) -> StoredOutcome:
        """Return the part of an outcome that is stored."""
        target, fitted, result = outcome.call.target, outcome.call.fitted, outcome.result
        completion, failure = (result, None) if isinstance(result, Completion) else (None, result)
        return cls(
            *(target.name, target.label, target.provider, target.model, completion, failure),
            *(outcome.timing, outcome.cost, fitted.ignored, fitted.adjusted, outcome.call.fusion),
        )

    @classmethod
    def from_json(cls, text: str) -> StoredOutcome:
        """Return the outcome that was stored."""
        return _outcome_json().validate_json(text)

    def to_json(self) -> str:
        """Return the outcome as JSON. Lone surrogates become U+FFFD; NaN and infinity become null."""
        # Without defaults, because a job may store a million outcomes.
        # Only on an error are the texts searched: broken text is rare, and a search in every answer is slow.
        try:
            return _outcome_json().dump_json(self, exclude_defaults=True).decode()
        except PydanticSerializationError:
            plain = replace_surrogates(_outcome_json().dump_python(self, exclude_defaults=True))
            return _outcome_json().dump_json(_outcome_json().validate_python(plain), exclude_defaults=True).decode()

    @property
    def result(self) -> Completion | Failure:
        """The answer or the failure."""
        found = self.completion or self.failure
        assert found is not None, "an outcome is an answer or a failure"
        return found

    def to_outcome(self, call: Call) -> Outcome:
        """Return the outcome of a call."""
        return Outcome(replace(call, fusion=self.fusion) if self.fusion else call, self.result, self.timing, self.cost)


@cache
def _outcome_json() -> TypeAdapter[StoredOutcome]:
    # At first use: making it takes 8 ms, which every start would pay (2026-11-28).
    return TypeAdapter(StoredOutcome)


@cache
def _failure_json() -> TypeAdapter[Failure]:
    return TypeAdapter(Failure)


def failure_to_json(failure: Failure) -> str:
    """Return a failure as it is stored."""
    return _failure_json().dump_json(failure, exclude_defaults=True).decode()
