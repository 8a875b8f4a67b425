"""Limits of scoring: no answer, row, pattern or schema takes a scorer long, whatever it is written for."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

import pytest
from pydantic import ValidationError
from rouge_score.rouge_scorer import RougeScorer as PackageRouge

from fanout.core.json_text import JsonObject
from fanout.core.schema import Answer, Choice, Completion
from fanout.evaluate import limits
from fanout.evaluate.scorers import ANY_SCORER, Score, ScorerInput
from fanout.evaluate.scorers.overlap import measure_subsequence
from fanout.evaluate.scoring.scoring import JobScorer
from fanout.jobs.stored_outcome import StoredOutcome

SHORT_TIME_S = 0.03
OPENED = threading.Event()


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ANSWER_TIME_S", SHORT_TIME_S)
    monkeypatch.setattr(limits, "REGEX_TIMEOUT_S", SHORT_TIME_S)


def score(declared: JsonObject, text: str, reference: str | None = None, **columns: Any) -> Score:
    return ANY_SCORER.validate_python(declared).score(ScorerInput(text, reference, columns))


def assert_holds(text: str, **assertion: Any) -> Score:
    columns: JsonObject = {"assert": [assertion]}
    return score({"type": "assertions"}, text, **columns)


def doubling_schema(levels: int) -> JsonObject:
    """Return a schema of a few hundred bytes that checks a value 2^levels times."""
    names = {f"l{level}": {"anyOf": [{"$ref": f"#/$defs/l{level + 1}"}] * 2} for level in range(levels)}
    return {"$defs": {**names, f"l{levels}": {"type": "string"}}, "$ref": "#/$defs/l0"}


@pytest.mark.usefixtures("short_time")
@pytest.mark.parametrize(
    ("declared", "text", "columns"),
    [
        ({"type": "json_schema", "schema": doubling_schema(40)}, "1", {}),
        ({"type": "assertions"}, "1", {"assert": [{"type": "is-json", "value": doubling_schema(40)}]}),
        ({"type": "assertions"}, "x {} x", {"assert": [{"type": "contains-json", "value": doubling_schema(40)}]}),
        ({"type": "assertions"}, "x", {"assert": [{"type": "contains-all", "value": '"' + "\\\\" * 40}]}),
        ({"type": "assertions"}, "x", {"assert": [{"type": "regex", "value": "^(a|aa)+$(?<=b)"}] * 9 + [{"type": "cost"}]}),
        ({"type": "assertions"}, "ab" * 5_000, {"assert": [{"type": "levenshtein", "value": "ba" * 5_000, "threshold": 9e9}]}),
        ({"type": "assertions"}, "x" * 10**6, {"assert": [{"type": "icontains-any", "value": ["y"] * 10_000}]}),
        ({"type": "assertions"}, "{}", {"assert": [{"type": "is-json", "value": "[" * 20_000}]}),
        ({"type": "regex", "pattern": "^(a|aa)+$"}, "a" * 40 + "!", {}),
    ],
)
def test_what_would_take_for_ever_has_no_score(declared: JsonObject, text: str, columns: JsonObject) -> None:
    if "regex" in str(columns):
        text = "a" * 40 + "!"
    found = score(declared, text, **columns)

    assert found.value is None
    assert "took longer than" in (found.explanation or "")


@pytest.mark.usefixtures("short_time")
def test_all_scorers_of_an_answer_have_one_time() -> None:
    slow = {"type": "json_schema", "schema": doubling_schema(40)}
    with limits.limit_time():
        score(slow, "1")
        with pytest.raises(TimeoutError):
            limits.check_time()
    limits.check_time()


def test_a_long_run_of_spaces_behind_the_word_answer_takes_no_time() -> None:
    """It took the cube of its length, and Python's own patterns let nothing else run meanwhile."""
    assert score({"type": "choice"}, "answer" + " " * 200_000 + "!", "A") == Score(0.0, "no choice could be read")
    assert score({"type": "choice"}, "answer" + " " * 200_000 + "(b)", "B").value == 1


@pytest.mark.parametrize(
    ("value", "is_valid"),
    [
        ('[1, true, "1", [1], [true], {"a": 1}, {"a": true}]', 1),
        ("[1, 1.0]", 0),
        ("[[1], [1.0]]", 0),
        ('[{"a": 1}, {"a": 1.0}]', 0),
    ],
)
def test_unique_items_are_those_that_json_says(value: str, is_valid: int) -> None:
    assert score({"type": "json_schema", "schema": {"uniqueItems": True}}, value).value == is_valid


