"""Outputs of the command line: full, closed, of another encoding, and text that would steer the terminal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path

import aiohttp
import click
import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fanout.cli.batch.results_output import find_results_output
from fanout.cli.tables import SafeConsole, print_table
from fanout.jobs.output_files import open_output
from tests.support.cli import FANOUT, CommandResult, build_environ, run_command, run_fanout
from tests.support.ports import find_free_port

EVIL = "a\x1b[31mb\x07\x9b2Jc\x1b]0;title\x07\u202e\u2066"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
ASK = ("ask", "-m", "local/ngram-3", "--max-tokens", "3", "The")


async def run_redirected(redirection: str, *arguments: str) -> CommandResult:
    """Run `fanout` with its outputs redirected by a shell."""
    command = f"exec {shlex.join([*FANOUT, *arguments])} {redirection}"
    return await run_command(("sh", "-c", command))


@pytest.mark.parametrize("arguments", [ASK, (*ASK, "--json"), ("models",), ("models", "--json"), ("schema",), ("--help",)])
async def test_a_full_output_is_reported_in_one_sentence(arguments: tuple[str, ...]) -> None:
    done = await run_redirected("> /dev/full", *arguments)
    assert (done.code, done.err.splitlines()[-1]) == (1, "fanout: the output cannot be written: No space left on device")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [ASK, ("models",), ("schema",)])
async def test_a_closed_output_is_no_crash(arguments: tuple[str, ...]) -> None:
    done = await run_redirected(">&-", *arguments)
    assert done.code == 0
    assert "Traceback" not in done.err


@pytest.mark.parametrize("arguments", [ASK, ("models",), ("check",)])
async def test_output_never_fails_for_its_encoding(arguments: tuple[str, ...]) -> None:
    done = await run_fanout(*arguments, PYTHONIOENCODING="ascii", NO_COLOR="1")
    assert done.code == 0
    assert "fanout:" not in done.err
    assert "Traceback" not in done.err


async def test_json_is_utf_8_whatever_the_encoding_of_the_terminal() -> None:
    done = await run_fanout("ask", "-m", "local/ngram-3", "--max-tokens", "1", "--json", "é…", PYTHONIOENCODING="latin-1")
    assert json.loads(done.out)["object"]


@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-", "> /dev/full 2> /dev/full", "2>&-", "<&- >&- 2>&-"])
async def test_a_server_whose_output_is_full_or_closed_serves(redirection: str) -> None:
    port = find_free_port()
    command = f"exec {shlex.join([*FANOUT, 'serve', '--port', str(port)])} {redirection}"
    process = await asyncio.create_subprocess_exec("sh", "-c", command, stderr=asyncio.subprocess.PIPE, env=build_environ())
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/livez") as response:
                        assert response.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
    assert process.returncode == 0
    assert b"cannot listen" not in err
    if redirection == "> /dev/full":
        assert b"server.greeting_failed" in err


def test_no_text_on_a_console_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = SafeConsole(force_terminal=True, color_system=None, width=60)
    table = Table(title=Text(EVIL))
    table.add_column(Text(EVIL))
    table.add_row(Text(EVIL))
    for shown in (EVIL, Text(EVIL), Panel(Text(EVIL), title=Text(EVIL)), table):
        console.print(shown, markup=False)
    print_table(console, (EVIL,), [(EVIL,)])
    shown_text = capsys.readouterr().out
    assert "␛[31mb" in shown_text
    assert not CONTROL.search(shown_text)


def test_results_on_a_terminal_do_not_steer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a pipe they are the bytes that they are; Parquet is none of text."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8", newline="") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        with open_output(find_results_output("-", "csv")) as write:
            content = f"text\r\n{EVIL}é\r\n".encode()
            write(content[:-3])  # amid a character
            write(content[-3:])
        shown = os.read(ours, 1000).decode()
        with pytest.raises(click.UsageError, match=r"-o results\.parquet"):
            find_results_output("-", "parquet")
    os.close(ours)
    assert not CONTROL.search(shown.replace("\r\n", "\n"))
    assert shown.endswith("é\r\n")


async def test_what_a_server_writes_in_its_error_does_not_steer_the_terminal() -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps({"error": {"message": EVIL, "details": []}}).encode()
        writer.write(b"HTTP/1.1 418 Teapot\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for arguments in (("ask", "hi"), ("batch", "list"), ("ask", "--json", "hi")):
            done = await run_fanout(*arguments, "--server", address)
            assert (done.code, "␛[31mb" in done.err) == (2, True)
            assert not CONTROL.search(done.out + done.err)


async def test_json_shows_control_characters_as_escapes() -> None:
    done = await run_fanout("ask", "-m", EVIL, "--json", "hi")
    assert "\\u001b[31mb\\u0007\\u009b2J" in done.out
    assert not CONTROL.search(done.out)


def test_only_the_sinks_write_to_the_terminal() -> None:
    """Whatever is printed elsewhere would not be cleaned."""
    folder = Path(sys.modules["fanout.cli.tables"].__file__ or "").parent
    found = {
        f"{path.relative_to(folder)}: {match}"
        for path in folder.rglob("*.py")
        if path.name not in ("output.py", "main.py")
        for match in re.findall(r"click\.s?echo\(|(?<!Safe)\bConsole\(|(?<![.\w])print\(", path.read_text())
    }
    assert found == set()
