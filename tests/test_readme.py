"""What README.md and docs/ say is done: every command runs, every answer has the documented form.

A block of `sh` runs in a folder of its own, with a real server in place of http://127.0.0.1:8080. A block of `json` behind it
is its answer, to be equal in keys and types; one with a name is a file. `python -m tests.test_readme` writes the table of
variables.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fanout.config.environment import Environment
from fanout.config.providers_file import ProviderRow
from fanout.jobs.result_records import COLUMNS
from fanout.providers import ADAPTERS
from fanout.requests.thiggle import CompletionBody
from fanout.server.resources.job_bodies import JobBody
from tests.support.cli import FANOUT, CommandResult, describe_shape, run_command, serve_fanout

ROOT = Path(__file__).parents[1]
ADDRESS = "http://127.0.0.1:8080"
DOCUMENTS = ["README.md", "docs/api.md", "docs/batch.md", "docs/providers.md"]
OF_THE_CLONE = {"./scripts/serve", "./scripts/test"}
"""Run by tests/test_scripts.py, or running this test."""


@dataclass(frozen=True, slots=True)
class Block:
    language: str
    name: str
    text: str
    line: int


def blocks(document: str) -> Iterator[Block]:
    """The fenced blocks of a document."""
    text = (ROOT / document).read_text()
    for found in re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", text, re.M | re.S):
        yield Block(found[1], found[2], found[3], text.count("\n", 0, found.start()) + 1)


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A PATH with `fanout` on it; without curl the documents cannot be tried."""
    if not shutil.which("curl"):
        reason = "NO CURL: the documents' requests were not tried; install curl"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "fanout").write_text(f'#!/bin/sh\nexec {" ".join(FANOUT)} "$@"\n')
    (bin_ / "fanout").chmod(0o755)
    return f"{bin_}:{os.environ['PATH']}"


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_every_command_runs_and_every_answer_has_its_documented_form(document: str, tools: str, tmp_path: Path) -> None:
    last, checked = CommandResult(0, "", ""), 0
    store = str(tmp_path / "fanout.db")
    async with serve_fanout() as address:
        for block in blocks(document):
            where = f"{document}:{block.line}"
            if block.language == "sh" and block.text.strip() not in OF_THE_CLONE:
                commands = block.text.replace(ADDRESS, address)
                last = await run_command(["sh", "-euc", commands], cwd=tmp_path, PATH=tools, FANOUT_STORE=store)
                assert last.code == 0, f"{where}: {last.err}{last.out}"
                if "curl" in commands:
                    _check_answered(last.out, where)
            elif block.name:
                (tmp_path / block.name).write_text(block.text)
            elif block.language == "python":
                told = await run_command([sys.executable, "-c", block.text.replace(ADDRESS, address)], cwd=tmp_path)
                assert (told.code, told.err) == (0, ""), where
            elif block.language == "json":
                assert describe_shape(json.loads(last.out)) == describe_shape(json.loads(block.text)), where
            elif block.language == "text":
                _check_stream(block.text, last.out, where)
            checked += 1
    assert checked > 5


def _check_answered(out: str, where: str) -> None:
    """JSON, whole or as a stream that comes to its end."""
    if out.startswith("data: "):
        assert out.endswith("data: [DONE]\n\n"), where
    else:
        assert json.loads(out), where


def _check_stream(documented: str, out: str, where: str) -> None:
    """Every documented line has a line of its form in the stream; their texts and times differ."""
    forms = [_form(line) for line in out.splitlines() if line]
    for line in documented.splitlines():
        assert not line or _form(line) in forms, f"{where}: {line}"


def _form(line: str) -> Any:
    return describe_shape(json.loads(line[6:])) if line.startswith("data: {") else line


def table() -> str:
    """The variables as Markdown."""
    rows = [
        f"| `FANOUT_{name.upper()}` | {field.description} | {_default(field.default)} |"
        for name, field in Environment.model_fields.items()
    ]
    return "\n".join(["| variable | meaning | default |", "|---|---|---|", *rows])


def _default(value: Any) -> str:
    return "" if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value)


def with_table(text: str) -> str:
    """A document with the table between its marks."""
    begin, end = re.search(r"<!-- environment:.*-->\n", text), text.index("<!-- /environment -->")
    assert begin
    return f"{text[: begin.end()]}{table()}\n{text[end:]}"


def test_the_table_of_variables_is_the_programs_own() -> None:
    text = (ROOT / "README.md").read_text()

    assert text == with_table(text), "run `python -m tests.test_readme`"


def test_every_field_of_a_request_is_documented() -> None:
    named = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/api.md").read_text().split("## The answer")[0], re.M)

    assert sorted(named) == sorted(CompletionBody.model_fields)


def test_every_field_of_a_job_is_documented() -> None:
    section = (ROOT / "docs/api.md").read_text().split("## Jobs")[1].split("```sh")[0]
    named = [name for line in re.findall(r"^\| (`[^|]+) \|", section, re.M) for name in re.findall(r"`(\w+)`", line)]

    assert sorted(named) == sorted(JobBody.model_fields)


def test_every_field_of_a_provider_and_every_adapter_is_documented() -> None:
    section = (ROOT / "docs/operations.md").read_text().split("A provider's row:")[1].split("## Keys")[0]

    assert set(ProviderRow.model_fields) | set(ADAPTERS) <= set(re.findall(r"`([^`]+)`", section))


def test_every_column_of_results_is_documented() -> None:
    table_ = re.search(r"<!-- columns -->(.*)<!-- /columns -->", (ROOT / "docs/batch.md").read_text(), re.S)
    assert table_
    named = [name for row in re.findall(r"^\| (`.+?) \|", table_[1], re.M) for name in re.findall(r"`(\w+)`", row)]

    assert sorted(named) == sorted(COLUMNS)


def test_every_link_has_a_target() -> None:
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_no_document_names_a_place_outside_the_project() -> None:
    for document in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        assert not re.search(r"/(work|root|home|tmp)/", document.read_text()), document.name


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(with_table(readme.read_text()))
