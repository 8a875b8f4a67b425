"""Configurations of promptfoo: what is taken, what is named, and assertions that mean what they mean there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.importing.promptfoo import read_promptfoo
from fanout.evaluate.scorers.assertions import AssertionsScorer
from fanout.evaluate.scorers.scorer import ScorerInput

CONFIG = """
description: greetings
prompts:
  - 'Say {{word}} to {{ person.name }}'
  - id: file://chat.json
    label: chat
providers:
  - openai:chat:gpt-6-luna
  - id: anthropic:messages:claude-x
    label: claude
    config: {temperature: 0, apiKey: secret}
  - python:my_provider.py
defaultTest:
  vars: {person: {name: Ada}}
  assert:
    - {type: javascript, value: output.length < 10}
tests:
  - vars: {word: [yes, no]}
    assert:
      - {type: icontains, value: '{{word}}'}
      - {type: llm-rubric, value: is polite}
  - vars: {word: maybe}
    threshold: 0.5
    assert:
      - {type: equals, value: maybe, weight: 2}
      - {type: not-contains, value: sorry}
    options: {transform: output.trim()}
sharing: false
"""


def test_prompts_times_tests_become_rows_and_what_is_not_taken_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat.json").write_text('[{"role": "user", "content": "{{word}}?"}]')
    (tmp_path / "promptfooconfig.yaml").write_text(CONFIG)
    found = read_promptfoo(tmp_path / "promptfooconfig.yaml")

    assert found.models == [
        {"model": "openai/gpt-6-luna"},
        {"model": "anthropic/claude-x", "label": "claude", "temperature": 0},
    ]
    assert [row.get("prompt", row.get("messages")) for row in found.rows] == [
        "Say yes to Ada",
        [{"role": "user", "content": "yes?"}],
        "Say no to Ada",
        [{"role": "user", "content": "no?"}],
        "Say maybe to Ada",
        [{"role": "user", "content": "maybe?"}],
    ]
    assert found.rows[2]["assert"] == [{"type": "icontains", "value": "no"}]
    assert (found.rows[0]["rubric"], found.has_rubrics, "rubric" in found.rows[4]) == ("is polite", True, False)
    assert found.rows[4]["assert_threshold"] == 0.5
    assert dict(found.not_taken) == {
        "`sharing`": 1,
        "`apiKey` of providers": 1,
        "provider `python:my_provider.py`": 1,
        "`options` of tests": 1,
        "assertion `javascript`": 3,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML"),
        ("tests: []", "has no `prompts`"),
        ("prompts: ['{{ a | upper }}']", "uses filters or statements of Nunjucks"),
        ("prompts: ['p']\ntests: file://t.csv", "`file://t.csv` is not read"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(RequestError) as refused:
        read_promptfoo(tmp_path / "c.yaml")

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("assertion", "text", "holds"),
    [
        ({"type": "equals", "value": "yes"}, "yes", True),
        ({"type": "equals", "value": "yes"}, "yes ", False),
        ({"type": "equals", "value": 3}, "3", True),
        ({"type": "equals", "value": {"a": [1]}}, '{"a": [1.0]}', True),
        ({"type": "contains", "value": "es"}, "yes", True),
        ({"type": "not-contains", "value": "es"}, "yes", False),
        ({"type": "icontains", "value": "ES"}, "yes", True),
        ({"type": "contains-all", "value": ["a", "b"]}, "ab", True),
        ({"type": "contains-all", "value": "a, c"}, "ab", False),
        ({"type": "contains-any", "value": ["c", "b"]}, "ab", True),
        ({"type": "icontains-all", "value": ["A", "B"]}, "ab", True),
        ({"type": "icontains-any", "value": ["X"]}, "ab", False),
        ({"type": "starts-with", "value": "a"}, "ab", True),
        ({"type": "regex", "value": "^a.$"}, "ab", True),
        ({"type": "regex", "value": "(a+)+$"}, "a" * 4000 + "b", False),
        ({"type": "is-json"}, '{"a": 1}', True),
        ({"type": "is-json"}, 'so: {"a": 1}', False),
        ({"type": "is-json", "value": {"required": ["b"]}}, '{"a": 1}', False),
        ({"type": "is-json", "value": {"format": "date-time"}}, '"2026-11-27T08:15:00.5Z"', True),
        ({"type": "is-json", "value": {"format": "date-time"}}, '"2026-02-30T08:15:00Z"', False),
        ({"type": "is-json", "value": {"format": "date-time"}}, '"2026-11-27 08:15"', False),
        ({"type": "is-json", "value": {"format": "time"}}, '"08:15:00+01:00"', True),
        ({"type": "is-json", "value": {"format": "time"}}, '"8:15"', False),
        ({"type": "is-json", "value": {"$ref": "http://127.0.0.1:1/x"}}, "{}", False),
        pytest.param({"type": "is-json", "value": {"pattern": "^(a|aa)+$"}}, f'"{"a" * 100}!"', False, id="a slow pattern"),
        ({"type": "is-json", "value": {"$ref": "#"}}, "{}", False),
        ({"type": "contains-json"}, 'so: {"a": 1}.', True),
        ({"type": "contains-json", "value": {"type": "array"}}, 'so: {"a": [1]}', False),
        ({"type": "contains-json"}, "no { json", True),
        pytest.param({"type": "contains-json"}, "{" * 100_000, False, id="nothing but braces"),
        pytest.param({"type": "contains-json"}, "{&a [1], *a}", False, id="references"),
        pytest.param({"type": "not-is-json", "value": {"$ref": "http://127.0.0.1:1/x"}}, "{}", False, id="no such schema"),
        ({"type": "levenshtein", "value": "kitten", "threshold": 3}, "sitting", True),
        ({"type": "levenshtein", "value": "kitten", "threshold": 2}, "sitting", False),
        ({"type": "latency", "threshold": 600}, "", True),
        ({"type": "latency", "threshold": 400}, "", False),
        ({"type": "cost", "threshold": 0.001}, "", False),
    ],
    ids=str,
)
def test_an_assertion_means_what_it_means_in_promptfoo(assertion: dict[str, Any], text: str, holds: bool) -> None:
    given = ScorerInput(text, columns={"assert": [assertion]}, call_s=0.5, cost_usd=0.002)

    assert AssertionsScorer().score(given).value == holds


def test_all_assertions_must_hold_or_as_much_weight_as_the_threshold_asks_for() -> None:
    listed = [{"type": "contains", "value": "a", "weight": 3}, {"type": "contains", "value": "z"}]
    both = ScorerInput("a", columns={"assert": listed})
    enough = ScorerInput("a", columns={"assert": listed, "assert_threshold": 0.75})
    unknown = ScorerInput("a", columns={"assert": [{"type": "javascript", "value": "1"}]})

    assert (AssertionsScorer().score(both).value, AssertionsScorer().score(enough).value) == (0, 1)
    assert AssertionsScorer().score(both).explanation == "`contains` does not hold: z"
    assert AssertionsScorer().score(unknown).value is None
    assert AssertionsScorer().score(ScorerInput("a")).explanation == "the row has no `assert`"
