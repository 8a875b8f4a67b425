"""`fanout ask` on a real (pseudo-)terminal: answers that move, Ctrl-C."""

from __future__ import annotations

import asyncio
import signal

from tests.support.cli import PATIENCE_S, started
from tests.support.terminal import Screen
from tests.support.upstreams import Upstream


async def test_answers_move_side_by_side_and_stay(scripted: str) -> None:
    models = ["-m", "up/say-[red]bold[/red]-gap-0.1", "-m", "ok", "-m", "nope"]
    async with Screen("ask", "hi", "--config", scripted, *models, columns=120) as screen:
        await screen.until("[red")
        moving = screen.seen
        code = await screen.end()

    assert code == 1
    assert "This is ok." in moving
    assert "[red]bold[/red] " not in moving, "an answer was shown only when it was whole"
    assert screen.left[0].count("╭─") == 3
    assert "│ [red]bold[/red] " in screen.left[1]
    assert "│ This is ok. " in screen.left[1]
    assert {len(line) for line in screen.left} == {120}
    assert "\x1b[31m" in screen.seen
    assert "\x1b[32m" in screen.seen


async def test_no_colour_is_used_where_none_is_wanted(scripted: str) -> None:
    async with Screen("ask", "hi", "--config", scripted, "-m", "ok", "--bogus") as screen:
        assert await screen.end() == 2
    assert "Traceback" not in screen.seen


async def test_ctrl_c_ends_the_calls_and_leaves_what_came(scripted: str, upstream: Upstream) -> None:
    async with Screen("ask", "hi", "--config", scripted, "-m", "up/chunks-100-gap-0.1", "-m", "ok") as screen:
        await screen.until("w3")
        screen.type("\x03")
        code = await screen.end()
        await upstream.closed()

    assert code == 130
    assert "Traceback" not in screen.seen
    assert any("w0 w1 w2 w3" in line for line in screen.left)
    assert any("broken off after" in line for line in screen.left)
    assert any("This is ok." in line for line in screen.left)
    assert [request.model for request in upstream.abandoned] == ["chunks-100-gap-0.1"]


async def test_sigint_without_a_terminal_ends_it_too(scripted: str, upstream: Upstream) -> None:
    async with started("ask", "hi", "--config", scripted, "-m", "up/hang", "--json") as process:
        await upstream.arrived(1)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE_S):
            told, _ = await process.communicate()

    assert (process.returncode, told.strip()) == (130, b"")


async def test_without_a_prompt_on_a_terminal_it_says_how_to_give_one() -> None:
    async with Screen("ask") as screen:
        code = await screen.end()

    assert code == 2
    assert "or pipe it in" in screen.seen
