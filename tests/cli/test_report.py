"""`fanout report --html` as a process, with the job here and on a server."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

from tests.support.builders.settings import write_providers_file
from tests.support.cli import CommandResult, run_fanout, serve_fanout
from tests.support.upstream.server import Upstream


def read_block(document: str, name: str) -> Any:
    """Return what is packed in a block of the file."""
    found = re.search(f'<script type="application/gzip" id="{name}">([^<]+)</script>', document)
    assert found, name
    return json.loads(gzip.decompress(b64decode(found[1])))


async def test_the_file_is_the_same_from_here_and_from_a_server(tmp_path: Path, upstream: Upstream) -> None:
    config = write_providers_file(upstream.url, tmp_path, retries={"attempts": 1})
    rows = [{"prompt": f"question {number}", "reference": "yes"} for number in range(20)]
    (tmp_path / "in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    store = str(tmp_path / "jobs.db")

    async def run(*arguments: str) -> CommandResult:
        return await run_fanout(*arguments, "--config", str(config), cwd=tmp_path, FANOUT_STORE=store)

    models = ("-m", "up/say-yes", "-m", "up/say-no", "-m", "up/status-500")
    await run("batch", "run", "in.jsonl", *models, "--scorer", "exact")
    here = await run("report", "last", "--html", "here.html")
    async with serve_fanout("--config", str(config), FANOUT_STORE=store) as address:
        remote = await run("report", "last", "--html", "remote.html", "--server", address)
    both = await run("report", "last", "--json", "--html", "never.html")

    assert (here.code, here.out, remote.code) == (0, "", 0), here.err + remote.err
    document = (tmp_path / "here.html").read_text()
    assert document == (tmp_path / "remote.html").read_text()
    assert "exact: up/say-yes is best" in document
    index = read_block(document, "index")
    assert (index["models"], index["items"], set(index["flags"])) == (["up/say-yes", "up/say-no", "up/status-500"], 20, {"3"})
    first = read_block(document, "chunk-0")[0]
    assert [cells[0].get("t") for cells in first["a"]] == ["yes", "no", None]
    assert first["a"][2][0]["e"] == "server"
    assert (both.code, "--html writes a file and --json prints: choose one" in both.err) == (2, True)
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["here.html", "remote.html"]
