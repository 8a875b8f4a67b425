"""A Python function as a scorer, for those who may run code on this machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fanout.core.authorities import import_by_name
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput


class FunctionScorer(Scorer):
    """The value of a function `f(given: ScorerInput) -> float | bool | None | Score`, named by its dotted name.

    Servers refuse it: whoever names a function runs code there.
    """

    is_bounded: ClassVar[bool] = False
    MAX_CHARS: ClassVar[int | None] = None

    type: Literal["python"] = "python"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")
    """Dotted name, as `my_scorers.helpfulness`; its module must be importable."""
    revision: str = ""
    """Whatever changes when the function does: it becomes part of the scorer's version."""

    @model_validator(mode="after")
    def check_function(self) -> Self:
        """Refuse a name that leads nowhere."""
        try:
            found = self._function
        except (ImportError, AttributeError) as error:
            raise ValueError(f"function `{self.function}` cannot be loaded: {error}") from None
        if not callable(found):
            raise ValueError(f"`{self.function}` is not a function")  # noqa: TRY004 - pydantic reports ValueErrors alone
        return self

    @cached_property
    def _function(self) -> Callable[[ScorerInput], Any]:
        module, _, name = self.function.rpartition(".")
        function: Callable[[ScorerInput], Any] = getattr(import_by_name(module), name)
        return function

    def compute(self, given: ScorerInput) -> Score:
        """Return the function's value; no score, but its error, where it raises or returns no finite number."""
        try:
            value = self._function(given)
        except (Exception, SystemExit) as error:  # somebody else's code: its failure must not end the others' scoring
            return Score(None, f"{type(error).__name__}: {str(error)[:200]}")
        if isinstance(value, Score) or value is None:
            return value if isinstance(value, Score) else Score(None, "the function returned None")
        if isinstance(value, int | float) and math.isfinite(value):
            return Score(float(value))
        return Score(None, f"the function returned {str(value)[:80]!r}, not a finite number")
