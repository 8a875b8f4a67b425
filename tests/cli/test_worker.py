"""`fanout worker` and `fanout workers`: real processes on one PostgreSQL database."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fanout.cli.batch.local_jobs import open_local_jobs
from fanout.config.settings import load_settings
from tests.support.builders.jobs import open_jobs
from tests.support.builders.settings import write_providers_file
from tests.support.cli import PATIENCE_S, Process, end, read_until, run_fanout, start_fanout, start_server
from tests.support.documents import read_blocks
from tests.support.postgres import PASSWORD
from tests.support.upstream.server import Upstream

UNITS = 30
pytestmark = pytest.mark.parametrize("location", ["postgresql"], indirect=True)


@asynccontextmanager
async def start_worker(config: str, *options: str, **variables: Any) -> AsyncGenerator[tuple[Process, str]]:
    """Start a worker; yield it with what it has printed once it has joined."""
    async with start_fanout("worker", "--config", config, "--port", "0", *options, **variables) as process:
        yield process, await read_until(process, "health: ")


async def fetch(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as response:
        assert response.status == 200, await response.text()
        return await response.json() if response.content_type == "application/json" else await response.text()


async def create_job(session: aiohttp.ClientSession, url: str, model: str, count: int) -> str:
    body = {"models": [model], "items": [{"prompt": f"q{number}"} for number in range(count)]}
    async with session.post(f"{url}/v1/jobs", json=body) as response:
        assert response.status == 201, await response.text()
        return str((await response.json())["id"])


async def wait_for_state(session: aiohttp.ClientSession, url: str, job_id: str, state: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await fetch(session, f"{url}/v1/jobs/{job_id}"))["state"] != state:
            await asyncio.sleep(0.02)


async def test_workers_run_what_a_server_takes_and_leave_it_to_others_when_they_end(
    upstream: Upstream, tmp_path: Path, location: str
) -> None:
    config = write_providers_file(upstream.url, tmp_path)
    async with start_server(config, FANOUT_WORK="off", FANOUT_STORE=location) as server, aiohttp.ClientSession() as session:
        job = await create_job(session, server.url, "up/sleep-0.05", UNITS)
        other = await create_job(session, server.url, "local/ngram-2", 2)
        async with start_worker(str(config), "--accounts", "local", "--url", location) as (local, greeting):
            await wait_for_state(session, server.url, other, "done")
            # Older than the other one: the worker has passed it over, and the server runs nothing.
            assert (await fetch(session, f"{server.url}/v1/jobs/{job}"))["state"] == "queued"
            assert upstream.requests == []
            async with start_worker(str(config), "--accounts", "up", FANOUT_STORE=location) as (worker, _):
                await upstream.wait_for_requests(UNITS // 3)
                shown = (await fetch(session, f"{server.url}/v1/workers"))["data"]
                code, log = await end(worker)
            sent = len(upstream.requests)
            assert (await fetch(session, f"{server.url}/v1/jobs/{job}"))["state"] == "queued"
            address = re.search(r"health: (\S+)/readyz", greeting)
            assert address
            assert (await fetch(session, f"{address[1]}/readyz"))["status"] == "ready"
            metrics = await fetch(session, f"{address[1]}/metrics")
            table = (await run_fanout("workers", "--url", location)).out.splitlines()
            greeting += (await end(local))[1]
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        await kept.manager.run(job)

    assert re.fullmatch(r"Fanout \S+ works on the jobs of postgresql://127.0.0.1:\d+/fanout_\d+", greeting.splitlines()[0])
    assert greeting.splitlines()[1] == "accounts: local"
    assert '"event":"worker.joined"' in greeting
    assert PASSWORD not in greeting + log
    assert code == 0
    assert sent < UNITS, "it was ended in the midst of the job"
    assert len(upstream.requests) == UNITS, "no unit was sent twice"
    assert {(process["kind"], *process["accounts"]) for process in shown} == {("serve",), ("worker", "local"), ("worker", "up")}
    assert {process["state"] for process in shown} == {"working"}
    assert [one["chunks"] > 0 for process in shown for one in process["activity"]["jobs"] if one["id"] == job] in ([], [True])
    assert re.search(r'^fanout_workers\{account="local"\} 1', metrics, re.MULTILINE)
    assert [line.split()[0] for line in table] == ["kind", "serve", "worker"]


async def test_a_command_that_runs_a_job_is_listed_until_it_ends(upstream: Upstream, tmp_path: Path, location: str) -> None:
    async with open_jobs(upstream.url, tmp_path, store=location) as kept:
        created = await kept.create(4, "up/sleep-0.3", concurrency=1)
        settings = load_settings(tmp_path / "providers.json", {"HOME": str(tmp_path), "FANOUT_STORE": location})
        seen: set[tuple[str, str | None]] = set()
        async with open_local_jobs(settings) as jobs:
            job = await jobs.get(created.id)
            assert job
            async for _ in jobs.run(job):
                seen |= {(row.kind, row.accounts) for row in await kept.store.processes.list_processes()}
        assert seen == {("batch", "[]")}, "it takes no other job"
        assert await kept.store.processes.list_processes() == []


async def test_the_commands_of_the_document_of_scale_run(location: str, tmp_path: Path) -> None:
    """Those that stay are left running while the others are tried."""
    keys: Any = {"OPENAI_API_KEY": "sk-0123456789", "ANTHROPIC_API_KEY": "sk-0123456789"}
    blocks = [block.text for block in read_blocks("docs/scale.md") if block.language == "console"]
    commands = [shlex.split(line) for block in blocks for line in block.splitlines()]
    async with AsyncExitStack() as running:
        listed: list[str] = []
        for words in commands:
            words = [word.replace("postgresql://fanout@db.example/fanout", location) for word in words]
            words = [word.replace("fanout.db", str(tmp_path / "fanout.db")) for word in words]
            variables: Any = dict(word.split("=", 1) for word in words[: words.index("fanout")])
            arguments = [word if word != "9100" else "0" for word in words[words.index("fanout") + 1 :]]
            if arguments[0] == "serve":
                arguments += ["--port", "0"]
            if arguments[0] in ("serve", "worker"):
                process = await running.enter_async_context(start_fanout(*arguments, **variables, **keys))
                await read_until(process, "try: " if arguments[0] == "serve" else "accounts: ")
                continue
            result = await run_fanout(*arguments, **variables)
            assert result.code == 0, result.err
            listed += [line.split()[0] for line in result.out.splitlines()]

    assert [words[words.index("fanout") + 1] for words in commands] == ["serve", "serve", "worker", "worker", "workers"]
    assert listed == ["kind", "serve", "worker", "worker"], "the first server has a store of its own"


@pytest.mark.parametrize(
    "arguments",
    [
        (
            ("--url", ":memory:"),
            "fanout: command line: --url: is `:memory:`, which no other process can use; allowed: `postgresql://USER@HOST/DATABASE`",
        ),
        (("--url", "nowhere.db"), "and there is no such file; allowed: `postgresql://"),
        (("--url", f"mysql://me:{PASSWORD}@db/x"), "--url: `mysql` is not known; allowed: "),
        (("--accounts", "upp,there"), "--accounts: unknown provider `upp`; did you mean `up`?"),
        (("--accounts", "there"), "--accounts: unknown provider `there`; known: up, local"),
        (("--accounts", "up"), "--accounts: `up` needs `UP_KEY`"),
    ],
    ids=str,
)
async def test_a_worker_that_cannot_join_says_why_and_what_is_allowed(
    arguments: tuple[tuple[str, ...], str], tmp_path: Path, location: str
) -> None:
    config = write_providers_file("http://127.0.0.1:1/v1", tmp_path, api_key_env="UP_KEY")
    options, expected = arguments
    result = await run_fanout("worker", "--config", str(config), *options, FANOUT_STORE=location)

    assert result.code == 2
    assert expected in result.err
    assert PASSWORD not in result.err
