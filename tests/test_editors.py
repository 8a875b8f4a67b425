"""The library in editors and notebooks: what Pyright refuses and accepts, and what IPython completes."""

from __future__ import annotations

import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import fanout
from fanout.api.jobs import JobOptions
from fanout.api.questions import AskOptions, RunOptions
from tests.support.cli import run_command

ROOT = Path(__file__).parents[1]
PYRIGHT = ROOT / ".venv-clients" / "pyright" / "bin" / "basedpyright"
USES = """
import asyncio
from pathlib import Path

import fanout

answers = fanout.ask_sync("The with statement", ["local/ngram-3", "local/ngram-5"], max_tokens=12, seed=7, stop="x")
for answer in answers:
    print(answer.label.upper(), answer.text.split(), answer.total_s + 1, answer.cost_usd, answer.usage.output_tokens)
first = answers["local/ngram-3"]
if first.failure is not None:
    print(first.failure.kind, first.failure.status, str(first.failure))
rows = answers.to_records()


async def main() -> None:
    past: list[dict[str, object]] = [{"role": "user", "content": "Hello"}]
    one = await fanout.ask(past, {"model": "local/ngram-5", "temperature": 0}, images=[Path("a.png"), b"", "https://a.example"])
    print(one.totals.output_tokens, one[0].choice, len(one))
    async for piece in fanout.ask_stream("A class", "local/ngram-3", max_tokens=8):
        print(piece.label, piece.text, piece.choice and piece.choice.ttft_s)
    async with fanout.open_dispatcher(fanout.load_settings()) as dispatcher:
        print(await fanout.ask("x", "local/ngram-3", dispatcher=dispatcher, temperature=0.5, logit_bias={"1": 2}))
    results = await fanout.run_job(["a", {"prompt": "b"}], "local/ngram-3", repeats=2, max_tokens=3, store="jobs.db")
    print((results.to_records()[0]["text"] or "").upper())
    async with fanout.open_job(["a"] * 3, "local/ngram-3", max_tokens=4) as job:
        async for result in job:
            print(result["text"], job.progress.ended)
    try:
        print(await fanout.ask("x"))
    except (fanout.ConfigError, fanout.RequestError) as error:
        print(error.faults[0].path)


asyncio.run(main())
print(fanout.ask_sync("x", "m", max_tokns=3))  # refused
print(fanout.ask_sync("x", "m", temperature="hot"))  # refused
print(fanout.run_job(["x"], "m", repeat=2))  # refused
print(answers.chioces)  # refused
print(first.txt)  # refused
"""


async def test_pyright_refuses_what_is_misspelt_and_nothing_else(tmp_path: Path) -> None:
    if not PYRIGHT.exists():
        reason = "the environment of `pyright` is missing: run scripts/clients"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    (tmp_path / "uses.py").write_text(USES)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}))
    done = await run_command([str(PYRIGHT), "--project", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"])
    found = json.loads(done.out)["generalDiagnostics"]
    errors = {found["range"]["start"]["line"]: found["message"] for found in found if found["severity"] == "error"}
    lines = [number for number, line in enumerate(USES.splitlines()) if "# refused" in line]
    assert sorted(errors) == lines, errors


COMPLETIONS: dict[str, set[str]] = {
    "fanout.": set(fanout.__all__),
    "fanout.ask('a', max_t": {"max_tokens="},
    "answers[0].": {"text", "label", "usage", "cost_usd", "ttft_s", "total_s", "failure"},
}
"""Text before the cursor → completions."""
NOTEBOOK = """
import json, sys, warnings
warnings.simplefilter("ignore")
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config
import fanout

shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
shell.push({"fanout": fanout, "answers": fanout.ask_sync("The with statement", "local/ngram-2", max_tokens=1)})
with provisionalcompleter():
    texts = json.loads(sys.argv[1])
    print(json.dumps([[found.text for found in shell.Completer.completions(text, len(text))] for text in texts]))
"""


async def test_a_notebook_completes_names_and_keywords(tmp_path: Path) -> None:
    # A home of its own: Jedi, by which IPython completes, keeps a cache there.
    done = await run_command([sys.executable, "-c", NOTEBOOK, json.dumps(list(COMPLETIONS))], HOME=str(tmp_path))
    assert done.code == 0, done.err
    for (text, wanted), found in zip(COMPLETIONS.items(), json.loads(done.out), strict=True):
        names = {name.rpartition(".")[2] for name in found}
        assert wanted <= names, f"{text}: {wanted - names} of {sorted(names)}"


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (fanout.ask, AskOptions),
        (fanout.ask_stream, AskOptions),
        (fanout.ask_sync, RunOptions),
        (fanout.run_job, JobOptions),
        (fanout.open_job, JobOptions),
    ],
)
def test_a_signature_names_every_keyword(function: Any, options: type[Any]) -> None:
    parameters = inspect.signature(function).parameters
    keywords = [name for name, parameter in parameters.items() if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    assert [name for name in keywords if name != "on_progress"] == list(options.__annotations__)
    assert str(parameters["max_tokens"]) == "max_tokens: 'int | None' = ..."
