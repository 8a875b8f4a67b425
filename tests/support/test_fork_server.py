"""A forked command is the command: as it ends, what it prints, and what it has been given."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.cli import FANOUT, build_environ, run_command, run_fanout, start_command
from tests.support.fork_server import ForkedProcess

STARTED = ("sh", "-c", 'exec "$0" "$@"', *FANOUT)
"""The same command, started by Python itself."""


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


async def test_a_variable_that_python_reads_makes_python_start_it() -> None:
    process = await start_command((*FANOUT, "--version"), build_environ(PYTHONIOENCODING="ascii"))

    assert not isinstance(process, ForkedProcess)
    assert (await process.communicate())[0].startswith(b"fanout")
