"""Scorers of an answer's text: exact, contains, regex, numeric, multiple choice."""

from __future__ import annotations

from typing import Literal, Self

import regex
from pydantic import Field, model_validator

from fanout.evaluate.limits import MAX_PATTERN_CHARS, compile_pattern, search
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput

NUMBER = regex.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d+")
# Possessive (`*+`): a run of spaces that can be divided in three ways would take the cube of its length.
CHOICE_STATED = r"(?:answer|choice|option)\s*+(?:is|:|=)?+[\(\[\*\s]*+([{letters}])\b"
CHOICE_ALONE = r"^[\s\(\[\*]*([{letters}])\b[\s\)\]\.\:\*]*"


class _TextScorer(Scorer):
    ignore_case: bool = False
    """Compare without regard to case."""
    strip: bool = True
    """Leave white space at both ends out of the comparison."""

    def normalize(self, text: str) -> str:
        """Return the text as it is compared."""
        text = text.strip() if self.strip else text
        return text.casefold() if self.ignore_case else text


class ExactScorer(_TextScorer):
    """1 where the answer is the expected text, else 0."""

    type: Literal["exact"] = "exact"

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        return Score(float(self.normalize(given.text) == self.normalize(expected)))


class ContainsScorer(_TextScorer):
    """1 where the answer contains the expected text, else 0."""

    type: Literal["contains"] = "contains"
    text: str | None = Field(default=None, min_length=1)
    """Text to look for; by default the expected answer of each row."""

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0."""
        wanted = self.text if self.text is not None else self.expected(given)
        # The empty text is in every answer: it would give everybody a point.
        if not wanted:
            return self.no_reference()
        return Score(float(self.normalize(wanted) in self.normalize(given.text)))


class RegexScorer(Scorer):
    """1 where the pattern is found in the answer, else 0."""

    type: Literal["regex"] = "regex"
    pattern: str = Field(min_length=1, max_length=MAX_PATTERN_CHARS)
    """Pattern of the `regex` package, which knows Python's syntax."""
    full: bool = False
    """Whether the pattern must match the whole answer."""

    @model_validator(mode="after")
    def check_pattern(self) -> Self:
        """Refuse a pattern that does not compile."""
        try:
            # Here, not at the first answer: then a thousand calls would have been paid for.
            compile_pattern(self.pattern)
        except ValueError as error:
            raise ValueError(f"pattern `{self.pattern[:80]}` {error}") from None
        return self

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0."""
        return Score(float(search(self.pattern, given.text, whole=self.full)))


class NumericScorer(Scorer):
    """1 where the answer's number lies within a tolerance of the expected one, else 0."""

    type: Literal["numeric"] = "numeric"
    absolute: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Largest difference that counts as equal."""
    relative: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """The same, as a share of the expected number; the larger of the two holds."""
    take: Literal["last", "first", "only"] = "last"
    """Which number of the answer counts; `only`: an answer with several is wrong."""

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0; 0 where the answer has no number."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        wanted = parse_numbers(expected)
        if len(wanted) != 1:
            return Score(None, f"the expected answer `{expected[:80]}` is not one number")
        found = parse_numbers(given.text)
        if not found:
            return Score(0.0, "no number in the answer")
        if self.take == "only" and len(found) > 1:
            return Score(0.0, f"{len(found)} numbers in the answer")
        # Chains of thought end with the result, so the last number counts unless the job says otherwise.
        number = found[0] if self.take == "first" else found[-1]
        tolerance = max(self.absolute, self.relative * abs(wanted[0]))
        return Score(float(abs(number - wanted[0]) <= tolerance + 1e-12 * abs(wanted[0])), f"{number:g}")


def parse_numbers(text: str) -> list[float]:
    """Return the numbers in a text, `1,234.5` read as one; a minus that joins two words is none."""
    # `regex` everywhere here: unlike `re` it lets other threads run while it searches.
    numbers = NUMBER.finditer(regex.sub(r"(?<=\w)-(?=\d)", " ", text, concurrent=True), concurrent=True)
    return [float(match[0].replace(",", "")) for match in numbers]


class ChoiceScorer(Scorer):
    """1 where the answer chooses the expected letter, else 0."""

    type: Literal["choice"] = "choice"
    letters: str = Field(default="ABCD", pattern=r"^[A-Z]{2,26}$")
    """Letters that may be chosen."""

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0; 0 where no choice, or more than one, can be read."""
        expected = self.expected(given)
        if expected is None:
            return self.no_reference()
        chosen = parse_choice(given.text, self.letters)
        if chosen is None:
            return Score(0.0, "no choice could be read")
        return Score(float(chosen == expected.strip().strip("()[].").upper()), chosen)


def parse_choice(text: str, letters: str = "ABCD") -> str | None:
    """Return the chosen letter: the last that is stated as the answer, else one that opens the text or is its only one."""
    # Models often weigh several letters first: the last statement is their answer.
    stated = regex.findall(CHOICE_STATED.format(letters=letters), text, regex.IGNORECASE, concurrent=True)
    if stated:
        return str(stated[-1]).upper()
    # Case matters here: "a" opens many English sentences.
    if alone := regex.match(CHOICE_ALONE.format(letters=letters), text, concurrent=True):
        return alone[1]
    standing = set(regex.findall(rf"(?<![\w'])([{letters}])(?![\w'])", text, concurrent=True))
    return standing.pop() if len(standing) == 1 else None
