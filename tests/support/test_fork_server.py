"""A forked command is the command: as it ends, what it prints, and what it has been given."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.cli import FANOUT, build_environ, run_command, run_fanout, start_command
from tests.support.fork_server import ROOT, ForkedProcess

STARTED = ("sh", "-c", 'exec "$0" "$@"', *FANOUT)
"""The same command, started by Python itself."""
KILLED_TESTS = """
import asyncio, os, time
from tests.support.cli import build_environ
from tests.support.fork_server import fork_fanout

async def run():
    process = await fork_fanout(["ask", "hi"], build_environ(FANOUT_STORE="off"), stdin=0)
    if not (heir := os.fork()):
        time.sleep(60)
        os._exit(0)
    print(heir, process.pid, flush=True)
    await process.wait()

asyncio.run(run())
"""
"""Tests that have started a command, which waits for its standard input, and a process that has all their descriptors."""


@pytest.mark.parametrize("arguments", [("--version",), ("models",), ("ask", ""), ("nope",), ()])
async def test_it_ends_and_prints_as_one_that_python_starts(arguments: tuple[str, ...], tmp_path: Path) -> None:
    forked = await run_fanout(*arguments, cwd=tmp_path, FANOUT_STORE="off")

    assert forked == await run_command((*STARTED, *arguments), cwd=tmp_path, FANOUT_STORE="off")
    assert forked.out + forked.err


async def test_it_has_its_own_folder_and_variables_no_other_descriptors_and_can_be_killed(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    environ = build_environ(FANOUT_STORE="off")
    process = await start_command((*FANOUT, "ask", "hi"), environ, stdin=reading, cwd=tmp_path)
    os.close(reading)
    assert isinstance(process, ForkedProcess)
    assert process.stderr
    assert b"reading standard input" in await process.stderr.readline()
    entry = Path(f"/proc/{process.pid}")
    assert (entry / "cwd").readlink() == tmp_path
    assert {path.name for path in (entry / "fd").iterdir()} == {"0", "1", "2"}
    process.kill()
    assert await process.communicate() == (b"", b"")
    os.close(writing)

    assert process.returncode == await process.wait() == -signal.SIGKILL
    process.kill()  # which nobody has anymore


async def test_the_server_and_its_processes_end_with_the_tests_that_are_killed(tmp_path: Path) -> None:
    """Even if a process of their that lives on has inherited the socket by which they would tell the server."""
    reading, writing = os.pipe()
    tests = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED_TESTS, stdin=reading, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert tests.stdout
    heir, command = map(int, (await tests.stdout.readline()).split())
    tests.kill()
    await tests.wait()
    try:
        async with asyncio.timeout(10):
            while Path(f"/proc/{command}").exists():
                await asyncio.sleep(0.01)
        assert Path(f"/proc/{heir}").exists()
    finally:
        os.kill(heir, signal.SIGKILL)
        os.close(reading)
        os.close(writing)


async def test_a_variable_that_python_reads_makes_python_start_it() -> None:
    process = await start_command((*FANOUT, "--version"), build_environ(PYTHONIOENCODING="ascii"))

    assert not isinstance(process, ForkedProcess)
    assert (await process.communicate())[0].startswith(b"fanout")
