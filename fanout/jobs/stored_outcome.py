"""How one unit ended, as JSON in the store: enough to write the answer again in any dialect. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from fanout.core.json_text import replace_surrogates
from fanout.core.schema import Call, Completion, Failure, Outcome, Timing
from fanout.core.usage import Cost


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An outcome without its question."""

    model: str
    """As it was asked for."""
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

    @classmethod
    def from_outcome(cls, outcome: Outcome) -> StoredOutcome:
        target, fitted, result = outcome.call.target, outcome.call.fitted, outcome.result
        return cls(
            model=target.name,
            label=target.label,
            provider=target.provider,
            upstream_model=target.model,
            completion=result if isinstance(result, Completion) else None,
            failure=result if isinstance(result, Failure) else None,
            timing=outcome.timing,
            cost=outcome.cost,
            ignored=fitted.ignored,
            adjusted=fitted.adjusted,
        )

    @classmethod
    def from_json(cls, text: str) -> StoredOutcome:
        return _RECORD.validate_json(text)

    def to_json(self) -> str:
        """Whatever upstreams put into it: half a character becomes U+FFFD, a number that is none null."""
        try:
            return _RECORD.dump_json(self, exclude_defaults=True).decode()
        except PydanticSerializationError:
            plain = replace_surrogates(_RECORD.dump_python(self, exclude_defaults=True))
            return _RECORD.dump_json(_RECORD.validate_python(plain), exclude_defaults=True).decode()

    @property
    def result(self) -> Completion | Failure:
        found = self.completion or self.failure
        assert found is not None, "a record is of an answer or of a failure"
        return found

    def to_outcome(self, call: Call) -> Outcome:
        """The outcome of that call."""
        return Outcome(call, self.result, self.timing, self.cost)


_RECORD = TypeAdapter(StoredOutcome)


def failure_to_json(failure: Failure) -> str:
    return _FAILURE.dump_json(failure, exclude_defaults=True).decode()


def failure_from_json(text: str) -> Failure:
    return _FAILURE.validate_json(text)


_FAILURE = TypeAdapter(Failure)
