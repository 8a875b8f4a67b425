"""README.md and docs/: every command runs, also in a year, every answer has the documented form, and every link leads on.

The commands run in an environment with no more packages than `./scripts/serve` installs.

A block of `sh` runs in a folder of its own, with a real server in place of http://127.0.0.1:8080. A block of `json` after it
is its answer and must have the same keys and types; a block with a name is a file. `python -m tests.test_readme` writes the
table of variables in docs/operations.md.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fanout.config.environment import Environment
from fanout.config.providers_file import ProviderRow
from fanout.core.attribute_docs import find_attribute_doc
from fanout.jobs.result_records import COLUMNS
from fanout.providers import ADAPTERS
from fanout.requests.thiggle import CompletionBody
from fanout.server.resources.job_bodies import JobBody
from tests.support.cli import CommandResult, describe_shape, run_command, serve_fanout
from tests.support.documents import ROOT, load_script, read_blocks, replace_part
from tests.support.served_environment import make_served_environment

ADDRESS = "http://127.0.0.1:8080"
OPERATIONS = ROOT / "docs" / "operations.md"
RUN_ELSEWHERE = ("./scripts/", ". .venv/bin/activate", "pip install ")
"""How blocks begin that install something: tests/test_scripts.py and tests/test_package.py run them."""
DOCUMENTS = [
    document
    for document in ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))
    if any(block.language in ("sh", "python") and not block.text.startswith(RUN_ELSEWHERE) for block in read_blocks(document))
]
YEAR_AHEAD = {"FAKETIME": "+365d", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}
"""Monotonic clocks stay as they are: with another setting, waits for a lock never end, or end at once and start again."""
SLEEP = """import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds)
"""
"""Run at the start of each Python: under libfaketime 0.9.10 the system's own sleep until a monotonic time fails (EINVAL)."""


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a machine that has run `./scripts/serve` alone."""
    return str(make_served_environment(tmp_path_factory.mktemp("served") / ".venv"))


@pytest.fixture
def tools(python: str, tmp_path: Path) -> str:
    """A PATH with `fanout` on it; without curl the documents cannot be tried."""
    if not shutil.which("curl"):
        skip_or_fail("NO CURL: the documents' requests were not tried; install curl")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "fanout").write_text(f'#!/bin/sh\nexec {python} -m fanout "$@"\n')
    (programs / "fanout").chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


def skip_or_fail(reason: str) -> None:
    """Skip a test whose tool is missing, but fail where all are expected."""
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def set_clock(folder: Path) -> dict[str, Any]:
    """Return the variables under which a program takes a day in a year for today; none where there is no libfaketime."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return {}
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLEEP)
    return {**YEAR_AHEAD, "LD_PRELOAD": str(library), "PYTHONPATH": f"{folder}:{ROOT}"}


def test_the_documents_are_tried_under_a_later_date(tmp_path: Path) -> None:
    if not set_clock(tmp_path / "clock"):
        skip_or_fail("NO LIBFAKETIME: the documents were tried under today's date alone; install libfaketime")


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_every_command_runs_and_every_answer_has_its_documented_form(
    document: str, python: str, tools: str, tmp_path: Path
) -> None:
    """In a year, which includes today: names that are not dated by then are not dated now."""
    last, clock = CommandResult(0, "", ""), set_clock(tmp_path / "clock")
    variables = {**clock, "PATH": tools, "FANOUT_STORE": str(tmp_path / "fanout.db"), "XDG_CONFIG_HOME": str(tmp_path / "own")}
    async with serve_fanout(command=(python, "-m", "fanout"), **clock) as address:
        for block in read_blocks(document):
            where, text = f"{document}:{block.line}", block.text.replace(ADDRESS, address)
            if block.name:
                (tmp_path / block.name).write_text(block.text)
            elif block.language == "sh" and not text.startswith(RUN_ELSEWHERE):
                last = await run_command(["sh", "-euc", text], cwd=tmp_path, **variables)
                assert last.code == 0, f"{where}: {last.err}{last.out}"
                if "curl" in text:
                    _check_answer(last.out, where)
            elif block.language == "python":
                done = await run_command([python, "-c", text], cwd=tmp_path, **variables)
                assert (done.code, done.err) == (0, ""), where
            elif block.language == "json":
                _check_documented(json.loads(block.text), json.loads(last.out), where)
            elif block.language == "text":
                _check_stream(block.text, last.out, where)


