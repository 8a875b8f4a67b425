"""Every file of examples/ runs as its first lines describe."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.cli import run_command, run_fanout, serve_fanout
from tests.support.documents import ROOT

EXAMPLES = ROOT / "examples"
NODE = ROOT / ".venv-clients" / "aimock" / "node"


def test_every_example_is_listed_and_run_here() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    names = {path.name for path in EXAMPLES.iterdir() if path.name != "__pycache__"}

    assert names == {"README.md", "compare_models.py", "compare.ipynb", "prompts.jsonl", "dashboard.mjs"}
    assert [name for name in names - {"README.md"} if f"]({name})" not in listed] == []


async def test_the_script_compares_two_models_and_sums_their_usage(tmp_path: Path) -> None:
    done = await run_command([sys.executable, str(EXAMPLES / "compare_models.py")], cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert done.out.count("local/ngram-3:") == done.out.count("local/ngram-5:") == 3
    assert done.out.splitlines()[-2].split()[:2] == ["local/ngram-3", "60"]


async def test_the_script_shows_a_failure_beside_the_other_models_answer(tmp_path: Path) -> None:
    done = await run_command([sys.executable, str(EXAMPLES / "compare_models.py"), "local/ngram-3", "local/nix"], cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert "local/nix: " in done.out


async def test_the_batch_file_gives_a_row_for_every_prompt_and_model(tmp_path: Path) -> None:
    models = ["-m", "local/ngram-3", "-m", "local/ngram-5"]
    results = tmp_path / "results.csv"
    done = await run_fanout(
        *["batch", "run", str(EXAMPLES / "prompts.jsonl"), *models, "-o", str(results)], FANOUT_STORE=str(tmp_path / "store.db")
    )

    assert done.code == 0, done.err
    with results.open(newline="") as file:
        rows = [(row["custom_id"], row["model"], bool(row["reference"])) for row in csv.DictReader(file)]
    assert rows == [(name, f"local/ngram-{n}", True) for name in ("return", "class", "with") for n in (3, 5)]


async def test_the_dashboard_prints_usage_and_the_ready_providers(tmp_path: Path) -> None:
    if not NODE.exists():
        reason = "NO NODE: `scripts/clients aimock` brings it"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    async with serve_fanout() as address:
        ask = [
            "curl",
            "-s",
            f"{address}/v1/completion",
            "-d",
            '{"model": "local/ngram-2", "prompt": "A class", "max_tokens": 2, "seed": 1}',
        ]
        await run_command([*ask, "-H", "Content-Type: application/json"], cwd=tmp_path)
        done = await run_command([str(NODE), str(EXAMPLES / "dashboard.mjs"), address], cwd=tmp_path)

    assert (done.code, done.err) == (0, "")
    assert "local/ngram-2: 1 calls, 0 failed, 4 tokens, 0 USD" in done.out.splitlines()
    assert "local: ready, 1 calls in the last five minutes" in done.out.splitlines()


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    shutil.copy(EXAMPLES / "compare.ipynb", tmp_path)
    notebook: Any = nbformat.read(tmp_path / "compare.ipynb", as_version=4)  # type: ignore[no-untyped-call]

    NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()

    outputs = ["".join(str(output) for output in cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert "local/ngram-2" in outputs[1]
    assert "text/html" in outputs[1]
    assert "output_tokens" in outputs[2]
    assert "cold" in outputs[3]
    assert "done, 4 of 4 calls answered" in outputs[4]
