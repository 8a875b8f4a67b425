"""Texts that users give in files, as editors and shells write them: with a byte order mark, and other line ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from fanout.cli.ask.answer_schema import AnswerSchema
from fanout.cli.ask.templates import find_path, read_template
from fanout.evaluate.importing.promptfoo import read_promptfoo

MARK = "\ufeff"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"{MARK}{text}\r\n".encode())
    return path


@pytest.mark.parametrize("text", ["age int", '{"type": "object", "properties": {"age": {"type": "integer"}}}'])
def test_a_schema_is_read_without_its_mark(text: str, tmp_path: Path) -> None:
    schema = AnswerSchema.parse(f"@{write(tmp_path / 'schema.txt', text)}").schema
    assert schema["properties"] == {"age": {"type": "integer"}}


def test_a_saved_question_is_read_without_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write(find_path("sum"), '{"prompt": "Sum up {{input}}"}')
    assert read_template("sum").prompt == "Sum up {{input}}"


@pytest.mark.parametrize("name", ["config.json", "config.yaml"])
def test_promptfoos_prompts_are_read_without_their_marks(name: str, tmp_path: Path) -> None:
    write(tmp_path / "one.txt", "Say é\r\n---\r\nSay b")
    write(tmp_path / "two.md", "Say c")
    tests = '{"prompts": ["file://one.txt", "file://two.md"], "providers": ["openai:gpt-6-luna"], "tests": [{"vars": {}}]}'
    rows = read_promptfoo(write(tmp_path / name, tests)).rows
    assert [row["prompt"] for row in rows] == ["Say é", "Say b", "Say c"]
