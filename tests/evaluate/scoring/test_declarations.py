"""Declarations of scorers: what is accepted, what is refused and how, and what is stored."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from fanout.core.errors import RequestError
from fanout.evaluate.scoring.declarations import MAX_SCORERS, parse_scorers, to_declaration, to_new_scorer


def test_a_name_stands_for_a_scorer_without_options() -> None:
    named, written = parse_scorers(["exact", {"type": "exact", "name": "same"}], allow_functions=False)

    assert (named.label, written.label) == ("exact", "same")
    assert named.version == written.version, "a name changes no score"


def test_a_declaration_reads_back_as_the_same_scorer() -> None:
    declared: list[Any] = [
        {"type": "regex", "pattern": "^yes", "name": "agrees"},
        {"type": "json_schema", "schema": {"type": "object"}},
        {"type": "numeric", "absolute": 0.5},
        {"type": "length", "unit": "tokens"},
    ]
    scorers = parse_scorers(declared, allow_functions=False)
    again = parse_scorers([to_declaration(scorer) for scorer in scorers], allow_functions=False)

    assert again == scorers
    assert [to_new_scorer(scorer).version for scorer in again] == [scorer.version for scorer in scorers]


@pytest.mark.parametrize(
    ("declared", "path", "words"),
    [
        ("exat", "scorers[0].type", "did you mean `exact`?"),
        ({}, "scorers[0].type", "is required; known: exact, contains"),
        ({"type": "numeric", "absolut": 1}, "scorers[0].absolut", "did you mean `absolute`?"),
        ({"type": "numeric", "absolute": -1}, "scorers[0].absolute", "greater than or equal to 0"),
        ({"type": "regex", "pattern": "(a"}, "scorers[0]", "is not a regular expression"),
        ({"type": "json_schema", "schema": {"type": "objct"}}, "scorers[0]", "is not a JSON Schema"),
        ({"type": "python", "function": "os.system"}, "scorers[0].type", "runs code"),
        (7, "scorers[0]", "a scorer's name, or an object"),
    ],
)
def test_a_wrong_declaration_is_refused_with_its_place_and_what_is_allowed(declared: Any, path: str, words: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_scorers([declared], allow_functions=False)

    (fault,) = raised.value.faults
    assert fault.path == path
    assert words in fault.message


def test_two_scorers_of_one_name_and_too_many_are_refused() -> None:
    with pytest.raises(RequestError, match=r"scorers\[1\].name: `exact` is taken by `scorers\[0\]`"):
        parse_scorers(["exact", {"type": "exact", "ignore_case": True}], allow_functions=False)
    with pytest.raises(RequestError, match="at most 32"):
        parse_scorers(["exact"] * (MAX_SCORERS + 1), allow_functions=False)


def test_without_the_extra_the_sentence_says_how_to_install_it() -> None:
    program = """
import sys
sys.modules["regex"] = None
from fanout.core.errors import RequestError
from fanout.evaluate.scoring.declarations import parse_scorers
try:
    parse_scorers(["exact"], allow_functions=False)
except RequestError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "pip install -e '.[evaluate]'" in result.stdout


def test_neither_the_server_nor_the_commands_load_statistics_or_scorers() -> None:
    program = """
import sys
import fanout.cli.ask, fanout.cli.batch.local_jobs, fanout.cli.evaluate, fanout.server.app
print([name for name in ("numpy", "scipy", "statsmodels", "evalica", "regex", "jsonschema", "pandas") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
