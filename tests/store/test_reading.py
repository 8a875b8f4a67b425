"""Reading a store that another process is writing to for long, and one that cannot be written at all."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from fanout.store.engine.database import ROWS_AT_ONCE
from fanout.store.opening import open_store
from fanout.store.tables import files
from fanout.store.usage import UsageFilter
from tests.support.builders.settings import write_providers_file
from tests.support.cli import FANOUT, CommandResult, build_environ, run_fanout
from tests.support.databases import OutsideConnection
from tests.support.timing import timed
from tests.support.upstream.server import Upstream

COMMANDS = (("batch", "list"), ("batch", "status", "last"), ("batch", "export", "last"), ("report", "last", "--json"))


async def make_job(folder: Path, upstream: Upstream, store: str) -> Path:
    """Run a job of two rows to its end; return the configuration."""
    config = write_providers_file(upstream.url, folder)
    (folder / "in.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    arguments = ("batch", "run", str(folder / "in.jsonl"), "-m", "up/say-hello", "--config", str(config))
    ran = await run_fanout(*arguments, FANOUT_STORE=store)
    assert ran.code == 0, ran.err
    return config


def check_outputs(ended: list[CommandResult]) -> None:
    assert [(one.code, one.err) for one in ended] == [(0, "")] * len(COMMANDS)
    assert "done" in ended[0].out
    assert "done" in ended[1].out
    assert [json.loads(line)["text"] for line in ended[2].out.splitlines()] == ["hello"] * 2


async def test_jobs_are_read_while_another_process_writes(tmp_path: Path, upstream: Upstream, location: str) -> None:
    """It holds the write lock all the while; nothing waits for it."""
    config = await make_job(tmp_path, upstream, location)
    with OutsideConnection(location) as other:
        other.hold()
        commands = (run_fanout(*command, "--config", str(config), FANOUT_STORE=location) for command in COMMANDS)
        ended = await asyncio.gather(*commands)
        other.release()
    check_outputs(ended)


@timed
async def test_opening_a_current_store_takes_no_lock(location: str) -> None:
    """Also for a process that will write: it waits only when it does."""
    async with open_store(location):
        pass
    with OutsideConnection(location) as other:
        other.hold()
        began = time.monotonic()
        async with open_store(location, is_reading=True) as store:
            assert store
            assert await store.usage.report(UsageFilter(0, 2**40)) == []
        assert time.monotonic() - began < 1.5
        other.release()


async def test_jobs_are_read_from_a_folder_that_cannot_be_written(tmp_path: Path, upstream: Upstream) -> None:
    """A real mount without writing, since root may write everywhere else."""
    folder = tmp_path / "store"
    folder.mkdir()
    config = await make_job(tmp_path, upstream, str(folder / "fanout.db"))
    mount = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder} && exec"
    ended = []
    for command in COMMANDS:
        words = [*FANOUT, *command, "--config", str(config)]
        process = subprocess.run(
            ["unshare", "-rm", "sh", "-c", f'{mount} "$@"', sys.executable, *words],
            env=build_environ(FANOUT_STORE=str(folder / "fanout.db")),
            capture_output=True,
            text=True,
            check=False,
        )
        if "unshare" in process.stderr or "mount" in process.stderr:
            pytest.skip("no mounts here")
        ended.append(CommandResult(process.returncode, process.stdout, process.stderr))
    check_outputs(ended)


async def test_others_get_their_turns_while_many_rows_are_taken() -> None:
    turn, made = 0, Counter[int]()

    async def take_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with open_store(":memory:") as store:
        assert store
        rows = [
            {"id": f"f{n}", "created": n, "account_id": "", "filename": "", "purpose": "", "bytes": 0} for n in range(1_000)
        ]
        await store.database.execute(files.insert().values(rows))
        other = asyncio.create_task(take_turns())
        await store.database.fetch_as(lambda *_: made.update([turn]), select(files))
        other.cancel()

    assert made.total() == 1_000
    assert max(made.values()) <= ROWS_AT_ONCE
