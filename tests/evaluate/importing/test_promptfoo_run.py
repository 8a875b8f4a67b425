"""A configuration run by promptfoo itself, and imported here: the same tests pass.

`promptfoo_run/results.json` has what promptfoo 0.123.1 found when Fanout was its provider (`promptfoo eval -c config.json -o
out.json`): 147 tests of every assertion that is taken. Where promptfoo is installed, it runs again.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.support.builders.settings import write_providers_file
from tests.support.cli import run_fanout, serve_fanout
from tests.support.upstream.canned import serve_answers

FOLDER = Path(__file__).with_name("promptfoo_run")
PATIENCE_S = 300
QUIET = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "PROMPTFOO_DISABLE_UPDATE": "1", "PROMPTFOO_CACHE_ENABLED": "false"}


async def repeat(request: web.Request) -> web.Response:
    """Answer as a model that does as it is bid: with what follows "Say: "."""
    body = await request.json()
    message = {"role": "assistant", "content": body["messages"][-1]["content"].removeprefix("Say: ")}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


@asynccontextmanager
async def serve_parrot(folder: Path) -> AsyncGenerator[Path]:
    """Serve a model that repeats, and yield the configuration that knows it as `up/parrot`."""
    async with serve_answers(repeat) as upstream:
        yield write_providers_file(f"{upstream.url}/v1", folder, retries={"attempts": 1})


def read_results() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((FOLDER / "results.json").read_text())["results"]
    return found


async def test_an_imported_configuration_passes_the_tests_that_promptfoo_passes(tmp_path: Path) -> None:
    store, wanted = str(tmp_path / "jobs.db"), read_results()
    async with serve_parrot(tmp_path) as config:
        options = ("-m", "up/parrot", "--config", str(config))
        imported = await run_fanout(
            "import", "promptfoo", str(FOLDER / "config.json"), *options, cwd=tmp_path, FANOUT_STORE=store
        )
        exported = await run_fanout("batch", "export", "last", "--config", str(config), cwd=tmp_path, FANOUT_STORE=store)
    rows = [json.loads(line) for line in exported.out.splitlines()]
    passed = sum(one["success"] for one in wanted)

    assert imported.code == 0, imported.err
    assert f"assertions: up/parrot: {passed} of {len(wanted)} pass" in imported.out
    assert [(row["prompt"], row["scores"]["assertions"]["value"] == 1) for row in rows] == [
        (one["prompt"], one["success"]) for one in wanted
    ]


async def test_promptfoo_finds_again_what_is_recorded(tmp_path: Path) -> None:
    if (program := shutil.which("promptfoo")) is None:
        # Not among the environments of scripts/clients: it brings hundreds of packages, and needs a newer node than theirs.
        pytest.skip(
            "NO PROMPTFOO: its recorded results were used alone; on Node 22.22 or newer, `npm install -g promptfoo@0.123.1` "
            "brings it, and this test runs it"
        )
    async with serve_parrot(tmp_path) as config, serve_fanout("--config", str(config)) as address:
        text = (FOLDER / "config.json").read_text().replace("ADDRESS", address).replace("up/echo", "up/parrot")
        (tmp_path / "config.json").write_text(text)
        process = await asyncio.create_subprocess_exec(
            *(program, "eval", "-c", "config.json", "-o", "out.json", "--no-cache", "--no-table", "--no-write"),
            cwd=tmp_path,
            env={**os.environ, **QUIET, "PROMPTFOO_CONFIG_DIR": str(tmp_path / "home")},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(PATIENCE_S):
            await process.wait()
    found = json.loads((tmp_path / "out.json").read_text())["results"]["results"]
    found.sort(key=lambda one: (one["testIdx"], one["promptIdx"]))

    assert [{"prompt": one["prompt"]["raw"], "success": one["success"]} for one in found] == read_results()
