"""A scorer: its declaration, what it is given, what it returns."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from pydantic import ConfigDict, Field
from pydantic_core import to_json

from fanout.core.long_lists import BoundedObject
from fanout.evaluate.limits import ANSWER_TIME_S, REGEX_TIMEOUT_S, TooLongError, limit_time


@dataclass(frozen=True, slots=True)
class ScorerInput:
    """One answer, with all that a scorer may look at; `None` is "not known"."""

    text: str
    reference: str | None = None
    columns: Mapping[str, object] = field(default_factory=dict)
    """Further columns of the answer's row."""
    finish_reason: str | None = None
    is_refusal: bool = False
    """The model states that it does not answer."""
    output_tokens: int | None = None
    ttft_s: float | None = None
    """Of the successful attempt, from its start to its first content."""
    call_s: float | None = None
    """Of the successful attempt alone; its queue and its retries are not the model's."""
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """A number, or `None` with the reason why there is none."""

    value: float | None
    explanation: str | None = None


def to_text(value: object) -> str:
    """Return an expected answer as text: what is not text as JSON."""
    return value if isinstance(value, str) else to_json(value).decode()


class Scorer(BoundedObject):
    """Base of all scorers; frozen, so that a job's declaration cannot change under it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    VERSION: ClassVar[int] = 1
    """Raised whenever the same answer may get another score than before."""
    is_bounded: ClassVar[bool] = True
    """Whether scores lie within 0 … 1."""
    is_higher_better: ClassVar[bool] = True
    MAX_CHARS: ClassVar[int | None] = 1_000_000
    """Longest answer and expected answer; `None` where they are not read, or by somebody else's code."""

    type: str
    name: str | None = Field(default=None, min_length=1, max_length=64)
    """Name in results and reports; by default its type."""
    against: str = Field(default="reference", min_length=1, max_length=128)
    """Column that holds the expected answer."""

    def score(self, given: ScorerInput) -> Score:
        """Return the answer's score; none where its texts are too long, or take too much time."""
        if self.MAX_CHARS is not None and len(given.text) > self.MAX_CHARS:
            return Score(None, f"longer than {self.MAX_CHARS:,} characters")
        try:
            with limit_time():
                return self.compute(given)
        except TooLongError as error:
            return Score(None, str(error))
        except TimeoutError:
            # Never 0: the fault is the pattern's or the schema's, and every model would look equally wrong.
            return Score(None, f"took longer than {REGEX_TIMEOUT_S} s for a pattern, or {ANSWER_TIME_S:g} s for all scorers")

    @abstractmethod
    def compute(self, given: ScorerInput) -> Score:
        """Return the answer's score; the same for the same input, whatever else runs."""

    @property
    def label(self) -> str:
        """Name in results and reports."""
        return self.name or self.type

    @property
    def version(self) -> str:
        """Type, version and a digest of the options: equal exactly where scores can be compared."""
        # The name is left out: renaming a scorer must not make its scores look like another's.
        options = self.model_dump_json(exclude={"name"}, exclude_defaults=True)
        return f"{self.type}/{self.VERSION}/{hashlib.sha256(options.encode()).hexdigest()[:12]}"

    def expected(self, given: ScorerInput) -> str | None:
        """Return the expected answer as text; `None` where the row has none."""
        value = given.reference if self.against == "reference" else given.columns.get(self.against)
        if value is None:
            return None
        text = to_text(value)
        if self.MAX_CHARS is not None and len(text) > self.MAX_CHARS:
            raise TooLongError(f"`{self.against}` is longer than {self.MAX_CHARS:,} characters")
        return text

    def no_reference(self) -> Score:
        """Return the score of an answer whose row has no expected one."""
        return Score(None, f"the row has no `{self.against}`")
