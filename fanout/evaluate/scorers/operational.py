"""Length, latency and cost as scores: in their own units, lower is better unless the reader decides otherwise."""

from __future__ import annotations

from typing import ClassVar, Literal

from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput


class LengthScorer(Scorer):
    """Length of the answer."""

    is_bounded: ClassVar[bool] = False
    is_higher_better: ClassVar[bool] = False

    type: Literal["length"] = "length"
    unit: Literal["characters", "words", "tokens"] = "words"
    """Unit; tokens are those that the provider reports."""

    def compute(self, given: ScorerInput) -> Score:
        """Return the length; no score where the provider reported no tokens."""
        if self.unit == "tokens":
            return Score(None, "no usage reported") if given.output_tokens is None else Score(float(given.output_tokens))
        return Score(float(len(given.text) if self.unit == "characters" else len(given.text.split())))


class LatencyScorer(Scorer):
    """Seconds of the successful attempt, to its first content or to its end; queue and retries do not count."""

    is_bounded: ClassVar[bool] = False
    is_higher_better: ClassVar[bool] = False
    MAX_CHARS: ClassVar[int | None] = None

    type: Literal["latency"] = "latency"
    until: Literal["end", "first_token"] = "end"
    """The moment that counts."""

    def compute(self, given: ScorerInput) -> Score:
        """Return seconds; no score where they were not measured."""
        value = given.call_s if self.until == "end" else given.ttft_s
        return Score(value, None if value is not None else "not measured")


class RefusalScorer(Scorer):
    """1 where the model refused to answer, by its own statement or its provider's filter, else 0."""

    is_higher_better: ClassVar[bool] = False
    MAX_CHARS: ClassVar[int | None] = None

    type: Literal["refusal"] = "refusal"

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0."""
        return Score(float(given.is_refusal or given.finish_reason == "content_filter"))


class CostScorer(Scorer):
    """Cost of the answer in US dollars."""

    is_bounded: ClassVar[bool] = False
    is_higher_better: ClassVar[bool] = False
    MAX_CHARS: ClassVar[int | None] = None

    type: Literal["cost"] = "cost"

    def compute(self, given: ScorerInput) -> Score:
        """Return US dollars; no score where no price is known."""
        return Score(given.cost_usd, None if given.cost_usd is not None else "no known price")