def _check_answer(out: str, where: str) -> None:
    """Check that it is JSON, whole or as a stream that comes to its end."""
    if out.startswith(("data: ", "id: ")):
        assert out.endswith("data: [DONE]\n\n"), where
    else:
        assert json.loads(out), where


def _check_documented(documented: Any, answer: Any, where: str) -> None:
    """Check an answer against the document: equal if it is an error, else of the same shape, for texts and times differ."""
    if "error" in documented:
        assert answer == documented, where
    assert describe_shape(answer) == describe_shape(documented), where


def _check_stream(documented: str, out: str, where: str) -> None:
    """Check that every documented line has a line of its form in the stream; their texts and times differ."""
    forms = [_describe_line(line) for line in out.splitlines() if line]
    for line in documented.splitlines():
        assert not line or _describe_line(line) in forms, f"{where}: {line}"


def _describe_line(line: str) -> Any:
    return describe_shape(json.loads(line[6:])) if line.startswith("data: {") else line


async def test_the_picture_in_the_readme_is_what_its_command_shows() -> None:
    """Labels, figures and the failure; the embedded models' answers differ with the Python whose documentation they learnt."""
    picture = load_script("picture")
    kept = picture.FILE.read_text()

    assert picture.FILE.stat().st_size < 60_000
    assert "http://" not in kept.replace("http://www.w3.org/", ""), "a picture in a page may load nothing"
    assert _read_texts(kept) == _read_texts(picture.draw(await picture.run()))


def _read_texts(svg: str) -> Mapping[str, str]:
    """Return a picture's words by their style, with every number as `0`, without the answers."""
    texts: dict[str, str] = {}
    for style, text in re.findall(r'<text class="fanout-(\w+)"[^>]*>([^<]*)', svg):
        texts[style] = " ".join([texts.get(style, ""), *html.unescape(text).split()])
    # A busy machine may take a millisecond before a call begins, which is then shown.
    texts = {style: re.sub(r"queued \d+ ms ·\s*", "", text) for style, text in texts.items()}
    texts["r1"] = texts["r1"][: texts["r1"].index("--seed")]  # the answers have the style of the command before them
    return {
        style: re.sub(r"[\d.]+|[│╭╮╰╯─]", lambda found: "0" if found[0][0].isdigit() else "", text)
        for style, text in texts.items()
    }


def render_table() -> str:
    """Render the variables as Markdown."""
    rows = [
        f"| `FANOUT_{name.upper()}` | {find_attribute_doc(Environment, name)} | {_render_default(field.default)} |"
        for name, field in Environment.model_fields.items()
    ]
    return "\n".join(["| variable | meaning | default |", "|---|---|---|", *rows])


def _render_default(value: Any) -> str:
    return "" if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value)


def test_the_table_of_variables_matches_the_program() -> None:
    text = OPERATIONS.read_text()

    assert text == replace_part(text, "environment", render_table()), "run `python -m tests.test_readme`"


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
    columns = re.search(r"<!-- columns -->(.*)<!-- /columns -->", (ROOT / "docs/batch.md").read_text(), re.S)
    assert columns
    named = [name for row in re.findall(r"^\| (`.+?) \|", columns[1], re.M) for name in re.findall(r"`(\w+)`", row)]

    assert sorted(named) == sorted(COLUMNS)


def list_documents() -> Iterator[Path]:
    for folder in (ROOT, ROOT / "docs", ROOT / "examples"):
        yield from folder.glob("*.md")


def list_anchors(document: Path) -> set[str]:
    """Return the names under which a document's headings can be linked to."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_link_leads_to_a_file_and_a_heading() -> None:
    for document in list_documents():
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text()):
            to = document.parent / target if target else document
            assert to.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in list_anchors(to), f"{document.name}: {target}#{anchor}"


def test_no_document_names_a_place_outside_the_project() -> None:
    for document in list_documents():
        assert not re.search(r"/(work|root|home|tmp)/", document.read_text()), document.name


if __name__ == "__main__":
    OPERATIONS.write_text(replace_part(OPERATIONS.read_text(), "environment", render_table()))