@pytest.mark.usefixtures("short_time")
def test_unique_items_of_a_long_list_are_not_compared_each_with_each() -> None:
    items = ",".join(f"[{number}],{number}" for number in range(2_000))
    assert score({"type": "json_schema", "schema": {"uniqueItems": True}}, f"[{items}]").value == 1


def test_rouge_is_the_packages_number_in_a_thousandth_of_its_memory() -> None:
    chooser = random.Random(1)
    for _ in range(30):
        one, other = (" ".join(chooser.choices("abcdef", k=chooser.randrange(40))) for _ in range(2))
        package = PackageRouge(["rougeL"]).score(other, one)["rougeL"].fmeasure
        assert score({"type": "rouge_l"}, one, other).value == pytest.approx(package), (one, other)
    assert measure_subsequence(["a", "b"] * 5_000, ["b", "a"] * 5_000) == 9_999


@pytest.mark.parametrize("type_", ["exact", "contains", "numeric", "choice", "json_equal", "length"])
def test_texts_beyond_a_million_characters_have_no_score(type_: str) -> None:
    long = "1" * 1_000_001
    assert score({"type": type_}, long, "1") == Score(None, "longer than 1,000,000 characters")
    if type_ != "length":
        assert score({"type": type_}, "1", long) == Score(None, "`reference` is longer than 1,000,000 characters")


def test_scorers_that_read_no_text_take_every_length() -> None:
    given = ScorerInput("1" * 1_000_001, call_s=2.0)
    assert ANY_SCORER.validate_python({"type": "latency"}).score(given).value == 2.0


@pytest.mark.parametrize(
    ("pattern", "reason"), [("(" * 1_000 + ")" * 1_000, "nested too deeply"), ("(?a)(?u)a", "is not a regular expression")]
)
def test_a_pattern_that_cannot_be_compiled_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ANY_SCORER.validate_python({"type": "regex", "pattern": pattern})


def test_long_patterns_and_schemas_of_a_row_do_not_hold() -> None:
    assert assert_holds("a", type="regex", value="a{0}" * 501).value == 0
    assert assert_holds("{}", type="is-json", value="a: 1\n" * 5_000).value == 0
    assert assert_holds("{}", type="is-json", value='{"type": "object", "description": "' + "a" * 30_000 + '"}').value == 1


def wait_until_opened(given: ScorerInput) -> float:
    OPENED.wait(10)
    return 1.0


async def test_slow_answers_of_one_job_leave_threads_to_the_others() -> None:
    outcome = StoredOutcome("m", "m", None, None, Completion((Choice(Answer("a"), "stop"),)))
    slow = ANY_SCORER.validate_python({"type": "python", "function": f"{__name__}.wait_until_opened"})
    held, other = JobScorer([(1, slow)]), JobScorer([(2, ANY_SCORER.validate_python({"type": "length"}))])
    waiting = [asyncio.create_task(held.score("{}", outcome)) for _ in range(8)]
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(5):
            (found,) = await other.score("{}", outcome)
    finally:
        OPENED.set()
    assert found.value == 1
    assert [scores[0].value for scores in await asyncio.gather(*waiting)] == [1.0] * 8


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("abc", 1),
        ("a{3}", 3),
        ("a{2,5}", 5),
        ("a{4,}", 4),
        ("(?:a{3}b{5}){4}", 20),
        ("(?:(?:a?){1000}){1000}b", 1_000_000),
        (r"\(a{3}\){4}", 4),
        ("[(]{3}[^])]{2}", 3),
        (r"([\]{9}({9}]{2}){3}", 6),
        ("a{,7}", 7),
        ("a{x}b{y}", 1),
        (r"\p{Lu}{6}", 6),
    ],
)
def test_counts_within_counts_are_multiplied(pattern: str, count: int) -> None:
    assert limits.count_repeats(pattern) == count


def test_a_pattern_of_counts_within_counts_is_refused_before_it_takes_memory() -> None:
    with pytest.raises(ValidationError, match="repeats a part of it 1,000,000 times, one count within another; at most 10,000"):
        ANY_SCORER.validate_python({"type": "regex", "pattern": "(?:(?:a?){1000}){1000}b"})
