"""`fanout ask` on a real (pseudo-)terminal: answers that move, Ctrl-C."""

from __future__ import annotations

import asyncio
import signal

from tests.support.cli import PATIENCE_S, start_fanout
from tests.support.terminal import TerminalSession
from tests.support.timing import timed
from tests.support.upstream.server import Upstream


@timed
async def test_answers_move_side_by_side_and_stay(providers_json: str) -> None:
    models = ["-m", "up/say-[red]bold[/red]-gap-0.1", "-m", "ok", "-m", "nope"]
    async with TerminalSession("ask", "hi", "--config", providers_json, *models, columns=120) as screen:
        await screen.wait_for("[red")
        moving = screen.output
        code = await screen.wait()

    assert code == 1
    assert "This is ok." in moving
    assert "[red]bold[/red] " not in moving, "an answer was shown only when it was whole"
    assert screen.final_lines[0].count("╭─") == 3
    assert "│ [red]bold[/red] " in screen.final_lines[1]
    assert "│ This is ok. " in screen.final_lines[1]
    assert {len(line) for line in screen.final_lines[:-1]} == {120}
    assert screen.final_lines[-1].startswith("total cost unknown · fastest: ok (")
    assert "\x1b[31m" in screen.output
    assert "\x1b[32m" in screen.output


async def test_an_unknown_option_on_a_terminal_is_reported_without_a_traceback(providers_json: str) -> None:
    async with TerminalSession("ask", "hi", "--config", providers_json, "-m", "ok", "--bogus") as screen:
        assert await screen.wait() == 2
    assert "Traceback" not in screen.output


async def test_ctrl_c_ends_the_calls_and_leaves_the_text_so_far(providers_json: str, upstream: Upstream) -> None:
    async with TerminalSession("ask", "hi", "--config", providers_json, "-m", "up/chunks-100-gap-0.1", "-m", "ok") as screen:
        await screen.wait_for("w3")
        await screen.press_ctrl_c()
        code = await screen.wait()
        await upstream.wait_until_closed()

    assert code == 130
    assert "Traceback" not in screen.output
    assert any("w0 w1 w2 w3" in line for line in screen.final_lines)
    assert any("broken off after" in line for line in screen.final_lines)
    assert any("This is ok." in line for line in screen.final_lines)
    assert [request.model for request in upstream.abandoned] == ["chunks-100-gap-0.1"]


async def test_sigint_ends_a_command_without_a_terminal(providers_json: str, upstream: Upstream) -> None:
    async with start_fanout("ask", "hi", "--config", providers_json, "-m", "up/hang", "--json") as process:
        await upstream.wait_for_requests(1)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            out, _ = await process.communicate()

    assert (process.returncode, out.strip()) == (130, b"")


async def test_a_missing_prompt_on_a_terminal_is_explained() -> None:
    async with TerminalSession("ask") as screen:
        code = await screen.wait()

    assert code == 2
    assert "or pipe it in" in screen.output
