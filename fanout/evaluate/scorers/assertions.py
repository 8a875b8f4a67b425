"""Assertions that each row brings along: of several, all must hold, or as much of their weight as a threshold asks for.

Types and meanings are promptfoo's. Source: https://www.promptfoo.dev/docs/configuration/expected-outputs/deterministic/
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import referencing
import regex

from fanout.evaluate.scorers.schema_patterns import DEADLINE, has_both, make_validator
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput, to_text
from fanout.evaluate.scorers.structured import is_equal, parse_strictly
from fanout.evaluate.scorers.text import REGEX_TIMEOUT_S

NOT = "not-"
MAX_LEVENSHTEIN_CHARS = 10_000
MAX_JSON_STARTS = 1_000
"""Brackets of an answer at which JSON is looked for."""
Check = Callable[[ScorerInput, Mapping[str, Any]], bool]


class AssertionsScorer(Scorer):
    """1 where the row's assertions hold, else 0; its column `assert` is a list of objects with `type` and `value`."""

    type: Literal["assertions"] = "assertions"
    against: str = "assert"
    """Column that holds the assertions."""

    def score(self, given: ScorerInput) -> Score:
        """Return 1 or 0, with the first assertion that does not hold."""
        listed = given.columns.get(self.against)
        if not isinstance(listed, Sequence) or isinstance(listed, str) or not listed:
            return self.no_reference()
        weight = held = 0.0
        failed: str | None = None
        for assertion in listed:
            if not isinstance(assertion, Mapping) or not is_known(str(assertion.get("type"))):
                return Score(None, f"{to_text(assertion)[:80]} is no assertion that is known here")
            result = check(given, assertion)
            own = float(assertion.get("weight", 1))
            weight, held = weight + own, held + own * result
            if not result and failed is None:
                failed = f"`{assertion['type']}` does not hold: {to_text(assertion.get('value'))[:80]}"
        threshold = given.columns.get(f"{self.against}_threshold")
        if isinstance(threshold, int | float):
            return Score(float(weight > 0 and held / weight >= threshold), failed)
        return Score(float(failed is None), failed)


def is_known(type_: str) -> bool:
    """Return whether an assertion's type can be checked here."""
    return type_.removeprefix(NOT) in CHECKS


def check(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    """Return whether an assertion holds."""
    type_ = str(assertion["type"])
    return CHECKS[type_.removeprefix(NOT)](given, assertion) is not type_.startswith(NOT)


def _equals(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    value = assertion.get("value")
    if not isinstance(value, dict | list):
        return given.text == to_text(value)
    try:
        return is_equal(parse_strictly(given.text), value)
    except ValueError:
        return False


def _list_values(assertion: Mapping[str, Any]) -> list[str]:
    """Return the values of `contains-all` and its like: a list, or a text with commas between them."""
    value = assertion.get("value")
    return [to_text(one) for one in value] if isinstance(value, list) else [one.strip() for one in to_text(value).split(",")]


def _matches(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    try:
        return regex.search(to_text(assertion.get("value")), given.text, timeout=REGEX_TIMEOUT_S) is not None
    except TimeoutError:
        return False


def _fits(value: Any, schema: object) -> bool:
    if not isinstance(schema, dict):
        return True
    if has_both(schema, "patternProperties", "unevaluatedProperties"):
        return False
    DEADLINE.set(time.monotonic() + REGEX_TIMEOUT_S)
    try:
        return bool(make_validator(schema).is_valid(value))
    except (referencing.exceptions.Unresolvable, RecursionError, TimeoutError, regex.error):
        return False


def _is_json(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    try:
        return _fits(parse_strictly(given.text), assertion.get("value"))
    except ValueError:
        return False


def _contains_json(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:

    decoder = json.JSONDecoder()
    starts = [index for index, letter in enumerate(given.text) if letter in "{["][:MAX_JSON_STARTS]
    for start in starts:
        try:
            value, _ = decoder.raw_decode(given.text, start)
        except (ValueError, RecursionError):
            continue
        if _fits(value, assertion.get("value")):
            return True
    return False


def _levenshtein(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    text, value = given.text, to_text(assertion.get("value"))
    if max(len(text), len(value)) > MAX_LEVENSHTEIN_CHARS:
        return False
    limit = float(assertion.get("threshold", 5))
    row = list(range(len(value) + 1))
    for place, letter in enumerate(text, 1):
        before, row[0] = row[0], place
        for other, wanted in enumerate(value, 1):
            before, row[other] = row[other], min(row[other] + 1, row[other - 1] + 1, before + (letter != wanted))
        if min(row) > limit:
            return False
    return row[-1] <= limit


def _within(actual: float | None, assertion: Mapping[str, Any], unit: float) -> bool:
    threshold = assertion.get("threshold", assertion.get("value"))
    return actual is not None and threshold is not None and actual * unit <= float(threshold)


CHECKS: Mapping[str, Check] = {
    "equals": _equals,
    "contains": lambda given, one: to_text(one.get("value")) in given.text,
    "icontains": lambda given, one: to_text(one.get("value")).lower() in given.text.lower(),
    "contains-all": lambda given, one: all(value in given.text for value in _list_values(one)),
    "contains-any": lambda given, one: any(value in given.text for value in _list_values(one)),
    "icontains-all": lambda given, one: all(value.lower() in given.text.lower() for value in _list_values(one)),
    "icontains-any": lambda given, one: any(value.lower() in given.text.lower() for value in _list_values(one)),
    "starts-with": lambda given, one: given.text.startswith(to_text(one.get("value"))),
    "regex": _matches,
    "is-json": _is_json,
    "contains-json": _contains_json,
    "levenshtein": _levenshtein,
    "latency": lambda given, one: _within(given.call_s, one, 1_000.0),
    "cost": lambda given, one: _within(given.cost_usd, one, 1.0),
}
"""Checks by the assertion's type; with `not-` before it, it must not hold."""
