"""Assertions that each row brings along: of several, all must hold, or as much of their weight as a threshold asks for.

Types and meanings are promptfoo's. Source: https://www.promptfoo.dev/docs/configuration/expected-outputs/deterministic/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, ClassVar, Literal

import jsonschema
import referencing
import regex
import yaml

from fanout.evaluate.limits import MAX_PATTERN_CHARS, check_time, search
from fanout.evaluate.scorers.bounded_schemas import has_both, make_validator
from fanout.evaluate.scorers.promptfoo_texts import MAX_LENIENT_CHARS, list_objects, load_yaml, split_list, translate_pattern
from fanout.evaluate.scorers.scorer import Score, Scorer, ScorerInput, to_text
from fanout.evaluate.scorers.structured import is_equal, parse_strictly

NOT = "not-"
MAX_LEVENSHTEIN_CHARS = 10_000
NEEDS_VALUE = frozenset({"contains", "icontains", "starts-with", "regex"})
"""What fails, with `not-` too, where its value is empty: a variable that is not there."""
FORMATS = jsonschema.FormatChecker(("date", "ipv4", "ipv6", "uuid", "regex"))
DOMAIN = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
EMAIL = regex.compile(rf"[\w.!#$%&'*+/=?^`{{|}}~-]+@{DOMAIN}(?:\.{DOMAIN})*", regex.A | regex.I)
MAX_EMAIL_CHARS = 320
TIME = regex.compile(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", regex.A)
Check = Callable[[ScorerInput, Mapping[str, Any]], bool]


class UncheckableError(Exception):
    """An assertion that cannot be checked, which therefore fails, also with `not-` before it."""


class AssertionsScorer(Scorer):
    """1 where the row's assertions hold, else 0; its column `assert` is a list of objects with `type` and `value`."""

    type: Literal["assertions"] = "assertions"
    against: str = "assert"
    """Column that holds the assertions."""

    VERSION: ClassVar[int] = 2

    def compute(self, given: ScorerInput) -> Score:
        """Return 1 or 0, with the first assertion that does not hold."""
        listed = given.columns.get(self.against)
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            return self.no_reference()
        weight = held = 0.0
        failed: str | None = None
        for assertion in listed:
            if not isinstance(assertion, Mapping) or not is_known(str(assertion.get("type"))):
                return Score(None, f"{to_text(assertion)[:80]} is no assertion that is known here")
            result = check(given, assertion)
            check_time()  # what used up all of it decides nothing
            own = float(assertion.get("weight", 1))
            weight, held = weight + own, held + own * result
            # One without weight is only measured there.
            if not result and own and failed is None:
                failed = f"`{assertion['type']}` does not hold: {to_text(assertion.get('value'))[:80]}"
        threshold = given.columns.get(f"{self.against}_threshold")
        if isinstance(threshold, int | float):
            return Score(float((held / weight if weight else 0.0) >= threshold), failed)
        return Score(float(failed is None), failed)


def is_known(type_: str) -> bool:
    """Return whether an assertion's type can be checked here."""
    return type_.removeprefix(NOT) in CHECKS


def check(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    """Return whether an assertion holds."""
    type_ = str(assertion["type"])
    if type_.removeprefix(NOT) in NEEDS_VALUE and assertion.get("value") in (None, ""):
        return False
    try:
        return CHECKS[type_.removeprefix(NOT)](given, assertion) is not type_.startswith(NOT)
    except UncheckableError:
        return False


def _equals(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    value = assertion.get("value")
    if not isinstance(value, dict | list):
        return given.text == to_text(value)
    try:
        return is_equal(parse_strictly(given.text), value)
    except ValueError:
        return False


def _list_values(assertion: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of `contains-all` and its like: a list, or a text with commas between them."""
    value = assertion.get("value")
    # Looked for within the time, one after the other: a row may bring along thousands.
    for one in value if isinstance(value, list) else split_list(to_text(value)):
        check_time()
        yield to_text(one)


def _matches(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    try:
        return search(translate_pattern(to_text(assertion.get("value"))[: MAX_PATTERN_CHARS + 1]), given.text)
    except (TimeoutError, ValueError):
        raise UncheckableError from None


# Of one's own: jsonschema has both only where another package is installed.
@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    day, _, time_ = value.partition("T")
    return len(day) == 10 and bool(date.fromisoformat(day)) and TIME.fullmatch(time_) is not None


@FORMATS.checks("time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or TIME.fullmatch(value) is not None


@FORMATS.checks("email")
def _is_email(value: object) -> bool:
    return not isinstance(value, str) or (len(value) <= MAX_EMAIL_CHARS and EMAIL.fullmatch(value) is not None)


def _fits(value: Any, given: object) -> bool:
    schema = _parse_schema(given) if isinstance(given, str) else given
    if not isinstance(schema, dict):
        return True
    if has_both(schema, "patternProperties", "unevaluatedProperties"):
        raise UncheckableError
    try:
        return bool(make_validator(schema, FORMATS).is_valid(value))
    except (referencing.exceptions.Unresolvable, RecursionError, TimeoutError, ValueError):
        raise UncheckableError from None


def _parse_schema(text: str) -> object:
    try:
        return parse_strictly(text)
    except ValueError:
        pass
    try:
        # YAML takes a thousand times as long to read as JSON.
        if len(text) <= MAX_LENIENT_CHARS:
            return load_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        pass
    raise UncheckableError


def _is_json(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    try:
        value = parse_strictly(given.text)
    except ValueError:
        return False
    return _fits(value, assertion.get("value"))


def _contains_json(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    return any(_fits(found, assertion.get("value")) for found in list_objects(given.text))


def _levenshtein(given: ScorerInput, assertion: Mapping[str, Any]) -> bool:
    text, value = given.text, to_text(assertion.get("value"))
    if max(len(text), len(value)) > MAX_LEVENSHTEIN_CHARS:
        return False
    limit = float(assertion.get("threshold", 5))
    row = list(range(len(value) + 1))
    for place, letter in enumerate(text, 1):
        check_time()
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
